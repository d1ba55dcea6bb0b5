"""The hub: live messages to numbered JSON, books handed over, and what clients are told when the broker was away."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ssmd.gateway import hub as hubs
from ssmd.gateway.client import Client
from ssmd.gateway.hub import Hub
from ssmd.gateway.subscription import Subscription
from ssmd.gateway.waiting import Bounds
from ssmd.market.events import Event, Gap, Kind, OrderBookUpdate
from ssmd.market.subjects import subject
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.wire.client import event_body
from ssmd.wire.normalized import decode, encode, event_type_of
from tests.fakes.reader import Reader, seat
from tests.unit.gateway.events import T0, book, delta, gap, quote, trade

FEED = "kalshi"


def packed(event: Event) -> tuple[bytes, bytes]:
    """(subject, payload) as the connector publishes it."""
    token = f"{FEED}.gap.c-1" if isinstance(event, Gap) else subject(FEED, event_type_of(event), event.ticker)
    return token.encode(), encode(event)


def join(hub: Hub, number: int, *symbols: str, limit: int = 1 << 20) -> Reader:
    reader = Reader()
    client = seat(reader, hub.fanout, number, Bounds(bytes=limit), high=limit)
    subscription = Subscription().plus(symbols)
    reader.seq = hub.fanout.move(client, subscription)
    hub.fanout.owe(client, hub.new_books(Subscription(), subscription))
    return reader


@pytest.fixture
def hub() -> Hub:
    return Hub(FEED, clock=lambda: T0)


async def turn() -> None:
    """Let the event loop end its turn."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_live_events_become_exact_numbered_json(hub: Hub) -> None:
    reader = join(hub, 1, "INXD-25-B4000")
    hub.on_batch([packed(trade("INXD-25-B4000", 7, price=450_000, size=10_500_000))])
    await turn()
    (message,) = reader.read()
    assert reader.raw[0].startswith(b'{"seq":1,"type":"trade"')
    assert b'"price":0.45,"size":10.5,"side":"buy"' in reader.raw[0]
    assert message["ts"] == T0 // 10**6


async def test_json_is_made_once_per_message_whatever_the_number_of_clients(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"body": 0, "decode": 0}
    body, read = event_body, decode

    def counted_body(event: Event, feed: str) -> bytes:
        calls["body"] += 1
        return body(event, feed)

    def counted_decode(event_type: str, payload: bytes) -> Event:
        calls["decode"] += 1
        return read(event_type, payload)

    monkeypatch.setattr(hubs, "event_body", counted_body)
    monkeypatch.setattr(hubs, "decode", counted_decode)
    readers = [join(hub, n, *symbols) for n, symbols in enumerate([("*",), ("A",), ("A", "B")] * 50)]
    hub.on_batch([packed(trade("A", n)) for n in range(100)])
    await turn()
    assert calls == {"body": 100, "decode": 100}
    assert [reader.socket.writes for reader in readers] == [1] * 150
    assert all(len(reader.read()) == 100 for reader in readers)


async def test_nothing_is_made_for_messages_that_nobody_wants(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Event] = []
    monkeypatch.setattr(hubs, "event_body", lambda event, _feed: made.append(event))
    join(hub, 1, "B")
    hub.on_batch([packed(trade("A"))])
    await turn()
    assert made == []
    assert len(hub.board.trades("A", 5)) == 1, "yet the last trades are known"


async def test_batches_of_one_turn_leave_as_one_write(hub: Hub) -> None:
    reader = join(hub, 1, "*")
    for n in range(10):
        hub.on_batch([packed(trade("A", n))])
    await turn()
    assert reader.socket.writes == 1
    assert len(reader.read()) == 10


async def test_a_message_that_cannot_be_decoded_is_counted_and_the_rest_goes_on(hub: Hub) -> None:
    reader = join(hub, 1, "*")
    subjects = b"kalshi.trade.A", b"kalshi.nonsense.A", b"x"
    hub.on_batch([*((name, b"not a message") for name in subjects), packed(trade("A"))])
    await turn()
    assert [m["type"] for m in reader.read()] == ["trade"]
    assert hub.undecodable == 3


async def test_a_new_client_gets_the_whole_book_first_and_then_each_change_once(hub: Hub) -> None:
    hub.on_batch([packed(book("A", 1, bids=((440_000, 10**6),))), packed(delta("A", 2, bids=((430_000, 2 * 10**6),)))])
    reader = join(hub, 1, "A")
    hub.on_batch([packed(delta("A", 3, bids=((440_000, 0),)))])
    await turn()
    first, second = reader.read()
    assert (first["kind"], first["bids"]) == ("snapshot", [[0.44, 1], [0.43, 2]])
    assert "seq" not in first
    assert (second["kind"], second["bids"], second["seq"]) == ("delta", [[0.44, 0]], 1)


async def test_a_whole_book_is_made_once_until_it_changes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.on_batch([packed(book("A", 1, bids=((440_000, 10**6),)))])
    made = 0
    original = event_body

    def counted(event: Event, feed: str) -> bytes:
        nonlocal made
        made += 1
        return original(event, feed)

    monkeypatch.setattr(hubs, "event_body", counted)
    readers = [join(hub, n, "A") for n in range(20)]
    assert made == 1
    assert {json.dumps(reader.read()) for reader in readers} == {json.dumps(readers[0].messages)}


async def test_a_recorded_gap_reaches_the_clients_it_concerns(hub: Hub) -> None:
    a, b, everything = join(hub, 1, "A"), join(hub, 2, "B"), join(hub, 3, "*")
    hub.on_batch([packed(gap(tickers=("A",))), packed(gap())])
    await turn()
    assert [len(reader.read()) for reader in (a, b, everything)] == [2, 1, 2]
    assert a.messages[0]["tickers"] == ["A"]


@pytest.fixture
def broker() -> MemoryTransport:
    return MemoryTransport()


class Connector:
    """The other side: publishes, and answers for the current books in pages of `page`."""

    def __init__(self, broker: MemoryTransport, hub: Hub) -> None:
        self.broker = broker
        self.hub = hub
        self.page = 1_000
        self.task: asyncio.Task[None] | None = None
        self.books: dict[str, OrderBookUpdate] = {}
        self.requests: list[object] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self._published = 0

    async def start(self) -> None:
        """Subscribe the hub and let it keep its books."""
        await self.broker.subscribe(self.hub.patterns, self.hub.on_batch, self.hub.on_state)
        self.task = asyncio.create_task(self.hub.keep_books(self.broker))

    async def answer(self, request: bytes) -> bytes:
        asked = msgspec.json.decode(request)
        self.requests.append(asked)
        if isinstance(asked, dict):
            tickers = [ticker for ticker in sorted(self.books) if ticker > asked["after"]]
        else:
            tickers = [ticker for ticker in asked if ticker in self.books] or ([] if asked else sorted(self.books))
        answer = b"".join(encode(self.books[ticker]) for ticker in tickers[: self.page])
        if self.before_answer is not None:
            await self.before_answer()
        return answer

    def publish(self, *events: Event) -> None:
        messages = []
        for event in events:
            self._published += 1
            name, payload = packed(event)
            messages.append(Outgoing(name, b"%d" % self._published, payload))
        self.broker.store(FEED, messages)


@pytest.fixture
async def live(hub: Hub, broker: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connector]:
    """A connector on a broker in memory; `start` lets the hub follow it. Retries come at once."""
    monkeypatch.setattr(hubs, "BOOKS_RETRY_S", 0.001)
    monkeypatch.setattr(hubs, "BOOKS_RETRY_MAX_S", 0.01)
    connector = Connector(broker, hub)
    await broker.serve(f"ssmd.books.{FEED}", connector.answer)
    yield connector
    if connector.task is not None:
        connector.task.cancel()
        await asyncio.gather(connector.task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for is not an event of ours
            await asyncio.sleep(0.001)


async def test_on_start_all_books_are_asked_for_page_by_page(hub: Hub, live: Connector) -> None:
    live.page = 2
    live.books = {t: book(t, 1, bids=((440_000, 10**6),)) for t in "ABCDE"}
    await live.start()
    await until(lambda: len(hub.board.books) == 5)
    await until(lambda: len(live.requests) == 4)
    assert live.requests == [[], {"after": "B"}, {"after": "D"}, {"after": "E"}]


async def test_changes_that_pass_while_the_books_are_asked_for_are_neither_lost_nor_doubled(
    hub: Hub, live: Connector
) -> None:
    async def meanwhile() -> None:
        live.publish(delta("A", 5, bids=((440_000, 5),)), delta("A", 6, bids=((430_000, 6),)))
        await turn()

    live.books["A"] = book("A", 5, bids=((440_000, 5), (420_000, 1)))
    live.before_answer = meanwhile
    await live.start()
    reader = join(hub, 1, "A")
    await until(lambda: "A" in hub.board.books and hub.board.unsynced() == [])
    assert hub.board.books["A"].bids == {440_000: 5, 430_000: 6, 420_000: 1}
    await turn()
    assert [m["kind"] for m in reader.read()] == ["snapshot"], "the changes are in it"


async def test_the_book_of_a_change_without_a_book_is_asked_for(hub: Hub, live: Connector) -> None:
    await live.start()
    await until(lambda: bool(live.requests))
    live.books["NEW"] = book("NEW", 9, bids=((440_000, 1),))
    live.publish(delta("NEW", 10, bids=((440_000, 2),)))
    await until(lambda: hub.board.unsynced() == [])
    assert live.requests[-1] == ["NEW"]
    assert hub.board.books["NEW"].bids == {440_000: 2}


async def test_after_an_outage_clients_hear_of_the_gap_first_and_get_their_books_anew(
    hub: Hub, live: Connector, broker: MemoryTransport
) -> None:
    live.books["A"] = book("A", 1, bids=((440_000, 10**6),))
    await live.start()
    await until(lambda: "A" in hub.board.books)
    named, everything, idle = join(hub, 1, "A"), join(hub, 2, "*"), join(hub, 3)
    for reader in (named, everything, idle):
        reader.read()
    broker.up = False
    live.books["A"] = book("A", 7, bids=((410_000, 10**6),))
    broker.up = True
    live.publish(trade("A", 1))
    await until(lambda: hub.board.unsynced() == [])
    await turn()
    for reader in (named, everything):
        reader.read()
        assert [m.get("state") or m["type"] for m in reader.messages[-6:]] == [
            "system", "gap", "syncing", "trade", "live", "orderbook"
        ]  # fmt: skip
        assert reader.messages[-5]["reason"] == "connection_lost"
        assert reader.messages[-4]["tickers"] == ["A"]
        assert reader.books == {"A": ({0.41: 1}, {})}
    assert [m["type"] for m in idle.read()] == ["system"]


async def test_an_answer_from_before_an_outage_is_void(hub: Hub, live: Connector, broker: MemoryTransport) -> None:
    live.books["A"] = book("A", 1, bids=((440_000, 1),))
    interruptions = 0

    async def interrupt() -> None:
        nonlocal interruptions
        interruptions += 1
        if interruptions == 1:
            broker.up = False
            broker.up = True
            live.books["A"] = book("A", 2, bids=((440_000, 2),))

    live.before_answer = interrupt
    await live.start()
    await until(lambda: "A" in hub.board.books and hub.board.unsynced() == [])
    assert hub.board.books["A"].bids == {440_000: 2}


async def test_the_first_connection_is_not_a_gap(hub: Hub, live: Connector) -> None:
    reader = join(hub, 1, "*")
    await live.start()
    await turn()
    assert reader.read() == []
    assert hub.connected


async def test_books_are_asked_for_again_until_somebody_answers(
    hub: Hub, live: Connector, broker: MemoryTransport
) -> None:
    failures = 0

    async def silent(_request: bytes) -> bytes:
        nonlocal failures
        failures += 1
        return encode(book("A", 1))[:-3]

    await broker.serve(f"ssmd.books.{FEED}", silent)
    await live.start()
    await until(lambda: failures >= 3)
    assert hub.board.books == {}
    live.books["A"] = book("A", 1)
    await broker.serve(f"ssmd.books.{FEED}", live.answer)
    await until(lambda: "A" in hub.board.books)


TICKERS = ("A", "B", "C")


class FanoutMachine(RuleBasedStateMachine):
    """Any order of subscribing, leaving, reading a little, batches and losses: numbers stay honest, books stay true."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.hub = Hub(FEED, monotonic=lambda: self.now, clock=lambda: T0)
        self.hub.on_state(True)
        self.readers: dict[int, tuple[Reader, Client]] = {}
        self.seq = 0
        self.model: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
        self.trades = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.check_at_rest()
            finally:
                self.loop.close()

    def batch(self, *events: Event) -> None:
        async def pass_on() -> None:
            self.hub.on_batch([packed(event) for event in events])
            await turn()

        self.loop.run_until_complete(pass_on())

    @rule(number=st.integers(1, 6), symbols=st.frozensets(st.sampled_from([*TICKERS, "*"])))
    def subscribe(self, number: int, symbols: frozenset[str]) -> None:
        if number not in self.readers:
            reader = Reader()
            client = seat(reader, self.hub.fanout, number, Bounds(bytes=3_000), high=3_000)
            self.readers[number] = reader, client
        reader, client = self.readers[number]
        before, after = client.subscription, Subscription().plus(symbols)
        seq = self.hub.fanout.move(client, after)
        self.hub.fanout.answer(client, b'{"type":"subscribed","seq":%d}' % seq)
        self.hub.fanout.owe(client, self.hub.new_books(before, after))

    @rule(number=st.integers(1, 6))
    def leave(self, number: int) -> None:
        if number in self.readers:
            self.hub.fanout.leave(self.readers.pop(number)[1])

    @rule(number=st.integers(1, 6), most=st.integers(0, 4_000))
    def read(self, number: int, most: int) -> None:
        if number in self.readers:
            self.readers[number][0].read(most)

    @rule(ticker=st.sampled_from(TICKERS), count=st.integers(1, 30))
    def trade(self, ticker: str, count: int) -> None:
        events = [trade(ticker, self.trades + n) for n in range(count)]
        self.trades += count
        self.batch(*events)

    @rule(ticker=st.sampled_from(TICKERS), levels=st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=20))
    def snapshot(self, ticker: str, levels: dict[int, int]) -> None:
        self.seq += 1
        bids = {price * 10_000: size * 10**6 for price, size in levels.items()}
        self.model[ticker] = bids, {}
        self.batch(book(ticker, self.seq, bids=tuple(bids.items())))

    @rule(
        ticker=st.sampled_from(TICKERS),
        changes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.booleans()), min_size=1, max_size=25),
    )
    def change(self, ticker: str, changes: list[tuple[int, int, bool]]) -> None:
        events = []
        for price, size, is_bid in changes:
            self.seq += 1
            level = ((price * 10_000, size * 10**6),)
            events.append(delta(ticker, self.seq, bids=level if is_bid else (), asks=() if is_bid else level))
            if ticker in self.model:
                side = self.model[ticker][0 if is_bid else 1]
                side[level[0][0]] = level[0][1]
                if not size:
                    del side[level[0][0]]
        self.batch(*events)
        if ticker not in self.model:
            assert ticker in self.hub.board.unsynced()

    @rule()
    def quote(self) -> None:
        self.batch(*(quote(ticker) for ticker in TICKERS))

    @rule()
    def outage(self) -> None:
        self.hub.on_state(False)
        self.hub.on_state(True)
        self.model.clear()

    @rule()
    def watch(self) -> None:
        self.now += 0.1
        self.hub.watch()

    @invariant()
    def buffers_are_bounded(self) -> None:
        for reader, client in getattr(self, "readers", {}).values():
            # One tick into an empty buffer, books up to half of it, and answers of this test.
            assert len(reader.socket.buffer) < client.bounds.bytes + 16_000

    def check_at_rest(self) -> None:
        """All readers read on: every number is accounted for, and every book that is known is theirs."""
        for _ in range(200):
            for reader, _client in self.readers.values():
                reader.read()
            self.hub.watch()
        for reader, client in self.readers.values():
            assert client.ready
            for ticker, (bids, asks) in self.model.items():
                wanted = bool(client.subscription.channels(ticker))
                if wanted:
                    seen = tuple(
                        {round(p * 10**6): s * 10**6 for p, s in side.items()} for side in reader.books[ticker]
                    )
                    assert seen == (bids, asks), ticker
        for ticker, (bids, asks) in self.model.items():
            assert (self.hub.board.books[ticker].bids, self.hub.board.books[ticker].asks) == (bids, asks)


TestFanoutMachine = FanoutMachine.TestCase
TestFanoutMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_book_frame_says_that_it_is_a_snapshot(hub: Hub) -> None:
    hub.board.take(book("A", 1))
    frame = hub.book_frame("A")
    assert frame is not None
    assert json.loads(frame[2:])["kind"] == Kind.SNAPSHOT.name.lower()
    assert hub.book_frame("B") is None
