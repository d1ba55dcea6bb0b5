"""Reading JetStream and live subjects in batches over a raw connection."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex

import structlog

from ssmd.middleware.transport.interface import Batch, Delivered, StreamState, TransportUnavailable
from ssmd.middleware.transport.nats_wire import Address, NatsWire, Received, open_wire

_PULL = 5_000
_EXPIRES_S = 30
_RETRY_S = (0.1, 0.2, 0.5, 1.0)
_ACK_TIMEOUT_S = 5.0

log = structlog.get_logger(component="transport")


class NatsConsumer:
    """A durable pull consumer: pulls ahead of the reader, at most two pulls' worth of messages in memory."""

    def __init__(
        self,
        url: Address,
        stream: str,
        durable: str,
        prepare: Callable[[], Awaitable[StreamState]],
        state: Callable[[], Awaitable[StreamState]],
    ) -> None:
        self._url = url
        self._state = state
        self._stream = stream
        self._durable = durable
        self._prepare = prepare
        self._wire: NatsWire | None = None
        self._inbox = b""
        self._buffer: list[Delivered] = []
        self._ack_subjects: list[bytes] = []  # parallel to the buffer
        self._wanted = 0
        self._arrived = asyncio.Event()
        self._replies: dict[int, bytes] = {}
        self._confirmed: asyncio.Future[None] | None = None
        self._failure = ""
        self._identity = ""
        self._lost = False  # the connection, and the reader was not told yet

    async def open(self) -> None:
        """Prepare the durable and connect; TransportUnavailable when the broker is away or the stream another one."""
        prepared = await self._prepare()
        if prepared.identity != (self._identity or prepared.identity):
            raise TransportUnavailable(f"the stream {self._stream} was made anew; this consumer belongs to the old one")
        self._identity = prepared.identity
        self._failure = ""
        self._buffer.clear()
        self._ack_subjects.clear()
        self._replies.clear()
        self._wanted = 0
        wire = await open_wire(self._url, f"ssmd-{self._durable}", self._received, self._on_lost)
        self._inbox = b"_INBOX.%b" % token_hex(8).encode()
        wire.write(b"SUB %b.* 1\r\n" % self._inbox)
        self._wire = wire

    def _on_lost(self) -> None:
        self._wire = None
        self._lost = True
        self._arrived.set()
        if self._confirmed is not None and not self._confirmed.done():
            self._confirmed.set_exception(TransportUnavailable("the NATS server went away before confirming an ack"))

    def _pull(self, count: int) -> None:
        assert self._wire is not None
        self._wanted += count
        body = b'{"batch":%d,"expires":%d}' % (count, _EXPIRES_S * 1_000_000_000)
        self._wire.write(
            b"PUB $JS.API.CONSUMER.MSG.NEXT.%b.%b %b.m %d\r\n%b\r\n"
            % (self._stream.encode(), self._durable.encode(), self._inbox, len(body), body)
        )

    def _received(self, batch: list[Received]) -> None:
        append, keep, make = self._buffer.append, self._ack_subjects.append, tuple.__new__
        for subject, reply_to, headers, payload in batch:
            if reply_to:
                # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>; newer servers
                # put domain and account in front
                words = reply_to.split(b".")
                seq = int(words[5] if len(words) == 9 else words[7])
                append(make(Delivered, (seq, subject, payload)))
                keep(reply_to)
                self._wanted -= 1
            else:
                self._status(subject, headers)
        self._arrived.set()

    def _status(self, subject: bytes, headers: bytes) -> None:
        if subject.endswith(b".a"):
            if self._confirmed is not None and not self._confirmed.done():
                self._confirmed.set_result(None)
            return
        left = 0
        for line in headers.split(b"\r\n"):
            if line.lower().startswith(b"nats-pending-messages:"):
                left = int(line.split(b":")[1])
        code = headers[9:12]
        if code in (b"408", b"404"):  # the pull expired or found nothing: the rest of it will not come
            self._wanted = max(0, self._wanted - left) if left else 0
            return
        self._failure = headers.split(b"\r\n")[0].decode("ascii", "replace")

    async def fetch(self, max_messages: int, timeout_s: float) -> list[Delivered]:
        if self._lost and not self._buffer:
            # The reader looks whether the stream is still the one it knows, before it takes equal numbers for equal.
            self._lost = False
            raise TransportUnavailable("the connection to the NATS server was lost")
        if self._wire is None and not self._buffer:
            await self.open()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._buffer:
                    self._arrived.clear()
                    self._ask()
                    await self._arrived.wait()
        except TimeoutError:
            return []
        self._ask()
        count = min(max_messages, len(self._buffer))
        messages = self._buffer[:count]
        del self._buffer[:count]
        self._replies[messages[-1].stream_seq] = self._ack_subjects[count - 1]
        del self._ack_subjects[:count]
        return messages

    def _ask(self) -> None:
        """Keep a pull open; raises TransportUnavailable when the connection or the consumer is gone."""
        if self._failure:
            failure, self._failure = self._failure, ""
            if self._wire is not None:
                self._wire.abort()
                self._wire = None
            raise TransportUnavailable(f"the consumer {self._durable} of {self._stream} ended: {failure}")
        if self._wire is None:
            if self._buffer:
                return
            self._lost = False
            raise TransportUnavailable("the connection to the NATS server was lost")
        if self._wanted <= _PULL // 2 and len(self._buffer) < _PULL:
            self._pull(_PULL)

    async def ack_through(self, stream_seq: int) -> None:
        known = [seq for seq in self._replies if seq <= stream_seq]
        if not known:
            return
        if self._wire is None:
            raise TransportUnavailable("the connection to the NATS server was lost")
        self._confirmed = asyncio.get_running_loop().create_future()
        self._wire.write(b"PUB %b %b.a 4\r\n+ACK\r\n" % (self._replies[max(known)], self._inbox))
        try:
            async with asyncio.timeout(_ACK_TIMEOUT_S):
                await self._confirmed
        except TimeoutError as error:
            raise TransportUnavailable("the NATS server did not confirm an ack within 5 s") from error
        finally:
            self._confirmed = None
        for seq in known:
            del self._replies[seq]

    async def state(self) -> StreamState:
        return await self._state()

    async def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class NatsSubscription:
    """Live subjects: one callback per read; reconnects for ever."""

    def __init__(
        self,
        url: Address,
        patterns: Sequence[str],
        on_batch: Callable[[Batch], None],
        on_state: Callable[[bool], None],
    ) -> None:
        self._url = url
        self._patterns = tuple(patterns)
        self._on_batch = on_batch
        self._on_state = on_state
        self._wire: NatsWire | None = None
        self._lost = asyncio.Event()
        self._task = asyncio.create_task(self._stay_connected(), name="nats-subscription")

    def _received(self, batch: list[Received]) -> None:
        self._on_batch([(message.subject, message.payload) for message in batch])

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            try:
                wire = await open_wire(self._url, "ssmd-subscriber", self._received, self._lost.set)
            except TransportUnavailable as error:
                if attempt == 0:
                    log.warning("broker unavailable", error=error.message)
                    self._on_state(False)
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._wire = wire
            wire.write(b"".join(b"SUB %b %d\r\n" % (p.encode(), i) for i, p in enumerate(self._patterns, 1)))
            self._on_state(True)
            await self._lost.wait()
            self._lost.clear()
            self._wire = None
            self._on_state(False)

    async def close(self) -> None:
        while not self._task.done():
            # Once may not do: before Python 3.12 `asyncio.wait_for` can swallow a cancellation.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.2)
        if self._wire is not None:
            self._wire.close()


def stream_state(info: bytes) -> StreamState:
    """The state in a JetStream STREAM.INFO or STREAM.CREATE answer; TransportUnavailable for an error answer."""
    answer = json.loads(info)
    if "error" in answer:
        raise TransportUnavailable(f"JetStream: {answer['error'].get('description')}")
    state = answer["state"]
    identity = "".join(c for c in answer["created"] if c.isdigit())
    return StreamState(identity, state["first_seq"], state["last_seq"])
