@0xc4741755ef644035;
# Best bid and ask, last trade and day totals of one market. Schema version v1; fields are only ever appended.

struct Quote {
  exchangeTime @0 :UInt64;        # the exchange's time, nanoseconds since the epoch, UTC; 0 = not given
  receivedTime @1 :UInt64;        # when the frame arrived, nanoseconds since the epoch, UTC
  ticker @2 :Text;
  connection @3 :Text;            # which connection delivered it
  sid @4 :UInt32;                 # the exchange's subscription id on that connection
  seq @5 :UInt64;                 # the exchange's sequence number on that subscription; 0 = the channel has none
  priceExponent @6 :Int8 = -6;    # dollars = bid, ask, last * 10 ^ priceExponent
  sizeExponent @7 :Int8 = -6;     # contracts = sizes, volume, openInterest * 10 ^ sizeExponent

  bid @8 :Int64;                  # YES price
  bidSize @9 :Int64;              # 0 = nobody bids
  ask @10 :Int64;                 # YES price
  askSize @11 :Int64;             # 0 = nobody offers
  last @12 :Int64;                # YES price of the last trade
  lastSize @13 :Int64;
  volume @14 :Int64;              # contracts traded so far
  openInterest @15 :Int64;        # contracts open
}
