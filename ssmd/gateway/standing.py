"""How a client is doing, as operators see it."""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How a client keeps up."""

    HEALTHY = "healthy"
    LAGGING = "lagging"  # more than 70 % of its buffer is full
    DROPPING = "dropping"  # the buffer is full: messages are left out
    DISCONNECTING = "disconnecting"


class ClientStats(msgspec.Struct, frozen=True):
    """A client as operators see it; times are nanoseconds since the epoch."""

    id: str
    address: str
    key_name: str
    state: str
    utilization: float
    lag_ms: int
    connected_at: int
    last_message_at: int
    messages_sent: int
    messages_dropped: int
    bytes_sent: int
    messages_waiting: int
    bytes_waiting: int
