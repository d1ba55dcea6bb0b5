@0x8e2ea5d2c5aff2c0;
# One public trade. Schema version v1; fields are only ever appended (see CHANGELOG.md).

struct Trade {
  exchangeTime @0 :UInt64;        # the exchange's time, nanoseconds since the epoch, UTC; 0 = not given
  receivedTime @1 :UInt64;        # when the frame arrived, nanoseconds since the epoch, UTC
  ticker @2 :Text;
  connection @3 :Text;            # which connection delivered it
  sid @4 :UInt32;                 # the exchange's subscription id on that connection
  seq @5 :UInt64;                 # the exchange's sequence number on that subscription; 0 = the channel has none
  priceExponent @6 :Int8 = -6;    # dollars = price * 10 ^ priceExponent
  sizeExponent @7 :Int8 = -6;     # contracts = size * 10 ^ sizeExponent

  price @8 :Int64;                # YES price
  size @9 :Int64;
  side @10 :Side;                 # the aggressor: buy = bought YES
  tradeId @11 :Text;              # the exchange's id of the trade
  block @12 :Bool;                # negotiated off the book
}

enum Side {
  buy @0;
  sell @1;
}
