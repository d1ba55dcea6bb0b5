"""Any order of events, subscriptions, modes, slow reads, disconnections, resumes and restarts, against a model client.

The client believes only what the stream says: it checks every number, rebuilds books, compares them with each whole
book that it is sent, and at the end with the books and the list of the events themselves.
"""

import asyncio
import json
from collections import deque
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ssmd.gateway.actions import Actions
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.client import LOST, Client
from ssmd.gateway.hub import Hub
from ssmd.gateway.limiting import Allowance
from ssmd.gateway.resume import Window
from ssmd.gateway.waiting import Bounds
from ssmd.market.events import Event, Status
from ssmd.market.subjects import subject
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode, event_type_of
from ssmd.wire.requests import CHANNELS
from tests.fakes.reader import Reader, Socket
from tests.unit.gateway.events import T0, book, delta, quote, status, trade

FEED = "kalshi"
TICKERS = ("A", "B", "C")
MS = 1_000_000
START = 1_795_000_000_000_000_000
WINDOW_S = 30.0

Pairs = frozenset[tuple[str, str]]


def wanted(pairs: Pairs, channel: str, ticker: str) -> bool:
    return (ticker, channel) in pairs or ("*", channel) in pairs


class Segment:
    """One subscription from its answer to the next: what of the log belongs to it, what came, what is known to lack."""

    def __init__(self, pairs: Pairs, mode: str, start: int) -> None:
        self.pairs = pairs
        self.mode = mode
        self.start = start
        self.end: int | None = None
        self.got: list[tuple[str, str, int]] = []
        self.holes = 0


class Follower(Reader):
    """The model client; it outlives its connections."""

    def __init__(self) -> None:
        super().__init__()
        self.segment = self.latest = Segment(frozenset(), "realtime", 0)
        self.opening: deque[tuple[Segment, Segment]] = deque()
        self.states: dict[str, str] = {}
        self.answers = 0
        self.resumed = 0
        self.numbered_by = 0  # which process gave it its numbers
        self.process = 0  # which one it talks to
        self.failed = 0

    def begin(self, segment: Segment) -> None:
        self.latest.end = segment.start
        self.opening.append((segment, self.latest))
        self.latest = segment

    def connect(self, socket: Socket) -> None:
        """A new connection: answers that were not read by now never come."""
        self.socket = socket
        self.opening.clear()
        self._rest = b""

    def follow(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("subscribed", "unsubscribed"):
            self._turn(message)
        elif kind == "gap" and message.get("code") == "RESUME_FAILED":
            assert message["from"] <= message["to"] == self.seq
            self.failed += 1
        elif kind == "book_state" and message["state"] != "live":
            for ticker in message["tickers"]:
                self.states[ticker] = message["state"]
        elif kind == "snapshot":
            self.answers += 1
        if kind == "orderbook" and message["kind"] == "snapshot":
            ticker = message["ticker"]
            self.states.pop(ticker, None)
            if "seq" not in message and ticker in self.books and self.segment.mode == "realtime":
                assert self.books[ticker] == (dict(message["bids"]), dict(message["asks"])), "at a snapshot point"
        skipped = self.skipped
        super().follow(message)
        if kind == "orderbook" and not wanted(self.segment.pairs, kind, message["ticker"]):
            assert "seq" not in message, "only a snapshot that was asked for"
            del self.books[message["ticker"]]  # it is not followed
        self.segment.holes += self.skipped - skipped
        if "seq" in message and kind in CHANNELS:
            self.segment.got.append((kind, message["ticker"], message["ts"]))

    def _turn(self, message: dict[str, Any]) -> None:
        segment, before = self.opening.popleft()
        if message.get("resumed"):
            assert message["seq"] == self.seq
            assert self.numbered_by == self.process, "another process cannot know what was missed"
            before.end = segment.end
            if self.latest is segment:
                self.latest = before
            self.resumed += 1
            return
        if self.numbered_by != self.process:
            assert message["seq"] > (self.seq or 0), "no number is used again"
            self.numbered_by = self.process
        self.segment = segment
        for ticker in list(self.books):
            if not wanted(segment.pairs, "orderbook", ticker) or "resumed" in message or segment.mode == "latest":
                del self.books[ticker]


class StreamMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.timers: list[tuple[float, Any]] = []
        self.log: list[tuple[str, str, int]] = []
        self.model: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
        self.serial = count(1)
        self.numbers = count(1)
        self.process = 0
        self.followers = [Follower() for _ in range(3)]
        self.clients: dict[int, Client] = {}
        self.begin()
        self.snapshot("A", {1: 1})
        for n, symbols in enumerate((["A"], ["*"], ["A", "B"])):
            self.subscribe(n, symbols, [], None)

    def begin(self) -> None:
        self.timers.clear()
        self.hub = Hub(
            FEED, lambda: self.now, lambda: START + int(self.now * 1e9), window=Window(WINDOW_S, 20_000),
            later=lambda s, call: self.timers.append((self.now + s, call)),
        )  # fmt: skip
        self.hub.on_state(True)
        self.actions = Actions(self.hub, Catalogue(FEED, MemoryRegistry()), lambda: START)
        self.model.clear()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.check_at_rest()
            finally:
                self.loop.close()

    # --- the exchange ---

    def batch(self, *events: Event) -> None:
        async def pass_on() -> None:
            self.hub.on_batch(
                [(subject(FEED, event_type_of(e), e.ticker).encode(), encode(e)) for e in events]  # type: ignore[union-attr]
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        self.log += [(event_type_of(e), e.ticker, e.received_ns // MS) for e in events]  # type: ignore[union-attr]
        self.loop.run_until_complete(pass_on())

    @rule(ticker=st.sampled_from(TICKERS), amount=st.integers(1, 12))
    def trades(self, ticker: str, amount: int) -> None:
        self.batch(*(trade(ticker, next(self.serial) * MS) for _ in range(amount)))

    @rule(ticker=st.sampled_from(TICKERS))
    def quotes_and_status(self, ticker: str) -> None:
        self.batch(quote(ticker, T0 + next(self.serial) * MS), status(ticker, Status.OPEN, T0 + next(self.serial) * MS))

    @rule(ticker=st.sampled_from(TICKERS), levels=st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=20))
    def snapshot(self, ticker: str, levels: dict[int, int]) -> None:
        bids = {price * 10_000: size * 10**6 for price, size in levels.items()}
        self.model[ticker] = bids, {}
        n = next(self.serial)
        self.batch(book(ticker, n, bids=tuple(bids.items()), at=T0 + n * MS))

    @rule(
        ticker=st.sampled_from(TICKERS),
        changes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.booleans()), min_size=1, max_size=12),
    )
    def change(self, ticker: str, changes: list[tuple[int, int, bool]]) -> None:
        if ticker not in self.model:
            return
        events = []
        for price, size, is_bid in changes:
            level = ((price * 10_000, size * 10**6),)
            n = next(self.serial)
            events.append(delta(ticker, n, bids=level if is_bid else (), asks=() if is_bid else level, at=T0 + n * MS))
            side = self.model[ticker][0 if is_bid else 1]
            side[level[0][0]] = level[0][1]
            if not size:
                del side[level[0][0]]
        self.batch(*events)

    @rule()
    def outage(self) -> None:
        self.hub.on_state(False)
        self.hub.on_state(True)
        self.model.clear()

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.timers if at <= self.now]
        self.timers = [(at, call) for at, call in self.timers if at > self.now]
        for call in due:
            call()
        self.hub.watch()

    @rule()
    def restart(self) -> None:
        """Another process: it knows nothing."""
        self.process += 1
        self.now += 1.0
        self.clients.clear()
        self.begin()

    # --- the clients ---

    def ask(self, n: int, **fields: Any) -> None:
        self.loop.run_until_complete(
            self.actions.follow(self.clients[n], json.dumps(fields), lambda: Allowance(1, 1, 1))
        )

    def connect(self, n: int) -> None:
        socket = Socket()
        socket.high = 3_000
        number = next(self.numbers)

        def kick(code: int, reason: str) -> None:
            socket.kick(code, reason)
            if code == LOST:  # as the connection does
                self.hub.fanout.leave(client)
                if self.clients.get(n) is client:
                    del self.clients[n]

        client = Client(number, socket, kick, Bounds(60, 6_000))
        socket.client, socket.resumed = client, self.hub.fanout.resumed
        self.clients[n] = client
        self.hub.fanout.join(client)
        self.followers[n].connect(socket)
        self.followers[n].process = self.process

    @rule(
        n=st.integers(0, 2),
        symbols=st.lists(st.sampled_from([*TICKERS, "*"]), min_size=1, max_size=3, unique=True),
        channels=st.lists(st.sampled_from(CHANNELS), max_size=3, unique=True),
        mode=st.sampled_from([None, None, None, "realtime", "conflated", "latest"]),
    )
    def subscribe(self, n: int, symbols: list[str], channels: list[str], mode: str | None) -> None:
        follower = self.followers[n]
        if n not in self.clients:
            self.connect(n)
            follower.begin(Segment(frozenset(), "realtime", len(self.log)))
            follower.segment = follower.latest
            follower.opening.clear()
            follower.books.clear()
        now = follower.latest
        pairs = now.pairs | {(symbol, channel) for symbol in symbols for channel in channels or CHANNELS}
        follower.begin(Segment(pairs, mode or now.mode, len(self.log)))
        fields: dict[str, Any] = {"channels": channels} if channels else {}
        if mode:
            fields["mode"] = mode
        self.ask(n, action="subscribe", symbols=symbols, **fields)

    @rule(
        n=st.integers(0, 2),
        symbols=st.lists(st.sampled_from([*TICKERS, "*"]), min_size=1, max_size=2, unique=True),
        channels=st.lists(st.sampled_from(CHANNELS), max_size=2, unique=True),
    )
    def unsubscribe(self, n: int, symbols: list[str], channels: list[str]) -> None:
        if n not in self.clients:
            return
        follower = self.followers[n]
        now, off = follower.latest, channels or CHANNELS
        pairs = frozenset((s, c) for s, c in now.pairs if not (c in off and ("*" in symbols or s in symbols)))
        covered = {c for s, c in now.pairs if s == "*"}
        effective = {(s, c) for s, c in now.pairs if s == "*" or c not in covered}
        if covered and "*" not in symbols and not any(s in symbols and c in off for s, c in effective):
            self.ask(n, action="unsubscribe", symbols=symbols, **({"channels": channels} if channels else {}))
            return  # an error: nothing changes
        follower.begin(Segment(pairs, now.mode, len(self.log)))
        self.ask(n, action="unsubscribe", symbols=symbols, **({"channels": channels} if channels else {}))

    @rule(n=st.integers(0, 2), most=st.integers(0, 4_000) | st.none())
    def read(self, n: int, most: int | None) -> None:
        if n in self.clients:
            self.followers[n].read(most)

    @rule(n=st.integers(0, 2), most=st.integers(0, 4_000))
    def disconnect(self, n: int, most: int) -> None:
        if n in self.clients:
            self.followers[n].read(most)
            if n in self.clients:  # else the reading made it write to a connection that was reset
                self.hub.fanout.leave(self.clients.pop(n))

    @rule(n=st.integers(0, 2), most=st.integers(0, 4_000))
    def reset(self, n: int, most: int) -> None:
        """The connection is gone and nobody has noticed yet: the next write raises."""
        if n in self.clients:
            self.followers[n].read(most)
            socket = self.followers[n].socket
            socket.closed, socket.error = True, RuntimeError("unable to perform operation on a closed transport")

    @precondition(lambda self: len(self.clients) < 3)
    @rule(n=st.integers(0, 2), lost=st.booleans())
    def resume(self, n: int, lost: bool) -> None:
        follower = self.followers[n]
        now = follower.latest
        channels = sorted({channel for _, channel in now.pairs})
        symbols = sorted({symbol for symbol, _ in now.pairs})
        product = {(symbol, channel) for symbol in symbols for channel in channels}
        if n in self.clients or follower.seq is None or not symbols or product != now.pairs or follower.opening:
            return
        assert follower.segment is now
        self.connect(n)
        follower.begin(Segment(now.pairs, now.mode, len(self.log)))
        seq = follower.seq - 1_000 if lost and follower.seq > 1_000 else follower.seq
        if seq != follower.seq:
            follower.seq = seq
        failed = follower.failed
        self.ask(n, action="subscribe", symbols=symbols, channels=channels, mode=now.mode, from_seq=seq)
        if lost:
            while follower.socket.buffer:
                follower.read()
            assert follower.failed == failed + 1, "what is not kept is said to be lost"

    @rule(
        n=st.integers(0, 2),
        ticker=st.sampled_from(TICKERS),
        before=st.integers(0, 12),
        most=st.integers(0, 1_500),
        after=st.integers(0, 12),
        away_s=st.sampled_from([0.0, 1.0, 20.0, 40.0]),
        restarted=st.booleans(),
    )
    def be_away(
        self, n: int, ticker: str, before: int, most: int, after: int, away_s: float, *, restarted: bool
    ) -> None:
        """Read a part of a tick, miss the rest and another one, and come back."""
        if n not in self.clients:
            return
        for _ in range(20):
            self.followers[n].read()
        self.trades(ticker, before)
        self.disconnect(n, most)
        if restarted and away_s == 1.0:
            self.restart()
        self.trades(ticker, after)
        self.time_passes(away_s)
        self.resume(n, lost=False)

    @rule(n=st.integers(0, 2))
    def snapshots(self, n: int) -> None:
        if n in self.clients and not self.clients[n].leaving:
            self.ask(n, action="snapshot", symbols=list(TICKERS))

    # --- the truth ---

    def read_all(self) -> None:
        for _ in range(300):
            for n in list(self.clients):
                self.followers[n].read()
        for n, client in self.clients.items():
            assert client.leaving or client.ready, n

    def check_at_rest(self) -> None:
        for n in [n for n, client in self.clients.items() if client.leaving]:
            del self.clients[n]
        self.read_all()
        for n in list(self.clients):  # whoever came back lacks the books that were on their way
            missing = [t for t in self.model if t not in self.followers[n].books]
            if missing and wanted(self.followers[n].latest.pairs, "orderbook", missing[0]):
                self.ask(n, action="snapshot", symbols=missing)
        for _ in range(3):
            self.time_passes(1.0)
            self.read_all()
        for n, client in self.clients.items():
            follower = self.followers[n]
            assert not follower.opening
            if not client.leaving:
                self.check_events(follower.segment)
                self.check_books(follower)

    def check_events(self, segment: Segment) -> None:
        expected = [e for e in self.log[segment.start : segment.end] if wanted(segment.pairs, e[0], e[1])]
        if segment.mode == "latest":
            assert segment.got == []
        elif segment.mode == "conflated":
            assert set(segment.got) <= set(expected) | set(self.log)
            latest = {(channel, ticker): ts for channel, ticker, ts in expected}
            got = {(channel, ticker): ts for channel, ticker, ts in segment.got}
            if not segment.holes:
                stale = {key for key in latest if key[0] == "orderbook" and key[1] not in self.model}
                assert {k: v for k, v in latest.items() if k not in stale} == {
                    k: v for k, v in got.items() if k in latest and k not in stale
                }
        elif segment.holes:
            rest = iter(expected)
            assert all(one in rest for one in segment.got), "in order, each once"
            assert len(segment.got) < len(expected) + segment.holes
        else:
            assert segment.got == expected, "each once, none missing"

    def check_books(self, follower: Follower) -> None:
        if follower.segment.mode == "latest":
            return  # it has no books
        for ticker, levels in self.model.items():
            if wanted(follower.segment.pairs, "orderbook", ticker):
                seen = follower.books[ticker]
                exact: Any = tuple({round(p * 10**6): s * 10**6 for p, s in side.items()} for side in seen)
                assert exact == levels, ticker
                assert follower.states.get(ticker, "live") == "live"


TestStreamMachine = StreamMachine.TestCase
TestStreamMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
