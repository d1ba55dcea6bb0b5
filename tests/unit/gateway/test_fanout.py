"""The fan-out: shared numbers and frames, one write per tick, and what a slow reader is told."""

from collections.abc import Callable
from itertools import count

import pytest

from ssmd.gateway.client import Client, frame_header, text_frame
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.groups import Group
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.telemetry import METRICS
from tests.fakes.reader import Reader, cut_frames, seat


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

    def reader(self, *symbols: str) -> tuple[Reader, Client]:
        reader = Reader()
        client = seat(reader, self.fanout, next(self.numbers))
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


def reset(reader: Reader, error: Exception | None = None) -> None:
    """From now on writing raises, as it does on uvloop when the connection was reset; or something unforeseen."""
    reader.socket.closed = error is None
    reader.socket.error = error or RuntimeError("unable to perform operation on <TCPTransport closed=True>")


@pytest.mark.parametrize("error", [None, ValueError("a defect")], ids=["reset", "unforeseen"])
def test_a_connection_that_raises_when_written_to_ends_alone(stage: Stage, error: Exception | None) -> None:
    before, _ = stage.reader("*")
    broken, client = stage.reader("*")
    after, _ = stage.reader("*")
    named, _ = stage.reader("A")
    reset(broken, error)
    for _ in range(3):
        stage.send("A")
        stage.fanout.flush()
    assert [m["seq"] for m in before.read()] == [m["seq"] for m in after.read()] == [1, 2, 3]
    assert [m["seq"] for m in named.read()] == [1, 2, 3], "the groups that come after it are written to as well"
    assert client.leaving
    assert broken.socket.kicked is not None
    assert broken.socket.kicked[0] == (1006 if error is None else 1011)
    assert not any(group.frames for group in stage.fanout._groups.all()), "nothing is left behind"


@pytest.mark.parametrize("way", ["answer", "announce", "watch", "owe", "resumed"])
def test_whatever_is_written_to_a_lost_connection_ends_it_and_raises_nothing(stage: Stage, way: str) -> None:
    good, _ = stage.reader("*")
    broken, client = stage.reader("*")
    stage.books["A"] = text_frame(b'{"type":"answer"}')
    if way == "resumed":
        client.pause()
        stage.send("A")
        stage.fanout.flush()
    reset(broken)
    if way == "answer":
        stage.fanout.answer(client, b"{}")
    elif way == "announce":
        stage.fanout.announce(b'{"type":"system"}')
    elif way == "watch":
        stage.clock.now += 60
        stage.watch()
    elif way == "owe":
        stage.fanout.owe(client, [("orderbook", "A")])
    else:
        client.paused = False
        stage.fanout.resumed(client)
    assert client.leaving
    stage.fanout.leave(client)
    stage.send("A")
    stage.fanout.flush()
    assert good.read()[-1]["type"] == "trade"


def test_a_defect_in_one_group_does_not_silence_the_others_or_the_next_tick(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ended = stage.reader("A")
    good, _ = stage.reader("*")
    flush = stage.fanout._flush

    def fail(group: Group) -> None:
        flush(group)
        if not group.subscription.every:
            raise ValueError("a defect")

    monkeypatch.setattr(stage.fanout, "_flush", fail)
    for _ in range(2):
        stage.send("A")
        stage.fanout.flush()
    assert [m["seq"] for m in good.read()] == [1, 2]
    assert ended.leaving, "it may lack something: it must come back"
