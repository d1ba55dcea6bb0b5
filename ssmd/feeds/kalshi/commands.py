"""Commands to Kalshi: numbered, remembered until they are answered, repeated when that may help."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

BOOK_CHANNEL = "orderbook_delta"
NS_PER_S = 1_000_000_000
ANSWER_AFTER_NS = 10 * NS_PER_S


class Pending(msgspec.Struct):
    """A command that was sent and not answered. `sent_ns` is 0 until the first tick after it."""

    action: str  # subscribe, unsubscribe, add_markets, delete_markets, get_snapshot
    channel: str
    tickers: tuple[str, ...] = ()
    sid: int | None = None
    sent_ns: int = 0
    tries: int = 1

    @property
    def adds(self) -> bool:
        """Whether it asks for data."""
        return self.action in ("subscribe", "add_markets")

    def __str__(self) -> str:
        return f"{self.action} of {len(self.tickers) or 'all'} on {self.channel}"


class Commands:
    """The commands of one connection and their answers."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._retries: list[tuple[int, Pending]] = []
        self._last_id = 0
        self.any_answered = False
        """Whether the exchange answers commands at all."""

    def send(self, pending: Pending) -> bytes:
        """The command for `pending`, which now waits for its answer."""
        self._last_id += 1
        self._pending[self._last_id] = pending
        return msgspec.json.encode({"id": self._last_id, **_body(pending)})

    def update(self, action: str, by_sid: Mapping[int, Sequence[str]], batch: int) -> list[bytes]:
        """`update_subscription` commands for tickers of several subscriptions, at most `batch` in each."""
        return [
            self.send(Pending(action, BOOK_CHANNEL, group, sid))
            for sid, tickers in by_sid.items()
            for group in batches(tickers, batch)
        ]

    def answered(self, id_: object) -> Pending | None:
        """The command that `id_` answers; None for the unasked and for id 0, which means none."""
        pending = self._pending.pop(id_, None) if type(id_) is int else None
        self.any_answered = self.any_answered or pending is not None
        return pending

    def under_way(self, sid: int) -> tuple[set[str], set[str]]:
        """Tickers that unanswered commands may add to `sid`, and those that they take off it."""
        coming: set[str] = set()
        going: set[str] = set()
        for each in self._pending.values():
            if each.action == "delete_markets" and each.sid == sid:
                going.update(each.tickers)
            elif each.adds and each.sid in (sid, None):
                coming.update(each.tickers)
        return coming, going

    def all_tickers(self) -> set[str]:
        """Tickers of all commands that are unanswered or will be repeated."""
        waiting = [*self._pending.values(), *(pending for _, pending in self._retries)]
        return {ticker for each in waiting for ticker in each.tickers}

    def retry(self, pending: Pending, now_ns: int) -> None:
        """Send `pending` again after a while that doubles each time."""
        self._retries.append((now_ns + NS_PER_S * 2**pending.tries, pending))

    def due(self, now_ns: int) -> list[bytes]:
        """The repeated commands whose time has come."""
        due = [pending for at, pending in self._retries if at <= now_ns]
        self._retries = [(at, pending) for at, pending in self._retries if at > now_ns]
        return [self.repeat(pending, now_ns) for pending in due]

    def repeat(self, pending: Pending, now_ns: int) -> bytes:
        """`pending` once more."""
        pending.tries += 1
        pending.sent_ns = now_ns
        return self.send(pending)

    def overdue(self, now_ns: int) -> list[Pending]:
        """Commands without an answer for 10 s; they are forgotten."""
        late = []
        for id_, pending in tuple(self._pending.items()):
            if not pending.sent_ns:
                pending.sent_ns = now_ns
            elif now_ns - pending.sent_ns > ANSWER_AFTER_NS:
                late.append(pending)
                del self._pending[id_]
        return late


def _body(pending: Pending) -> dict[str, Any]:
    if pending.action == "subscribe":
        params: dict[str, Any] = {"channels": [pending.channel]}
        if pending.channel == BOOK_CHANNEL:
            params |= {"market_tickers": pending.tickers, "use_yes_price": False}
        return {"cmd": "subscribe", "params": params}
    if pending.action == "unsubscribe":
        return {"cmd": "unsubscribe", "params": {"sids": [pending.sid]}}
    params = {"sid": pending.sid, "action": pending.action, "market_tickers": pending.tickers}
    return {"cmd": "update_subscription", "params": params}


def batches(tickers: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """`tickers` in tuples of at most `size`."""
    for start in range(0, len(tickers), size):
        yield tuple(tickers[start : start + size])
