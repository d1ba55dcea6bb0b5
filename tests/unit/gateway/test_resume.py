"""What is kept for clients that come back, to the number; and what leaves a conflated group."""

from collections.abc import Callable

import pytest

from ssmd.gateway.client import Client, text_frame
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.resume import IDLE_GROUPS, PIECE_OVERHEAD, TICK_OVERHEAD, Window, cut
from ssmd.gateway.subscription import Subscription
from ssmd.gateway.waiting import Tick
from tests.fakes.reader import Reader, cut_frames

A = Subscription().plus(["A"])


class Stage:
    """A fan-out that keeps what was sent, and a clock."""

    def __init__(self, seconds: float = 60.0, size: int = 100_000) -> None:
        self.now = 0.0
        self.timers: list[Callable[[], None]] = []
        self.window = Window(seconds, size)
        self.fanout = Fanout(
            lambda _piece: None, lambda: self.now, body=lambda piece: b'"type":"%s"}' % piece[0].encode(),
            window=self.window, later=lambda _seconds, call: self.timers.append(call),
        )  # fmt: skip

    def client(self, number: int, subscription: Subscription) -> tuple[Client, Reader]:
        reader = Reader()
        client = Client(number, reader.socket, reader.socket.kick)
        self.fanout.join(client)
        reader.seq = self.fanout.move(client, subscription)
        return client, reader

    def tick(self, messages: int = 1) -> None:
        for _ in range(messages):
            self.fanout.add(self.fanout.interested("trade", "A"), "trade", "A", b'"type":"trade"}')
        self.fanout.flush()


@pytest.mark.parametrize("length", [10, 125, 126, 65_535, 65_536])
def test_a_tick_is_cut_between_its_messages(length: int) -> None:
    bodies = [bytes([65 + n]) * length for n in range(4)]
    tick = Tick(b"".join(map(text_frame, bodies)), 7, 10, (), {}, 0.0)
    rest = cut(tick, 8)
    assert (rest.first, rest.last) == (9, 10)
    assert cut_frames(rest.blob) == (bodies[2:], b"")


def test_a_number_is_kept_from_the_message_before_the_first_that_is_kept() -> None:
    stage = Stage(size=3 * (TICK_OVERHEAD + 50))
    stage.client(1, A)
    for _ in range(10):
        stage.tick()
    kept = [seq for seq in range(12) if stage.fanout.resumable(A, seq)]
    assert kept[0] > 0
    assert kept == list(range(kept[0], 11)), "contiguous, up to the last one and not beyond"
    assert len(kept) - 1 == 3, "as many ticks as there is room for"


def test_what_is_kept_is_bounded_in_bytes_and_in_time() -> None:
    stage = Stage(seconds=5.0, size=20_000)
    stage.client(1, A)
    for _ in range(500):
        stage.tick(3)
        assert stage.window.bytes <= 20_000
    stage.now = 6.0
    stage.fanout.watch(lambda: b"{}")
    assert stage.window.bytes == 0
    assert not stage.fanout.resumable(A, 1_499)
    assert stage.fanout.resumable(A, 1_500), "nothing was missed"
    assert PIECE_OVERHEAD > 0


def test_a_group_lives_on_after_its_last_client_and_not_for_ever() -> None:
    stage = Stage(seconds=5.0)
    client, reader = stage.client(1, A)
    stage.fanout.leave(client)
    stage.tick(2)
    assert stage.fanout.resumable(A, reader.seq or 0)
    assert stage.fanout.groups == 0, "nobody is there"
    stage.now = 6.0
    stage.fanout.watch(lambda: b"{}")
    assert stage.fanout.interested("trade", "A") == ()


def test_groups_without_a_client_are_few() -> None:
    stage = Stage()
    for n in range(3 * IDLE_GROUPS):
        client, _ = stage.client(n, Subscription().plus([f"T{n}"]))
        stage.fanout.leave(client)
    stage.fanout.watch(lambda: b"{}")
    assert len(stage.window.idle) == IDLE_GROUPS


def test_changing_ones_mind_leaves_no_group_behind() -> None:
    stage = Stage()
    client, _ = stage.client(1, A)
    for n in range(50):
        stage.fanout.move(client, Subscription().plus([f"T{n}"]))
    assert len(stage.window.idle) == 0
    assert stage.fanout.groups == 1


def test_who_leaves_a_conflated_group_has_been_told_what_changed_before() -> None:
    stage = Stage()
    client, reader = stage.client(1, A.in_mode("conflated", 1_000))
    stage.fanout.conflation.note("trade", "A")
    assert reader.read() == []
    stage.fanout.move(client, A)
    assert [message["type"] for message in reader.read()] == ["trade"]


def test_an_interval_that_ended_early_begins_anew() -> None:
    stage = Stage()
    _, reader = stage.client(1, A.in_mode("conflated", 1_000))
    client, _ = stage.client(2, A.in_mode("conflated", 1_000))
    stage.fanout.conflation.note("trade", "A")
    stage.fanout.move(client, A)
    stage.fanout.conflation.note("ticker", "A")
    stage.timers.pop()()
    assert [message["type"] for message in reader.read()] == ["trade"], "the interval is not over yet"
    stage.now = 1.0
    stage.timers.pop()()
    assert [message["type"] for message in reader.read()] == ["ticker"]
    assert stage.timers == []


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_replay_whose_place_is_not_kept_any_more_is_a_hole_that_is_told(kept: int) -> None:
    stage = Stage()
    stage.client(1, A)
    for _ in range(5):
        stage.tick()
    reader = Reader()
    reader.seq = 2
    client = Client(2, reader.socket, reader.socket.kick)
    stage.fanout.join(client)
    client.pause()
    stage.fanout.resume(client, A, 2)
    replay = stage.fanout._replays[2]
    stage.window.size = 1 + kept * (TICK_OVERHEAD + 50)
    stage.tick()
    stage.fanout.add(stage.fanout.interested("trade", "A"), "trade", "A", b'"type":"trade"}')  # not flushed
    client.paused = False
    assert replay.go_on(client, lambda: [("orderbook", "A")], stage.now)
    assert [m["type"] for m in reader.read()] == ["gap", *["trade"] * kept]
    assert (reader.seq, reader.skipped) == (6, 4 - kept)
    assert client.due == {("orderbook", "A"): None}
    stage.fanout.replay(client)
    client.due.clear()
    client.settle()
    stage.fanout.flush()
    reader.read()
    assert reader.seq == 7, "what was not flushed comes once"
