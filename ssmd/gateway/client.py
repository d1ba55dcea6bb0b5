"""One WebSocket reader: what waits for it while it does not read, what it missed, and how it is doing.

While its connection takes bytes (`ready`), ticks are written at once. Otherwise they wait here, as references to bytes
that all clients share, bounded by count and by size; what does not fit is a hole, and the numbers of the hole are told
exactly where it is.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from ssmd.clock import NS_PER_S
from ssmd.gateway.standing import ClientStats, State
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.gateway.waiting import Bounds, Hole, Meter, Tick
from ssmd.telemetry import GATEWAY_DROPPED, GATEWAY_SENT, ClientReading
from ssmd.wire import client as wire

SYMBOLS_PER_CLIENT = 4_096
CONTROL_BYTES = 1 << 18  # answers that may wait for a reader before it is sent away

LAGGING_ABOVE = 0.7
HEALTHY_BELOW = 0.5
DROPS_PER_EPISODE = 1_000
STALL_S = 10.0
LOG_EVERY_S = 10.0

HEADER_LIMIT = 65_536

LOST = 1006
"""The code of a connection that is gone (RFC 6455 §7.4.1): never sent."""
INTERNAL_ERROR = 1011

ADVICE = "read faster, subscribe to fewer symbols or use mode conflated"
"""What a close reason tells a slow client to do; a reason has at most 123 bytes."""


log = structlog.get_logger()
_dropped = GATEWAY_DROPPED.labels("buffer_full")
_forgotten = GATEWAY_DROPPED.labels("disconnected")


def frame_header(length: int) -> bytes:
    """The header of an unmasked, final text frame with `length` bytes of payload (RFC 6455 §5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < HEADER_LIMIT:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def text_frame(body: bytes) -> bytes:
    """A whole text frame."""
    return frame_header(len(body)) + body


class Outlet(Protocol):
    """The part of `asyncio.Transport` that a client writes to."""

    def write(self, data: bytes, /) -> None:
        """Send now or buffer; never waits."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        ...

    def is_closing(self) -> bool:
        """Is it closed, or about to be? Then `write` may raise."""
        ...


class Client:
    """A connected reader.

    `ready`: its connection takes bytes and nothing waits: whoever has a tick for it calls `write`, else `push`.
    `write` raises what the connection raises (uvloop's do when they were reset): then call `fail`.
    `due` holds the pieces of the board that it has to be sent whole, oldest first, when nothing else waits.
    """

    __slots__ = (
        "_answers", "_bytes", "_described", "_episode", "_kick", "_messages", "_meter", "_meter_began", "_own",
        "_passed", "_queue", "_ticks", "_written_at", "address", "bounds", "connected_ns", "dropped", "due", "id",
        "key_name", "leaving", "number", "outlet", "paused", "ready", "replaying", "state", "subscription", "write",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        outlet: Outlet,
        kick: Callable[[int, str], None],
        bounds: Bounds = Bounds(),  # noqa: B008  # frozen
        *,
        address: str = "",
        key_name: str = "",
        connected_ns: int = 0,
    ) -> None:
        self.number = number
        self.id = f"{number * 0x9E3779 & 0xFFFFFF:06x}"  # odd factor: no two of 16 million are equal
        self.outlet = outlet
        self.write = outlet.write
        self.bounds = bounds
        self.address = address
        self.key_name = key_name
        self.connected_ns = connected_ns
        self.subscription = Subscription()
        self.due: dict[Piece, None] = {}
        self.state = State.HEALTHY
        self.dropped = 0
        self.ready = True
        self.paused = False  # its connection takes no more bytes for now
        self.leaving = False
        self.replaying = False  # it came back and is sent what it missed before anything new
        self._kick = kick
        # What waits, in order: `_passed` (answers and holes that stood before dropped ticks), then `_queue`.
        self._passed: deque[Hole | bytes] = deque()
        self._queue: deque[Tick | Hole | bytes] = deque()
        self._ticks = 0
        self._messages = 0
        self._bytes = 0
        self._answers = 0  # bytes
        self._episode = 0  # messages dropped since it was healthy
        self._described: dict[str, float] = {}  # when a change of state was logged
        self._meter = Meter(0.0)
        self._meter_began = (0, 0)
        self._own = [0, 0]  # messages and bytes beside the meter's
        self._written_at = 0.0

    @property
    def waits(self) -> bool:
        """Does anything wait to be written before the pieces that are due?"""
        return bool(self._queue or self._passed)

    @property
    def utilization(self) -> float:
        """How full the buffer is, 0..1, by count or by size, whichever is fuller; a single huge tick may exceed 1."""
        return max(self._messages / self.bounds.messages, self._bytes / self.bounds.bytes)

    def lag_s(self, now: float) -> float:
        """Age of the oldest tick that waits; `now` is monotonic."""
        for item in self._queue:
            if type(item) is Tick:
                return max(0.0, now - item.made)
        return 0.0

    def pause(self) -> None:
        """The connection takes no more bytes: from now on ticks wait."""
        self.paused = True
        if self.ready:
            self.ready = False
            self._written_at = self._last_at()

    def push(self, tick: Tick) -> None:
        """A tick for a client that is not `ready`: it waits, or the policy says who goes."""
        count, size = tick.last - tick.first + 1, len(tick.blob)
        self._count(-count, -size)  # the meter counts it as sent
        # One tick always fits into an empty queue: a client that is only briefly away must not lose a burst.
        if self._ticks and not self._fits(count, size):
            if self.bounds.policy == "disconnect":
                self._drop(count, tick.made)
                self.kick(1008, f"slow reader: its buffer is full; {ADVICE}")
                return
            if self.bounds.policy == "drop_newest":
                self.skip(tick.first, tick.last, tick.pieces)
                self._drop(count, tick.made)
                return
            while self._ticks and not self._fits(count, size):
                self._drop_oldest(tick.made)
            if self.leaving:
                self._forget(count)
                return
        self._queue.append(tick)
        self._ticks += 1
        self._messages += count
        self._bytes += size
        if self.state is State.HEALTHY and self.utilization > LAGGING_ABOVE:
            self.state = State.LAGGING
            self._describe("client lagging", tick.made)

    def skip(self, first: int, last: int, pieces: Iterable[Piece]) -> None:
        """Note behind all that waits that `first`..`last` will not come; `pieces` are sent whole at the end."""
        before = self._queue or self._passed
        tail = before[-1] if before else None
        if type(tail) is not Hole or tail.last + 1 != first:
            tail = Hole(first, last)
            self._queue.append(tail)
        self._widen(tail, last, pieces)

    def conflate(self, tick: Tick) -> None:
        """A tick of the latest of something, for a client that is not `ready`: it is sent something later instead."""
        self._count(tick.first - tick.last - 1, -len(tick.blob))  # the meter counts it as sent
        self.skip(tick.first, tick.last, tick.pieces)

    def miss(self, first: int, last: int, pieces: Iterable[Piece], now: float) -> None:
        """Tell, in its turn, that `first`..`last` will not come; `pieces` are sent whole at the end."""
        self.ready = False
        self.skip(first, last, pieces)
        self.drain(now)

    def write_again(self, tick: Tick, now: float) -> None:
        """Write a tick that it missed while it was away."""
        for kind, count in tick.kinds.items():
            GATEWAY_SENT.labels(kind).inc(count)
        self._count(tick.last - tick.first + 1, len(tick.blob))
        self._written_at = now
        self._put(tick.blob)

    def send(self, frame: bytes) -> None:
        """Send an unnumbered frame in its turn; who asks on and on without reading the answers is sent away."""
        if self.ready:
            self._count(1, len(frame))
            self._put(frame)
            return
        if self.leaving:
            return
        self._queue.append(frame)
        self._answers += len(frame)
        if self._answers > CONTROL_BYTES:
            self.kick(1008, "asks for more but does not read the answers; read them, or ask less often")

    def owe(self, pieces: Iterable[Piece]) -> None:
        """It has to be sent these pieces whole, when nothing else waits."""
        self.due.update(dict.fromkeys(pieces))
        self.settle()

    def write_whole(self, frame: bytes) -> None:
        """Write a piece that was due."""
        self._count(1, len(frame))
        self._put(frame)

    def drain(self, now: float) -> None:
        """The connection takes bytes again: write what waits until it does not. `settle` follows."""
        for items in (self._passed, self._queue):
            while items and not self.paused:
                self._write_waiting(items.popleft())
                self._written_at = now
        if self.state is not State.HEALTHY and not self.leaving and self.utilization < HEALTHY_BELOW:
            self._describe("client recovered", now)
            self.state = State.HEALTHY
            self._episode = 0

    def settle(self) -> bool:
        """Is everything written? Then ticks go straight to the connection again."""
        self.ready = not (self.paused or self.leaving or self.replaying or self._queue or self._passed or self.due)
        return self.ready

    def kick(self, code: int, reason: str) -> None:
        """End the connection with a WebSocket close code; once. What waits is forgotten."""
        if self.leaving:
            return
        self.leaving = True
        self.ready = False
        self.state = State.DISCONNECTING
        self._forget(self._messages)
        self._passed.clear()
        self._queue.clear()
        self.due.clear()
        self._ticks = self._messages = self._bytes = self._answers = 0
        self._kick(code, reason)

    def fail(self, error: Exception) -> None:
        """Writing to it raised `error`: it alone is taken out. That a connection is gone is no news, all else is."""
        if self.leaving:
            return
        if self.outlet.is_closing():
            self.kick(LOST, "the connection is gone")
            return
        log.error("client failed", client=self.id, address=self.address, exc_info=error)
        self.kick(INTERNAL_ERROR, "internal error: connect again")

    def follow(self, meter: Meter) -> None:
        """From now on a client that is `ready` is sent what `meter` counts."""
        began, was = self._meter_began, self._meter
        self._count(was.messages - began[0], was.bytes - began[1])
        self._meter, self._meter_began = meter, (meter.messages, meter.bytes)

    def stats(self, now: float, now_ns: int) -> ClientStats:
        """How it is doing; `now` is monotonic, `now_ns` the time of day."""
        sent, size = self._sent()
        last_at = self._last_at()
        return ClientStats(
            id=self.id,
            address=self.address,
            key_name=self.key_name,
            state=self.state.value,
            utilization=round(self.utilization, 4),
            lag_ms=round(self.lag_s(now) * 1e3),
            connected_at=self.connected_ns,
            last_message_at=now_ns - round((now - last_at) * NS_PER_S) if last_at else 0,
            messages_sent=sent,
            messages_dropped=self.dropped,
            bytes_sent=size,
            messages_waiting=self._messages,
            bytes_waiting=self._bytes,
        )

    def reading(self, now: float) -> ClientReading:
        """How it is doing, for the metrics; `now` is monotonic."""
        slow = self.state is not State.HEALTHY
        return ClientReading(self.id, self.utilization, self.lag_s(now) * 1e3, slow)

    def _put(self, data: bytes) -> None:
        try:
            self.write(data)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not stop what others are sent
            self.fail(error)

    def _sent(self) -> tuple[int, int]:
        (messages, size), began = self._own, self._meter_began
        return messages + self._meter.messages - began[0], size + self._meter.bytes - began[1]

    def _last_at(self) -> float:
        """Monotonic time of the last message written; 0 when there was none."""
        heard = self.ready and self._meter.messages > self._meter_began[0]
        return max(self._written_at, self._meter.at) if heard else self._written_at

    def _count(self, messages: int, size: int) -> None:
        self._own[0] += messages
        self._own[1] += size

    def _fits(self, messages: int, size: int) -> bool:
        return self._messages + messages <= self.bounds.messages and self._bytes + size <= self.bounds.bytes

    def _take(self, tick: Tick) -> int:
        """Account for a tick that waits no longer; its number of messages."""
        count = tick.last - tick.first + 1
        self._ticks -= 1
        self._messages -= count
        self._bytes -= len(tick.blob)
        return count

    def _write_waiting(self, item: Tick | Hole | bytes) -> None:
        if type(item) is Tick:
            self._count(self._take(item), len(item.blob))
            for kind, count in item.kinds.items():
                GATEWAY_SENT.labels(kind).inc(count)
            self._put(item.blob)
            return
        if type(item) is Hole:
            item = text_frame(wire.skipped(item.first, item.last, None if item.books is None else list(item.books)))
        else:
            assert isinstance(item, bytes)
            self._answers -= len(item)
        self._count(1, len(item))
        self._put(item)

    def _drop_oldest(self, now: float) -> None:
        """Make a hole of the oldest tick; what stands before it keeps its place."""
        while type(item := self._queue.popleft()) is not Tick:
            self._passed.append(item)  # type: ignore[arg-type]  # no Tick
        tail = self._passed[-1] if self._passed else None
        if type(tail) is not Hole or tail.last + 1 != item.first:
            tail = Hole(item.first, item.last)
            self._passed.append(tail)
        self._widen(tail, item.last, item.pieces)
        self._drop(self._take(item), now)

    def _widen(self, hole: Hole, last: int, pieces: Iterable[Piece]) -> None:
        hole.last = last
        hole.add(pieces)
        self.due.update(dict.fromkeys(pieces))

    def _drop(self, count: int, now: float) -> None:
        _dropped.inc(count)
        self.dropped += count
        self._episode += count
        if self.state is not State.DROPPING:
            self.state = State.DROPPING
            self._describe("client buffer full, dropping messages", now)
        if self._episode > DROPS_PER_EPISODE:
            self.kick(1008, f"slow reader: {self._episode:,} messages dropped; {ADVICE}")

    def _forget(self, count: int) -> None:
        """Count messages that are not sent because the connection ends."""
        _forgotten.inc(count)
        self.dropped += count

    def _describe(self, event: str, now: float) -> None:
        """Log a change of state, not more often than an operator can read."""
        if now - self._described.get(event, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._described[event] = now
            log.warning(
                event, client=self.id, address=self.address, utilization=round(self.utilization, 2),
                dropped=self.dropped,
            )  # fmt: skip
