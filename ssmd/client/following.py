"""The protocol of a stream without its connection: what to ask, what a message means, where to go on after a break.

Nothing here waits or touches a network: messages go in, events and requests come out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ssmd.client.books import Books
from ssmd.client.errors import GatewayAway, GatewayError, NotAllowed
from ssmd.client.events import BookState, Event, Gap, Notice, OrderBook, Other, Subscribed, decode

Request: TypeAlias = dict[str, Any]

SUBSCRIBE = "ssmd-subscribe"
BOOKS = "ssmd-books"
LATEST = "ssmd-latest"
BUSY = frozenset({"too_many_requests", "rate_limited", "too_many_clients", "not_available", "keys_away"})
KEY_WRONG = frozenset({"no_key", "wrong_key", "scope_missing"})
MARGIN_MS = 1_000
"""What an exchange calls a time may be so much before the time at which it is heard here."""
NOBODY = "ssmd.client.books"
"""A ticker that no market has: the answer about it comes after all books that were due before."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription."""

    symbols: tuple[str, ...]
    channels: tuple[str, ...]
    mode: str
    interval_ms: int

    def request(self, **more: Any) -> Request:
        """The message that asks for it."""
        timed = {"interval_ms": self.interval_ms} if self.mode == "conflated" else {}
        fields = {"action": "subscribe", "symbols": list(self.symbols), "channels": list(self.channels)}
        return fields | {"mode": self.mode} | timed | {"id": SUBSCRIBE} | more


class Follower:
    """Follows one subscription over any number of connections; keeps `books`.

    `seq` is the number that the next message goes on from, `told` the subscription to which it belongs.
    """

    def __init__(self, wanted: Wanted, books: Books, clock_ms: Callable[[], int]) -> None:
        self.wanted = wanted
        self.books = books
        self.seq: int | None = None
        self.unreadable = 0
        self.answered = False  # was something subscribed on this connection?
        self._told: Wanted | None = None
        self._clock_ms = clock_ms
        self._heard_ms = clock_ms()
        self._heard_before = self._lost_ms = self._heard_ms
        self._to_mend = False  # once what is due was received: ask for all books again
        self._mending = False  # that was asked for
        self._whole = True  # were all books received that were due?
        self._asked = False  # is the answer that comes after the books awaited?
        self._again = False

    def opening(self) -> Request:
        """The first message of a new connection."""
        self.answered = self._to_mend = self._mending = self._asked = self._again = False
        if self.seq is None or self._told is None:
            return self.wanted.request()
        return self._told.request(from_seq=self.seq)

    def lost(self) -> None:
        """The connection is gone."""
        self.books.connection(up=False)
        if self.answered:
            self._lost_ms = self._heard_ms - MARGIN_MS

    def take(self, text: str) -> tuple[list[Event], list[Request]]:
        """Follow one message: what it means, and what to ask because of it. GatewayError when it is the end."""
        message = decode(text)
        if message is None:
            self.unreadable += 1
            return [], []
        self._heard_before, self._heard_ms = self._heard_ms, self._clock_ms()
        if isinstance(message, Other) and message.type in ("subscribed", "unsubscribed"):
            return self._answer(message)
        events: list[Event] = []
        requests: list[Request] = []
        if message.seq is not None and not self._count(message.seq, events, requests):
            return [], []
        if isinstance(message, Other):
            self._notice(message, events, requests)
            return events, requests
        if isinstance(message, OrderBook):
            self.books.follow(message)
        elif isinstance(message, BookState):
            self.books.judge(message.state, message.tickers)
        events.append(message)
        return events, requests

    def _count(self, seq: int, events: list[Event], requests: list[Request]) -> bool:
        """Is this number new? Those that are missing before it are told."""
        if self.seq is None or seq == self.seq + 1:
            self.seq = seq
            return True
        if seq <= self.seq:
            return False
        events.append(self._gap("hole", "numbers are missing", self.seq + 1, seq - 1))
        self.books.distrust()
        requests += self._mend_later()
        self.seq = seq
        return True

    def _answer(self, message: Other) -> tuple[list[Event], list[Request]]:
        """To subscribe or unsubscribe."""
        before, last = self._told, self.seq
        mode, interval_ms = message.mode, message.interval_ms
        if message.type == "unsubscribed":
            if before is None or message.seq is None:
                return [], []  # nobody has asked
            mode, interval_ms = before.mode, before.interval_ms
        self.seq = message.seq
        self._told = Wanted(self.wanted.symbols, message.channels, mode, interval_ms)
        if message.type == "unsubscribed":
            if not message.channels:
                self.seq = self._told = None
            return [], []
        first, self.answered = not self.answered, True
        self.books.connection(up=True)
        if self._mending:
            self._mending = False
            self.books.judge("live", None)
            return [], self._books_due()
        said: Event = Subscribed(
            symbols=message.symbols, mode=message.mode, unknown=message.unknown, resumed=message.resumed,
            seq=message.seq or 0, ts=self._heard_ms,
        )  # fmt: skip
        if message.resumed:
            whole = self._whole and set(message.channels) == set(self.wanted.channels)
            return [said], [] if whole else self._mend_later()
        if not first and before is not None and before.mode != "latest":
            return [said], []  # an operator has changed the mode; what was known goes on
        self.books.judge("live", None)
        self.books.distrust()
        if message.resumed is None or last is None or message.seq is None:
            return [said], self._books_due()
        # Told here, not with RESUME_FAILED, which follows: the connection may break between the two.
        now = message.seq
        reason = "what was sent since is not kept any more; the whole books follow"
        return [said, self._gap("resume_failed", reason, min(last + 1, now), now)], self._books_due()

    def _mend_later(self) -> list[Request]:
        """Some books are wrong: ask for all of them, but not before what is due was received."""
        self._whole = False
        self._to_mend = True
        return self._ask()

    def _mend(self) -> list[Request]:
        """Ask for all books by leaving their channel and coming back: nothing is missed of the other channels."""
        assert self._told is not None
        self._to_mend, self._mending = False, True
        self.books.distrust()
        wanted = Wanted(self.wanted.symbols, self.wanted.channels, self._told.mode, self._told.interval_ms)
        if "orderbook" not in self._told.channels:
            return [wanted.request()]
        return [{"action": "unsubscribe", "symbols": list(wanted.symbols), "channels": ["orderbook"]}, wanted.request()]

    def _books_due(self) -> list[Request]:
        """The gateway sends whole books now; ask for a sign that it has sent all of them."""
        assert self._told is not None
        if "orderbook" not in self._told.channels or self._told.mode == "latest":
            self._whole = True
            return []
        self._whole = False
        return self._ask()

    def _ask(self) -> list[Request]:
        """For a sign that all that is due now was sent."""
        if self._asked:
            self._again = True
            return []
        self._asked = True
        return [{"action": "snapshot", "symbols": [NOBODY], "channels": ["status"], "id": BOOKS}]

    def _notice(self, message: Other, events: list[Event], requests: list[Request]) -> None:
        if message.type == "gap":
            self._missing(message, events, requests)
        elif message.type == "system":
            events.append(Notice(code=message.code, message=message.message, ts=message.ts or self._heard_ms))
        elif message.type == "error":
            self._refused(message)
        elif message.type == "snapshot" and message.id == BOOKS:
            self._asked = False
            if self._again:
                self._again = False
                requests += self._ask()
            elif self._to_mend:
                requests += self._mend()
            else:
                self._whole = not self._mending

    def _missing(self, message: Other, events: list[Event], requests: list[Request]) -> None:
        if message.from_ is None or message.to is None:
            end = message.to_ts or self._heard_ms
            events.append(
                Gap(
                    kind="upstream",
                    reason=message.reason,
                    from_ts=message.from_ts or 0,
                    to_ts=end,
                    tickers=message.tickers,
                    seq=message.seq,
                    ts=message.ts or end,
                )
            )
            return
        if message.code == "RESUME_FAILED":
            return  # was told with the answer to subscribe
        events.append(self._gap("skipped", message.message or message.reason, message.from_, message.to))
        self.seq = max(self.seq or 0, message.to)
        self.books.distrust(message.books)
        requests += self._books_due()

    def _gap(self, kind: Literal["resume_failed", "skipped", "hole"], reason: str, first: int, last: int) -> Gap:
        now = self._heard_ms
        since = self._lost_ms if kind == "resume_failed" else self._heard_before - MARGIN_MS
        return Gap(kind=kind, reason=reason, from_ts=since, to_ts=now, from_seq=first, to_seq=last, ts=now)

    def _refused(self, message: Other) -> None:
        if message.id != SUBSCRIBE and self.answered:
            return  # of what this follower asks for itself, nothing is lost with the answer
        if message.code in BUSY:
            raise GatewayAway(message.message, message.next, code=message.code)
        if message.code in KEY_WRONG:
            raise NotAllowed(message.message, message.next, code=message.code, status=401)
        raise GatewayError(message.message, message.next, code=message.code, status=400)
