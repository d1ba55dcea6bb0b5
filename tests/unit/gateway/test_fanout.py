"""The fan-out: shared numbers and frames, one write per tick, and what a slow reader is told."""

from collections.abc import Callable
from itertools import count

import pytest

from ssmd.gateway import fanout as fanouts
from ssmd.gateway.client import BUFFER_BYTES, CONTROL_BYTES, Client, frame_header, text_frame
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.telemetry import METRICS
from tests.fakes.reader import Reader, cut_frames


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A fan-out, its clock, and books that say how often they were asked for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.books: dict[str, bytes] = {}
        self.fanout = Fanout(self.piece, self.clock)
        self.numbers = count(1)

    def reader(self, *symbols: str, limit: int = BUFFER_BYTES) -> tuple[Reader, Client]:
        reader = Reader()
        client = Client(next(self.numbers), reader.socket, reader.socket.kick, limit)
        self.fanout.join(client)
        if symbols:
            reader.seq = self.fanout.move(client, Subscription().plus(symbols))
        return reader, client

    def send(self, ticker: str, kind: str = "trade", padding: int = 0, extra: bytes = b"") -> None:
        body = b'"type":"%s","ticker":"%s","x":"%s"%s}' % (kind.encode(), ticker.encode(), b"x" * padding, extra)
        self.fanout.add(self.fanout.interested(kind, ticker), kind, ticker, body)

    def piece(self, piece: Piece) -> bytes | None:
        return self.books.get(piece[1])

    def watch(self) -> None:
        self.fanout.watch(lambda: b'{"type":"heartbeat"}')


@pytest.fixture
def stage() -> Stage:
    return Stage()


def metric(name: str, **labels: str) -> float:
    return METRICS.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_frames_of_every_length_class_are_read_back(length: int) -> None:
    body = b"x" * length
    assert cut_frames(text_frame(body) + text_frame(b"{}")) == ([body, b"{}"], b"")
    assert len(frame_header(length)) == (2 if length < 126 else 4 if length < 65_536 else 10)


def test_each_group_numbers_its_own_messages(stage: Stage) -> None:
    a, _ = stage.reader("A")
    both, _ = stage.reader("A", "B")
    everything, _ = stage.reader("*")
    for ticker in ("A", "B", "C", "A"):
        stage.send(ticker)
    stage.fanout.flush()
    assert [(m["seq"], m["ticker"]) for m in a.read()] == [(1, "A"), (2, "A")]
    assert [(m["seq"], m["ticker"]) for m in both.read()] == [(1, "A"), (2, "B"), (3, "A")]
    assert [m["ticker"] for m in everything.read()] == ["A", "B", "C", "A"]


def test_one_tick_is_one_write_per_client(stage: Stage) -> None:
    readers = [stage.reader("*")[0] for _ in range(5)]
    for n in range(100):
        stage.send(f"T{n}")
    assert [reader.socket.writes for reader in readers] == [0] * 5, "nothing leaves before the end of the tick"
    stage.fanout.flush()
    assert [reader.socket.writes for reader in readers] == [1] * 5


def test_a_client_that_joins_goes_on_from_the_number_it_was_told(stage: Stage) -> None:
    first, _ = stage.reader("A")
    stage.send("A")
    stage.send("A")
    late, client = stage.reader()
    stage.send("A")
    assert stage.fanout.move(client, Subscription().plus(["A"])) == 3
    late.seq = 3
    stage.send("A")
    stage.fanout.flush()
    assert [m["seq"] for m in late.read()] == [4]
    assert [m["seq"] for m in first.read()] == [1, 2, 3, 4]


def test_clients_without_a_subscription_and_those_who_left_get_nothing(stage: Stage) -> None:
    idle, _ = stage.reader()
    gone, client = stage.reader("*")
    stage.fanout.leave(client)
    stage.fanout.leave(client)
    stage.send("A")
    stage.fanout.flush()
    assert idle.read() == gone.read() == []
    assert stage.fanout.groups == 1, "the group of the one that left is gone"


def test_a_slow_reader_is_told_what_it_missed_before_the_next_data_message(stage: Stage) -> None:
    slow, _ = stage.reader("A", limit=4_000)
    quick, _ = stage.reader("A")
    for _ in range(20):
        stage.send("A", padding=900)
        stage.fanout.flush()
        quick.read()
    assert len(slow.socket.buffer) <= 4_000
    seen = [m["seq"] for m in slow.read()]
    stage.send("A")
    stage.fanout.flush()
    notice, data = slow.read()
    assert notice["type"] == "gap"
    assert notice["code"] == "SKIPPED"
    assert (notice["from"], notice["to"]) == (seen[-1] + 1, 20)
    assert data["seq"] == 21
    assert slow.skipped + len(seen) == 20
    assert quick.skipped == 0


def test_a_slow_reader_is_told_what_it_missed_even_when_the_market_is_quiet(stage: Stage) -> None:
    slow, _ = stage.reader("A", limit=2_000)
    for _ in range(5):
        stage.send("A", padding=900)
        stage.fanout.flush()
    slow.read()
    stage.watch()
    assert [m["code"] for m in slow.read()] == ["SKIPPED"]
    stage.watch()
    assert slow.read() == [], "told once"


def test_books_that_a_slow_reader_missed_are_sent_anew(stage: Stage) -> None:
    slow, _ = stage.reader("A", "B", "C", limit=2_000)
    snapshot = ',"kind":"snapshot","bids":[[1,1]],"asks":[]}'
    for ticker in ("A", "B", "C"):
        stage.books[ticker] = text_frame(b'{"type":"orderbook","ticker":"%s"' % ticker.encode() + snapshot.encode())
    for ticker in ("C", "A", "B", "A", "B"):
        stage.send(ticker, "orderbook", padding=900, extra=b',"kind":"delta","bids":[],"asks":[]')
        stage.fanout.flush()
    slow.read()
    stage.send("C")
    stage.fanout.flush()
    assert [m.get("code") or m["ticker"] for m in slow.read()] == ["SKIPPED", "C", "B", "A"]


def test_one_tick_larger_than_the_buffer_still_reaches_a_client_that_reads(stage: Stage) -> None:
    reader, _ = stage.reader("A", limit=1_000)
    for _ in range(10):
        stage.send("A", padding=500)
    stage.fanout.flush()
    assert len(reader.read()) == 10


def test_a_client_that_never_reads_costs_bounded_memory_and_is_sent_away(stage: Stage) -> None:
    dropped = metric("ssmd_gateway_messages_dropped_total", reason="slow_reader")
    never, _ = stage.reader("*", limit=10_000)
    other, _ = stage.reader("*", limit=10_000)
    for n in range(200):
        stage.send(f"T{n}", "orderbook", padding=500, extra=b',"kind":"delta","bids":[],"asks":[]')
        stage.fanout.flush()
        other.read()
        stage.clock.now += 0.04
        stage.watch()
    assert never.socket.peak <= 10_000
    assert other.seq == 200
    stage.clock.now += fanouts.STALL_S
    stage.watch()
    assert never.socket.kicked is not None
    code, reason = never.socket.kicked
    assert code == 1008
    assert "slow reader" in reason
    lost = metric("ssmd_gateway_messages_dropped_total", reason="slow_reader") - dropped
    assert lost == 200 - len(never.read())


def test_a_client_that_asks_without_reading_is_sent_away(stage: Stage) -> None:
    reader, client = stage.reader(limit=1_000)
    for _ in range(1_000_000):
        stage.fanout.answer(client, b'{"type":"pong"}' + b" " * 1_000)
        if reader.socket.kicked:
            break
    assert reader.socket.kicked is not None
    assert reader.socket.peak < 1_000 + CONTROL_BYTES + 2_000
    reader.read()
    stage.books["A"] = text_frame(b'{"type":"orderbook"}')
    stage.fanout.answer(client, b"{}")
    stage.fanout.owe(client, [("orderbook", "A")])
    assert stage.fanout.move(client, Subscription().plus(["*"])) == 0
    assert reader.read() == [], "nothing follows the close frame"


def test_what_was_missed_of_the_old_subscription_is_told_before_the_new_one(stage: Stage) -> None:
    slow, client = stage.reader("A", limit=2_000)
    for _ in range(6):
        stage.send("A", padding=900)
        stage.fanout.flush()
    seq = stage.fanout.move(client, Subscription().plus(["A", "B"]))
    stage.fanout.answer(client, b'{"type":"subscribed","seq":%d}' % seq)
    stage.send("B")
    stage.fanout.flush()
    slow.read()
    stage.watch()
    slow.read()
    assert slow.seq == seq + 1, "every number of both subscriptions was seen or named in a notice"


def test_many_books_are_sent_as_the_client_reads(stage: Stage) -> None:
    for n in range(50):
        body = b'{"type":"orderbook","kind":"snapshot","ticker":"T%d","bids":[],"asks":[],"x":"%s"}' % (n, b"x" * 500)
        stage.books[f"T{n}"] = text_frame(body)
    reader, client = stage.reader("*", limit=4_000)
    stage.fanout.owe(client, [("orderbook", ticker) for ticker in stage.books])
    assert len(reader.socket.buffer) < 4_000
    while client.due:
        reader.read()
        stage.watch()
        assert reader.socket.peak < 4_000
    reader.read()
    assert sorted(reader.books) == sorted(stage.books)


def test_quiet_clients_hear_a_heartbeat_every_ten_seconds(stage: Stage) -> None:
    reader, _ = stage.reader("A")
    idle, _ = stage.reader()
    for _ in range(65):
        stage.clock.now += 0.5
        stage.watch()
    beats: Callable[[Reader], int] = lambda r: sum(m["type"] == "heartbeat" for m in r.read())  # noqa: E731
    assert (beats(reader), beats(idle)) == (3, 3)
    stage.send("A")
    stage.fanout.flush()
    stage.clock.now += 9.0
    stage.watch()
    assert beats(reader) == 0


def test_announcements_reach_all_who_keep_up(stage: Stage) -> None:
    reader, _ = stage.reader("A")
    slow, _ = stage.reader("A", limit=1_500)
    for _ in range(4):
        stage.send("A", padding=900)
        stage.fanout.flush()
    reader.read()
    stage.fanout.announce(b'{"type":"system","code":"X"}')
    assert [m["type"] for m in reader.read()] == ["system"]
    assert [m["type"] for m in slow.read()] == ["trade"]


def test_messages_sent_are_counted_by_type_and_subscriptions_by_kind(stage: Stage) -> None:
    sent = metric("ssmd_gateway_messages_sent_total", type="trade")
    named, everything = (metric("ssmd_gateway_subscriptions_active", kind=kind) for kind in ("named", "all"))
    clients = [stage.reader("A")[1] for _ in range(3)] + [stage.reader("*")[1]]
    stage.send("A")
    stage.send("B")
    stage.fanout.flush()
    assert metric("ssmd_gateway_messages_sent_total", type="trade") - sent == 3 + 2
    assert metric("ssmd_gateway_subscriptions_active", kind="named") - named == 3
    assert metric("ssmd_gateway_subscriptions_active", kind="all") - everything == 1
    for client in clients:
        stage.fanout.leave(client)
    assert metric("ssmd_gateway_subscriptions_active", kind="named") == named
