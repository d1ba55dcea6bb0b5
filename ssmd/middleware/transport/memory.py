"""A broker in this process: the stream contract without a server, for tests and for a stack wholly in memory."""

import asyncio
import fnmatch
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex

from ssmd.market.subjects import check_feed
from ssmd.middleware.transport.interface import (
    Batch,
    Consumer,
    Delivered,
    Outgoing,
    Publisher,
    StreamState,
    Subscription,
    TransportUnavailable,
)

_MAX_WINDOW = 8_000
_MAX_MESSAGES = 2_000_000


class _Stream:
    """Messages of one feed; `floors` holds what each durable consumer has acknowledged."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.first_seq = 1
        self.messages: deque[Delivered] = deque()
        self.ids: dict[bytes, None] = {}
        self.floors: dict[str, int] = {}
        self.grown = asyncio.Event()

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.messages) - 1

    def store(self, message: Outgoing) -> bool:
        """False when a message with this id is stored already."""
        if message.id in self.ids:
            return False
        self.ids[message.id] = None
        self.messages.append(Delivered(self.last_seq + 1, message.subject, message.payload))
        while len(self.messages) > _MAX_MESSAGES:
            self.messages.popleft()
            self.first_seq += 1
            del self.ids[next(iter(self.ids))]
        return True


class MemoryTransport:
    """The broker itself; all services of the process share one. `up = False` plays an outage."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._subscriptions: list[_MemorySubscription] = []
        self._servers: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        self._publishers: list[_MemoryPublisher] = []
        self._up = True

    @property
    def up(self) -> bool:
        """Does the broker answer?"""
        return self._up

    @up.setter
    def up(self, value: bool) -> None:
        self._up = value
        for publisher in self._publishers:
            publisher.flush()
        for subscription in self._subscriptions:
            subscription.on_state(value)

    def stream(self, feed: str) -> _Stream:
        """The stream of a feed, made when missing."""
        name = check_feed(feed)
        if name not in self._streams:
            self._streams[name] = _Stream(f"memory{token_hex(6)}")
        return self._streams[name]

    def require_up(self) -> None:
        """Raise TransportUnavailable during an outage."""
        if not self._up:
            raise TransportUnavailable("the in-memory broker is switched off")

    def store(self, feed: str, messages: Sequence[Outgoing]) -> None:
        """Append to the stream and pass on to live subscriptions."""
        stream = self.stream(feed)
        fresh = [(m.subject, m.payload) for m in messages if stream.store(m)]
        if fresh:
            stream.grown.set()
            for subscription in list(self._subscriptions):
                subscription.deliver(fresh)

    async def ensure_stream(self, feed: str) -> StreamState:
        self.require_up()
        stream = self.stream(feed)
        return StreamState(stream.identity, stream.first_seq, stream.last_seq)

    async def find_stream(self, feed: str) -> StreamState | None:
        self.require_up()
        found = self._streams.get(check_feed(feed))
        return None if found is None else StreamState(found.identity, found.first_seq, found.last_seq)

    async def publisher(self, feed: str) -> Publisher:
        publisher = _MemoryPublisher(self, feed)
        self._publishers.append(publisher)
        return publisher

    async def consumer(self, feed: str, durable: str) -> Consumer:
        self.require_up()
        return _MemoryConsumer(self, feed, durable)

    async def subscribe(
        self,
        patterns: Sequence[str],
        on_batch: Callable[[Batch], None],
        on_state: Callable[[bool], None],
    ) -> Subscription:
        subscription = _MemorySubscription(self._subscriptions, patterns, on_batch, on_state)
        self._subscriptions.append(subscription)
        on_state(self._up)
        return subscription

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        self.require_up()
        if subject not in self._servers:
            raise TransportUnavailable(f"nobody answers on {subject}")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._servers[subject](payload)
        except TimeoutError as error:
            raise TransportUnavailable(f"no answer on {subject} within {timeout_s} s") from error

    async def serve(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> Subscription:
        self._servers[subject] = handler
        return _MemoryServer(self._servers, subject, handler)

    async def ping(self) -> None:
        self.require_up()

    async def close(self) -> None:
        self._subscriptions.clear()
        self._servers.clear()


class _MemoryPublisher:
    def __init__(self, broker: MemoryTransport, feed: str) -> None:
        self._broker = broker
        self._feed = feed
        self._pending: deque[Outgoing] = deque()
        self._acked = 0
        self._changed = asyncio.Event()

    @property
    def room(self) -> int:
        return _MAX_WINDOW - len(self._pending) if self._broker.up else 0

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def connected(self) -> bool:
        return self._broker.up

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._pending.extend(messages)
        self.flush()

    def flush(self) -> None:
        """Store what waits, when the broker is there."""
        if self._broker.up and self._pending:
            self._acked += len(self._pending)
            messages, self._pending = list(self._pending), deque()
            self._broker.store(self._feed, messages)
        self._changed.set()

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def close(self) -> None:
        self._pending.clear()


class _MemoryConsumer:
    def __init__(self, broker: MemoryTransport, feed: str, durable: str) -> None:
        self._broker = broker
        self._stream = broker.stream(feed)
        self._durable = durable
        self._next = self._stream.floors.get(durable, 0) + 1

    async def fetch(self, max_messages: int, timeout_s: float) -> list[Delivered]:
        self._broker.require_up()
        stream = self._stream
        if self._next > stream.last_seq:
            stream.grown.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await stream.grown.wait()
            except TimeoutError:
                return []
        start = max(self._next, stream.first_seq) - stream.first_seq
        messages = [stream.messages[i] for i in range(start, min(start + max_messages, len(stream.messages)))]
        if messages:
            self._next = messages[-1].stream_seq + 1
        return messages

    async def ack_through(self, stream_seq: int) -> None:
        self._broker.require_up()
        self._stream.floors[self._durable] = max(stream_seq, self._stream.floors.get(self._durable, 0))

    async def state(self) -> StreamState:
        self._broker.require_up()
        return StreamState(self._stream.identity, self._stream.first_seq, self._stream.last_seq)

    async def close(self) -> None:
        return


class _MemorySubscription:
    def __init__(
        self,
        registered: "list[_MemorySubscription]",
        patterns: Sequence[str],
        on_batch: Callable[[Batch], None],
        on_state: Callable[[bool], None],
    ) -> None:
        self._registered = registered
        self._patterns = tuple(patterns)
        self._on_batch = on_batch
        self.on_state = on_state

    def deliver(self, batch: Batch) -> None:
        """Pass on what matches."""
        mine = [item for item in batch if any(fnmatch.fnmatchcase(item[0].decode(), p) for p in self._patterns)]
        if mine:
            self._on_batch(mine)

    async def close(self) -> None:
        if self in self._registered:
            self._registered.remove(self)


class _MemoryServer:
    def __init__(
        self,
        servers: dict[str, Callable[[bytes], Awaitable[bytes]]],
        subject: str,
        handler: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._servers = servers
        self._subject = subject
        self._handler = handler

    async def close(self) -> None:
        if self._servers.get(self._subject) is self._handler:  # else another one serves it by now
            del self._servers[self._subject]
