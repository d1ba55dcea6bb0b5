@0x8e43076c0cd11a4a;
# A whole order book, or new sizes of some of its levels. Schema version v1; fields are only ever appended.

struct OrderBookUpdate {
  exchangeTime @0 :UInt64;        # the exchange's time, nanoseconds since the epoch, UTC; 0 = not given
  receivedTime @1 :UInt64;        # when the frame arrived, nanoseconds since the epoch, UTC
  ticker @2 :Text;
  connection @3 :Text;            # which connection delivered it
  sid @4 :UInt32;                 # the exchange's subscription id on that connection
  seq @5 :UInt64;                 # the exchange's sequence number on that subscription; 0 = the channel has none
  priceExponent @6 :Int8 = -6;    # dollars = price * 10 ^ priceExponent
  sizeExponent @7 :Int8 = -6;     # contracts = size * 10 ^ sizeExponent

  kind @8 :Kind;
  bids @9 :List(Level);           # YES prices; a side without levels is not set
  asks @10 :List(Level);          # YES prices (a bid for NO at p is an ask for YES at 1 - p)
  clock @11 :UInt64;              # the exchange's clock of this market; 0 = none
}

struct Level {
  price @0 :Int64;
  size @1 :Int64;                 # the level's new absolute size, not a change; 0 removes the level
}

enum Kind {
  snapshot @0;                    # replaces the book
  delta @1;                       # replaces the levels it names
}
