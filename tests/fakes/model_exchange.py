"""A tiny Kalshi: subscriptions, books and numbering as its documentation says, without sockets or clock."""

import json
from collections.abc import Sequence
from typing import Any


class Subscription:
    """One channel of a connection."""

    def __init__(self, sid: int, channel: str) -> None:
        self.sid = sid
        self.channel = channel
        self.seq = 0
        self.tickers: dict[str, None] = {}


class ModelExchange:
    """`merges`: one sid per channel, as the real exchange does; otherwise each subscribe gets a new sid.

    `limit` is the largest number of tickers of a subscription, `spoiled` are tickers that make a command invalid,
    `failures` are codes that answer the next commands in turn.
    """

    def __init__(self, *, merges: bool = True, limit: int = 10_000, spoiled: Sequence[str] = ()) -> None:
        self.merges = merges
        self.limit = limit
        self.spoiled = frozenset(spoiled)
        self.failures: list[int] = []
        self.silent_snapshots = False
        self.subscriptions: dict[int, Subscription] = {}
        self.books: dict[str, dict[str, dict[int, int]]] = {}
        self.commands: list[dict[str, Any]] = []
        self._last_sid = 0

    def tickers(self) -> set[str]:
        """All tickers whose book somebody subscribed."""
        return {ticker for each in self.subscriptions.values() for ticker in each.tickers}

    def answer(self, command: bytes) -> list[bytes]:
        """The frames that answer one command."""
        parsed = json.loads(command)
        self.commands.append(parsed)
        id_, params = parsed["id"], parsed["params"]
        if self.failures:
            return [self._error(id_, self.failures.pop(0))]
        if parsed["cmd"] == "subscribe":
            return self._subscribe(id_, params)
        if parsed["cmd"] == "unsubscribe":
            return [frame for sid in params["sids"] for frame in self._unsubscribe(id_, sid)]
        subscription = self.subscriptions.get(params["sid"])
        if subscription is None:
            return [self._error(id_, 7)]
        return self._update(id_, subscription, params["action"], params["market_tickers"])

    def change(self, ticker: str, side: str, cents: int, delta: int) -> list[bytes]:
        """A level changes by `delta` contracts (never below zero); the frames this makes."""
        levels = self._book(ticker)[side]
        delta = max(delta, -levels.get(cents, 0))
        levels[cents] = levels.get(cents, 0) + delta
        if not levels[cents]:
            del levels[cents]
        body = {"market_ticker": ticker, "market_id": "m", "side": side, "ts_ms": 5}
        body |= {"price_dollars": f"0.{cents:02d}", "delta_fp": f"{delta}.00"}
        return [
            self._numbered(each, "orderbook_delta", msg=body)
            for each in self.subscriptions.values()
            if ticker in each.tickers
        ]

    def book(self, ticker: str) -> tuple[dict[int, int], dict[int, int]]:
        """Bids and asks in millionths."""
        book = self._book(ticker)
        return (
            {cents * 10_000: size * 1_000_000 for cents, size in book["yes"].items()},
            {(100 - cents) * 10_000: size * 1_000_000 for cents, size in book["no"].items()},
        )

    def _book(self, ticker: str) -> dict[str, dict[int, int]]:
        return self.books.setdefault(ticker, {"yes": {10: 5}, "no": {20: 7}})

    def _subscribe(self, id_: int, params: dict[str, Any]) -> list[bytes]:
        (channel,) = params["channels"]
        tickers = params.get("market_tickers", [])
        if self.spoiled & set(tickers):
            return [self._error(id_, 11)]
        existing = [each for each in self.subscriptions.values() if each.channel == channel]
        if existing and self.merges:
            return self._add(id_, existing[0], [ticker for ticker in tickers if ticker not in existing[0].tickers])
        if len(tickers) > self.limit:
            return [self._error(id_, 26)]
        self._last_sid += 1
        made = self.subscriptions[self._last_sid] = Subscription(self._last_sid, channel)
        made.tickers.update(dict.fromkeys(tickers))
        ack = {"type": "subscribed", "id": id_, "msg": {"channel": channel, "sid": made.sid}}
        return [json.dumps(ack).encode(), *self._snapshots(made, tickers)]

    def _unsubscribe(self, id_: int, sid: int) -> list[bytes]:
        gone = self.subscriptions.pop(sid, None)
        return [self._error(id_, 7)] if gone is None else [self._numbered(gone, "unsubscribed", id=id_)]

    def _update(self, id_: int, subscription: Subscription, action: str, tickers: list[str]) -> list[bytes]:
        if self.spoiled & set(tickers):
            return [self._error(id_, 11, subscription)]
        if action == "add_markets":
            return self._add(id_, subscription, tickers)
        if action == "get_snapshot":
            return self._snapshots(subscription, [t for t in tickers if t in subscription.tickers], id_)
        for ticker in tickers:
            subscription.tickers.pop(ticker, None)
        return [self._ok(id_, subscription)]

    def _add(self, id_: int, subscription: Subscription, tickers: list[str]) -> list[bytes]:
        if len(subscription.tickers.keys() | set(tickers)) > self.limit:
            return [self._error(id_, 26, subscription)]
        subscription.tickers.update(dict.fromkeys(tickers))
        return [self._ok(id_, subscription), *self._snapshots(subscription, tickers)]

    def _ok(self, id_: int, subscription: Subscription) -> bytes:
        return self._numbered(subscription, "ok", id=id_, msg={"market_tickers": list(subscription.tickers)})

    def _snapshots(self, subscription: Subscription, tickers: Sequence[str], id_: int = 0) -> list[bytes]:
        if self.silent_snapshots or subscription.channel != "orderbook_delta":
            return []
        frames = []
        for ticker in tickers:
            body: dict[str, Any] = {"market_ticker": ticker, "market_id": "m"}
            for side, levels in self._book(ticker).items():
                if levels:
                    body[f"{side}_dollars_fp"] = [[f"0.{cents:02d}", f"{size}.00"] for cents, size in levels.items()]
            frames.append(self._numbered(subscription, "orderbook_snapshot", msg=body, **({"id": id_} if id_ else {})))
        return frames

    def _numbered(self, subscription: Subscription, type_: str, **fields: Any) -> bytes:
        subscription.seq += 1
        return json.dumps({"type": type_, "sid": subscription.sid, "seq": subscription.seq, **fields}).encode()

    def _error(self, id_: int, code: int, subscription: Subscription | None = None) -> bytes:
        body = {"code": code, "msg": f"error {code}"}
        if subscription is not None:
            return self._numbered(subscription, "error", id=id_, msg=body)
        return json.dumps({"type": "error", "id": id_, "msg": body}).encode()
