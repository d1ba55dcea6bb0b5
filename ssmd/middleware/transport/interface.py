"""What ssmd needs from a message broker: an acknowledged stream per feed, a consumer, live subscriptions, requests."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ssmd.errors import Unavailable


class TransportUnavailable(Unavailable):
    """The broker did not answer."""


class Outgoing(NamedTuple):
    """A message to publish: `id` makes a repeated publish harmless (Nats-Msg-Id)."""

    subject: bytes
    id: bytes
    payload: bytes


class Delivered(NamedTuple):
    """A message of the stream, as the consumer sees it; `stream_seq` counts from 1 without holes."""

    stream_seq: int
    subject: bytes
    payload: bytes


class StreamState(NamedTuple):
    """`identity` changes when the stream is made anew, so that equal sequence numbers cannot be confused."""

    identity: str
    first_seq: int
    last_seq: int


class Publisher(Protocol):
    """Ordered publishing into a feed's stream with asynchronous acknowledgements and a bounded window.

    Survives the broker's absence: what was sent and not acknowledged is sent again, in order, on reconnect.
    """

    @property
    def room(self) -> int:
        """How many more messages `send` takes now (0: window full or broker away)."""
        ...

    @property
    def acked(self) -> int:
        """How many messages, counted in the order of `send`, are stored by the broker without a hole.

        One that the broker can never take (it is too large) is logged and counted as well: the rest must go on.
        """
        ...

    @property
    def connected(self) -> bool:
        """Is the broker there?"""
        ...

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Send now, without waiting; at most `room` messages."""
        ...

    async def wait(self) -> None:
        """Return when `acked`, `room` or `connected` may have changed since the call."""
        ...

    async def close(self) -> None:
        """Close the connection; unacknowledged messages are forgotten."""
        ...


class Consumer(Protocol):
    """A durable reader of a feed's stream."""

    async def fetch(self, max_messages: int, timeout_s: float) -> list[Delivered]:
        """The next messages in stream order, at least one and at most what was asked for; [] when `timeout_s` passes.

        Messages may be repeated after a reconnect (same stream_seq); they are never skipped silently: a hole in
        stream_seq means that the stream no longer has them. Raises TransportUnavailable while the broker is away.
        """
        ...

    async def ack_through(self, stream_seq: int) -> None:
        """Everything up to `stream_seq` is safe elsewhere; the broker need not deliver it again."""
        ...

    async def state(self) -> StreamState:
        """The stream's identity and its first and last sequence number now."""
        ...

    async def close(self) -> None:
        """Close the connection; the durable position stays."""
        ...


Batch: TypeAlias = list[tuple[bytes, bytes]]
"""[(subject, payload), ...] as they arrived together."""


class Subscription(Protocol):
    """A live subscription."""

    async def close(self) -> None:
        """End it."""
        ...


class Transport(Protocol):
    """A broker connection; open it with `middleware.factory`."""

    async def ensure_stream(self, feed: str) -> StreamState:
        """Create the feed's stream if it is missing; check its settings otherwise."""
        ...

    async def find_stream(self, feed: str) -> StreamState | None:
        """The feed's stream as it is, None when there is none; makes and changes nothing."""
        ...

    async def publisher(self, feed: str) -> Publisher:
        """A publisher into the feed's stream; returns even while the broker is away."""
        ...

    async def consumer(self, feed: str, durable: str) -> Consumer:
        """The durable consumer `durable` of the feed's stream, from its last acknowledged message on."""
        ...

    async def subscribe(
        self,
        patterns: Sequence[str],
        on_batch: Callable[[Batch], None],
        on_state: Callable[[bool], None],
    ) -> Subscription:
        """Live messages as they pass, at most once. `on_state(False)`: the broker is lost, messages may be missing."""
        ...

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """Ask whoever serves `subject`; TransportUnavailable when nobody answers in time."""
        ...

    async def serve(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> Subscription:
        """Answer requests on `subject`."""
        ...

    async def ping(self) -> None:
        """Return when the broker answers; TransportUnavailable otherwise."""
        ...

    async def close(self) -> None:
        """Close everything that was opened from here."""
        ...
