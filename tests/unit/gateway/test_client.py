"""A slow client: what waits for it, what it misses under each policy, what it is told, and when it is sent away."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.gateway import client as clients
from ssmd.gateway.client import CONTROL_BYTES, DROPS_PER_EPISODE, Client, text_frame
from ssmd.gateway.connection import REASON_BYTES
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.standing import State
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.gateway.waiting import Bounds, DropPolicy, Tick
from ssmd.telemetry import FULLEST_CLIENTS, METRICS, ClientGauges, ClientReading
from tests.fakes.reader import Reader, seat

POLICIES: tuple[DropPolicy, ...] = get_args(DropPolicy)
HIGH = 2_000


class Stage:
    """A fan-out over books with one level, whose size is the number of the last change; each tick is one second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.books: dict[str, int] = {}
        self.fanout = Fanout(self.piece, lambda: self.now)
        self.count = 0

    def reader(self, *symbols: str, high: int = HIGH, **bounds: Any) -> tuple[Reader, Client]:
        reader = Reader()
        client = seat(reader, self.fanout, len(self.fanout.clients) + 1, Bounds(**bounds), high=high)
        self.subscribe(client, Subscription().plus(symbols))
        return reader, client

    def subscribe(self, client: Client, after: Subscription) -> None:
        seq = self.fanout.move(client, after)
        self.fanout.answer(client, b'{"type":"subscribed","seq":%d}' % seq)
        self.fanout.owe(client, [("orderbook", t) for t in self.books if "orderbook" in after.channels(t)])

    def piece(self, piece: Piece) -> bytes | None:
        size = self.books.get(piece[1])
        fields = {"type": "orderbook", "ticker": piece[1], "kind": "snapshot", "bids": [[0.5, size]], "asks": []}
        return text_frame(json.dumps(fields).encode()) if size else None

    def tick(self, *tickers: str, padding: int = 400) -> None:
        """One tick with a book change of each ticker."""
        for ticker in tickers:
            self.count += 1
            kind = "delta" if ticker in self.books else "snapshot"
            self.books[ticker] = self.count
            fields = {
                "type": "orderbook", "ticker": ticker, "kind": kind, "bids": [[0.5, self.count]], "asks": [],
                "x": "x" * padding,
            }  # fmt: skip
            groups = self.fanout.interested("orderbook", ticker)
            self.fanout.add(groups, "orderbook", ticker, json.dumps(fields).encode()[1:])
        self.fanout.flush()
        self.now += 1.0

    def fill(self, client: Client, *tickers: str) -> None:
        """Ticks until the connection takes no more."""
        while not client.paused:
            self.tick(*(tickers or ("A",)))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def metric(name: str, **labels: str) -> float:
    return METRICS.get_sample_value(name, labels) or 0.0


def read_all(reader: Reader) -> list[dict[str, Any]]:
    """Everything that comes while the reader reads on."""
    seen = reader.read()
    while fresh := reader.read():
        seen += fresh
    return seen


def kicked(reader: Reader) -> tuple[int, str]:
    """Close code and reason of a client that was sent away."""
    assert reader.socket.kicked is not None
    return reader.socket.kicked


def gist(messages: list[dict[str, Any]]) -> list[object]:
    """Numbers as they are, notices as (from, to), books as their ticker, answers as their type."""
    return [
        m["seq"] if "bids" in m and "seq" in m
        else (m["from"], m["to"]) if m.get("code") == "SKIPPED"
        else m.get("ticker", m["type"])
        for m in messages
    ]  # fmt: skip


def test_ticks_wait_in_order_while_the_connection_takes_none(stage: Stage) -> None:
    reader, client = stage.reader("A")
    stage.fill(client)
    written = stage.count
    stage.tick("A", "A")
    stage.tick("A")
    assert (client.ready, client.state) == (False, State.HEALTHY)
    assert client.stats(stage.now, 0).messages_waiting == 3
    assert client.lag_s(stage.now) == 2.0, "age of the older tick that waits"
    seen = read_all(reader)
    assert [m["seq"] for m in seen[1:]] == list(range(1, written + 4))
    assert client.ready
    assert client.lag_s(stage.now) == 0.0
    stage.tick("A")
    assert [m["seq"] for m in reader.read()] == [stage.count]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("drop_oldest", [(6, 12), 13, 14, 15, "A", "B"]),
        ("drop_newest", [6, 7, 8, (9, 15), "B", "A"]),
    ],
)
def test_the_notice_stands_where_the_hole_is_and_the_books_come_last(
    stage: Stage, policy: DropPolicy, expected: list[object]
) -> None:
    reader, client = stage.reader("A", "B", messages=3, policy=policy)
    stage.tick(*"ABABA", padding=HIGH)
    assert client.paused
    for _ in range(5):
        stage.tick("A")
        stage.tick("B")
    assert gist(read_all(reader)) == ["subscribed", 1, 2, 3, 4, 5, *expected]
    assert reader.books == {"A": ({0.5: stage.books["A"]}, {}), "B": ({0.5: stage.books["B"]}, {})}
    assert client.dropped == 7


def test_the_notice_names_the_books_that_missed_changes_and_no_others(stage: Stage) -> None:
    reader, client = stage.reader("*", messages=2)
    stage.fill(client, "A")
    for ticker in "BCDE":
        stage.tick(ticker)
    (notice,) = [m for m in read_all(reader) if m.get("code") == "SKIPPED"]
    assert notice["books"] == ["B", "C"]
    stage.tick("F")
    assert gist(reader.read()) == [stage.count]


def test_the_policy_disconnect_sends_a_client_away_when_its_buffer_is_full(stage: Stage) -> None:
    reader, client = stage.reader("A", messages=3, policy="disconnect")
    stage.fill(client)
    for _ in range(3):
        stage.tick("A")
    assert reader.socket.kicked is None
    stage.tick("A")
    code, reason = kicked(reader)
    assert (code, client.state) == (1008, State.DISCONNECTING)
    assert "conflated" in reason
    assert not client.ready


def test_bytes_bound_the_buffer_too(stage: Stage) -> None:
    reader, client = stage.reader("A", bytes=5_000)
    stage.fill(client)
    for _ in range(100):
        stage.tick("A")
        assert client.stats(stage.now, 0).bytes_waiting <= 5_000
        assert client.utilization <= 1.0
    read_all(reader)
    assert reader.skipped == client.dropped > 80


def test_one_tick_larger_than_the_buffer_still_reaches_a_client_that_reads(stage: Stage) -> None:
    reader, client = stage.reader("A", messages=2, bytes=1_000)
    stage.fill(client)
    stage.tick(*"A" * 20)
    assert client.utilization > 1.0
    read_all(reader)
    assert (reader.skipped, client.dropped) == (0, 0)


def test_states_follow_the_fill_of_the_buffer_up_and_down(stage: Stage) -> None:
    reader, client = stage.reader("A", messages=10, high=1_200)
    stage.fill(client)
    states = []
    for _ in range(12):
        stage.tick("A")
        states.append(client.state.value)
    assert states == ["healthy"] * 7 + ["lagging"] * 3 + ["dropping"] * 2
    while len(reader.socket.buffer) > 300:
        reader.read(200)
        if client.utilization >= 0.5:
            assert client.state is State.DROPPING, "not healthy before it is half empty"
    read_all(reader)
    assert client.state is State.HEALTHY


def test_a_new_episode_counts_its_drops_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "DROPS_PER_EPISODE", 5)
    reader, client = stage.reader("A", messages=2)
    for _ in range(3):
        stage.fill(client)
        for _ in range(7):
            stage.tick("A")
        assert client.state.value == "dropping"
        read_all(reader)
        assert client.state.value == "healthy"
    assert (client.dropped, reader.socket.kicked) == (15, None)
    stage.fill(client)
    for _ in range(8):
        stage.tick("A")
    assert reader.socket.kicked is not None


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_who_drops_more_than_a_thousand_in_one_episode_is_sent_away(stage: Stage, policy: DropPolicy) -> None:
    before = metric("ssmd_gateway_messages_dropped_total", reason="buffer_full")
    reader, client = stage.reader("A", messages=10, policy=policy)
    stage.fill(client)
    for _ in range(DROPS_PER_EPISODE + 10):
        stage.tick("A")
    assert (reader.socket.kicked, client.dropped) == (None, DROPS_PER_EPISODE)
    stage.tick("A")
    assert reader.socket.kicked is not None
    code, reason = reader.socket.kicked
    assert code == 1008
    assert "1,001 messages dropped; read faster" in reason
    assert len(reason.encode()) <= REASON_BYTES
    assert metric("ssmd_gateway_messages_dropped_total", reason="buffer_full") - before == DROPS_PER_EPISODE + 1
    assert client.stats(stage.now, 0).messages_waiting == 0, "what waited is given up"
    assert client.dropped == DROPS_PER_EPISODE + 11, "with what waited"


def test_what_was_missed_of_the_old_subscription_is_told_before_the_new_one(stage: Stage) -> None:
    reader, client = stage.reader("A", messages=2)
    stage.fill(client)
    first = stage.count
    for _ in range(4):
        stage.tick("A")
    stage.subscribe(client, Subscription().plus(["A", "B"]))
    for _ in range(4):
        stage.tick("B")
    seen = gist(read_all(reader))
    n = first + 4  # the new subscription counts on from here
    assert seen[first + 1 :] == [(first + 1, n), "subscribed", (n + 1, n + 2), n + 3, n + 4, "A", "B"]


def test_answers_keep_their_place_and_are_not_dropped(stage: Stage) -> None:
    reader, client = stage.reader("A", messages=1)
    stage.fill(client)
    n = stage.count
    stage.fanout.answer(client, b'{"type":"pong"}')
    stage.tick("A")
    stage.fanout.answer(client, b'{"type":"error"}')
    stage.tick("A")
    assert gist(read_all(reader))[n + 1 :] == ["pong", (n + 1, n + 1), "error", n + 2, "A"]


def test_a_client_that_asks_without_reading_is_sent_away(stage: Stage) -> None:
    reader, client = stage.reader("A")
    for _ in range(10_000):
        stage.fanout.answer(client, b'{"type":"pong"}' + b" " * 1_000)
        if reader.socket.kicked:
            break
    assert reader.socket.kicked is not None
    assert reader.socket.kicked[0] == 1008
    assert reader.socket.peak < HIGH + CONTROL_BYTES + 2_000
    reader.read()
    stage.books["A"] = 1
    stage.fanout.answer(client, b"{}")
    stage.fanout.owe(client, [("orderbook", "A")])
    stage.tick("A")
    assert stage.fanout.move(client, Subscription().plus(["*"])) == 0
    assert reader.read() == [], "nothing follows the close frame"


def test_many_books_are_sent_as_the_client_reads(stage: Stage) -> None:
    stage.tick(*(f"T{n}" for n in range(100)))
    reader, client = stage.reader("*")
    assert 0 < len(client.due) < 100
    assert len(reader.socket.buffer) <= HIGH + 200
    stage.tick("NEW")
    read_all(reader)
    assert sorted(reader.books) == sorted(stage.books)
    assert reader.socket.peak <= HIGH + 1_000


def test_announcements_and_heartbeats_go_to_those_who_keep_up(stage: Stage) -> None:
    quick, _ = stage.reader("A", high=1 << 20)
    slow, client = stage.reader("A")
    stage.fill(client)
    quick.read()
    stage.now += 60.0
    stage.fanout.announce(b'{"type":"system"}')
    stage.fanout.watch(lambda: b'{"type":"heartbeat"}')
    assert [m["type"] for m in quick.read()] == ["system", "heartbeat"]
    assert {m["type"] for m in read_all(slow)} == {"subscribed", "orderbook"}


def test_figures_of_a_client_count_what_it_was_really_sent(stage: Stage) -> None:
    other, _ = stage.reader("A", high=1 << 20)
    stage.tick("A")
    reader, client = stage.reader("A", messages=2)
    joined = stage.count
    stage.fill(client)
    for _ in range(5):
        stage.tick("A")
    assert client.stats(stage.now, 0).messages_sent == 2 + stage.count - joined - 5  # the answer and the book
    seen = read_all(reader)
    stage.tick("A")
    seen += reader.read()
    stage.now += 3.0
    figures = client.stats(stage.now, 1_000_000_000_000)
    assert figures.messages_sent == len(seen)
    assert figures.bytes_sent == sum(len(text_frame(raw)) for raw in reader.raw)
    assert (figures.messages_dropped, figures.messages_waiting, figures.bytes_waiting) == (3, 0, 0)
    assert figures.last_message_at == 1_000_000_000_000 - 4_000_000_000, "one tick and three seconds ago"
    assert read_all(other)


def test_clients_have_short_names_that_differ(stage: Stage) -> None:
    names = {stage.reader()[1].id for _ in range(1_000)}
    assert len(names) == 1_000
    assert all(len(name) == 6 and int(name, 16) >= 0 for name in names)


def test_gauges_name_the_fifty_fullest_clients_and_keep_the_worst_of_the_others(stage: Stage) -> None:
    gauges = ClientGauges()
    readings = [ClientReading(f"{n:06x}", n / 100, 10.0 * n, n > 70) for n in range(100)]
    gauges.follow(lambda: readings)
    utilization, lag, slow = gauges.collect()
    values = {sample.labels["client_id"]: sample.value for sample in utilization.samples}
    assert len(values) == FULLEST_CLIENTS + 1
    assert (values["000063"], values["other"], "000000" in values) == (0.99, 0.49, False)
    assert {s.labels["client_id"]: s.value for s in lag.samples}["other"] == 490.0
    assert [sample.value for sample in slow.samples] == [29]


def test_the_gauges_of_a_client_follow_its_buffer(stage: Stage) -> None:
    _, client = stage.reader("A", messages=10)
    stage.fill(client)
    for _ in range(8):
        stage.tick("A")
    (reading,) = stage.fanout.readings()
    assert reading == ClientReading(client.id, 0.8, 8_000.0, True)


STEPS = st.one_of(
    st.tuples(st.just("tick"), st.lists(st.sampled_from("ABC"), min_size=1, max_size=6), st.integers(0, 900)),
    st.tuples(st.just("read"), st.integers(1, 5_000)),
    st.tuples(st.just("ask")),
    st.tuples(st.just("subscribe"), st.lists(st.sampled_from(["A", "B", "C", "*"]), unique=True)),
    st.tuples(st.just("snapshot"), st.sampled_from("ABC")),
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=60), messages=st.integers(1, 12), size=st.integers(200, 6_000),
    high=st.integers(100, 3_000),
)  # fmt: skip
def test_numbers_and_notices_leave_no_hole_whatever_a_client_does(
    policy: DropPolicy, steps: list[Any], messages: int, size: int, high: int
) -> None:
    stage = Stage()
    # The reader itself checks each number and notice against the one before.
    reader, client = stage.reader("*", high=high, messages=messages, bytes=size, policy=policy)
    other, _ = stage.reader("*", high=1 << 30)
    for what, *arguments in steps:
        if what == "tick":
            stage.tick(*arguments[0], padding=arguments[1])
        elif what == "read":
            reader.read(arguments[0])
        elif what == "ask":
            stage.fanout.answer(client, b'{"type":"pong"}')
        elif what == "snapshot":
            stage.fanout.owe(client, [("orderbook", arguments[0])])
        elif not client.leaving:
            stage.subscribe(client, Subscription().plus(arguments[0]))
        assert client._bytes == sum(len(item.blob) for item in client._queue if isinstance(item, Tick))
    read_all(reader)
    read_all(other)
    assert other.seq == stage.count
    assert reader.socket.kicked is None or policy == "disconnect"
    if reader.socket.kicked is None:
        assert client.ready
        assert reader.seq == stage.fanout.move(client, client.subscription)
        for ticker, size_now in stage.books.items():
            if client.subscription.channels(ticker):
                assert reader.books[ticker] == ({0.5: size_now}, {})
    else:
        assert reader.skipped == 0
