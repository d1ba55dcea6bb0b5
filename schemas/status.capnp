@0xd0abc13f6c19076d;
# A step in a market's life. Schema version v1; fields are only ever appended.

struct MarketStatus {
  exchangeTime @0 :UInt64;        # the exchange's time, nanoseconds since the epoch, UTC; 0 = not given
  receivedTime @1 :UInt64;        # when the frame arrived, nanoseconds since the epoch, UTC
  ticker @2 :Text;
  connection @3 :Text;            # which connection delivered it
  sid @4 :UInt32;                 # the exchange's subscription id on that connection
  seq @5 :UInt64;                 # the exchange's sequence number on that subscription; 0 = the channel has none
  priceExponent @6 :Int8 = -6;    # dollars = settlementValue * 10 ^ priceExponent
  sizeExponent @7 :Int8 = -6;

  status @8 :Status;
  result @9 :Text;                # the outcome once determined, e.g. "yes" or "no"; else empty
  settlementValue @10 :Int64;     # what one YES contract pays; holds only when hasSettlementValue
  hasSettlementValue @11 :Bool;
}

enum Status {
  unknown @0;
  created @1;
  open @2;
  halted @3;
  closed @4;
  determined @5;
  settled @6;
  changed @7;                     # metadata, price structure or close time changed; the state did not
}
