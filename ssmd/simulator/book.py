"""The exchange's own order book of one market, and its `orderbook_snapshot` body."""

import json

from ssmd.simulator.fixed import contracts, dollars


class Book:
    """Bids of both sides, price → size in millionths. `clock` is None where the source (an older tape) has none."""

    __slots__ = ("clock", "market_id", "no", "yes")

    def __init__(self, market_id: str, clock: int | None) -> None:
        self.market_id = market_id
        self.clock = clock
        self.yes: dict[int, int] = {}
        self.no: dict[int, int] = {}

    def side(self, name: str) -> dict[int, int]:
        """The bids of `yes` or `no`."""
        return self.yes if name == "yes" else self.no

    def change(self, side: str, price: int, delta: int) -> None:
        """Apply a signed change; a level that falls to 0 or below is gone."""
        levels = self.yes if side == "yes" else self.no
        size = levels.get(price, 0) + delta
        if size > 0:
            levels[price] = size
        else:
            levels.pop(price, None)

    def best(self, side: str) -> int | None:
        """The best bid of a side, None when it is empty."""
        return max(self.side(side), default=None)

    def is_crossed(self) -> bool:
        """True when a yes bid and a no bid together reach a dollar: they would have traded."""
        yes, no = self.best("yes"), self.best("no")
        return yes is not None and no is not None and yes + no >= 1_000_000

    def levels(self, side: str, depth: int = 0) -> list[list[str]]:
        """Ascending, best bid last; the best `depth` of them, all when 0."""
        prices = sorted(self.side(side).items())
        return [[dollars(price), contracts(size)] for price, size in (prices[-depth:] if depth > 0 else prices)]

    def body(self, ticker: str) -> bytes:
        """The `msg` of a snapshot: a side without orders has no key at all."""
        body: dict[str, object] = {"market_ticker": ticker, "market_id": self.market_id}
        if self.clock is not None:
            body["clock"] = self.clock
        for side in ("yes", "no"):
            if levels := self.levels(side):
                body[f"{side}_dollars_fp"] = levels
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def unknown_body(ticker: str) -> bytes:
    """The answer for a ticker that does not exist: no error, an empty market id is the only sign."""
    body = {"market_ticker": ticker, "market_id": ""}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
