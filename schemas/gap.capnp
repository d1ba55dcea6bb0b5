@0x866dbf7dc3419633;
# A hole: what the exchange may have sent between two times and the archive does not have.
# Schema version v1; fields are only ever appended.

struct Gap {
  exchangeTime @0 :UInt64;        # always 0: an exchange does not announce a gap
  receivedTime @1 :UInt64;        # equals toTime: when the hole was closed
  ticker @2 :Text;                # empty: see tickers
  connection @3 :Text;            # the connection that lost something
  sid @4 :UInt32;                 # the subscription concerned; holds only when hasSid, else all of the connection
  seq @5 :UInt64;                 # always 0
  priceExponent @6 :Int8 = -6;
  sizeExponent @7 :Int8 = -6;

  feed @8 :Text;
  fromTime @9 :UInt64;            # receive time of the last frame before the hole, nanoseconds since the epoch, UTC
  toTime @10 :UInt64;             # receive time of the first frame after it
  reason @11 :Text;               # connection_lost, sequence_gap, silence, exchange_outage, rate_limited,
                                  # planned_teardown, spool_full, startup
  lastSeq @12 :UInt64;            # sequence number before the hole; holds only when hasLastSeq
  nextSeq @13 :UInt64;            # sequence number after it; holds only when hasNextSeq
  tickers @14 :List(Text);        # the markets concerned, unless allTickers
  hasSid @15 :Bool;
  hasLastSeq @16 :Bool;
  hasNextSeq @17 :Bool;
  allTickers @18 :Bool;
}
