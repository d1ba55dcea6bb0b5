"""`/v1/admin/…`: who is connected and how each keeps up; send one away, or move it to another mode."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ssmd.clock import iso, now_ns
from ssmd.gateway.client import Client
from ssmd.gateway.documents import Moment
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import Ask, Parameter, Route
from ssmd.gateway.stream import StreamEndpoint
from ssmd.nearest import did_you_mean
from ssmd.wire.requests import DEFAULT_INTERVAL_MS, INTERVALS_MS

SYMBOLS_SHOWN = 100
REASON_CHARS = 80
DISCONNECTED = 1008


class ClientDocument(msgspec.Struct, frozen=True):
    """A connected client. `utilization` is how full its buffer is, 0 to 1; `lag_ms` how long the oldest message waits.

    `subscriptions` are symbols with their channels, at most 100 of `subscribed`.
    """

    id: str
    address: str
    key: str | None
    state: Literal["healthy", "lagging", "dropping", "disconnecting"]
    mode: Literal["realtime", "conflated", "latest"]
    interval_ms: int | None
    utilization: float
    lag_ms: int
    connected_at: Moment
    last_message_at: Moment | None
    messages_sent: int
    messages_dropped: int
    messages_waiting: int
    bytes_sent: int
    bytes_waiting: int
    subscribed: int
    subscriptions: dict[str, list[str]]


class ClientsDocument(msgspec.Struct, frozen=True):
    """All connected clients, the fullest buffers first."""

    feed: str
    clients: list[ClientDocument]


class Disconnect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a client is sent away; it is told."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARS, pattern="^[ -~]*$")] = "by an operator"


class SetMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mode a client is moved to; `interval_ms` belongs to `conflated` (100 when it is not given)."""

    mode: Literal["realtime", "conflated", "latest"]
    interval_ms: Annotated[int, Meta(ge=INTERVALS_MS[0], le=INTERVALS_MS[1])] | None = None


def _read_id(text: str) -> str:
    if len(text) != len("abc123") or not set(text) <= set("0123456789abcdef"):
        raise ValueError("six hex digits")
    return text


CLIENT = Parameter(
    "client",
    _read_id,
    {"type": "string", "pattern": "^[0-9a-f]{6}$"},
    "The client's id, as /v1/admin/clients lists it.",
    "path",
    required=True,
)


class AdminEndpoint:
    """What operators ask and do."""

    def __init__(
        self, feed: str, stream: StreamEndpoint, monotonic: Callable[[], float], clock: Callable[[], int] = now_ns
    ) -> None:
        self._feed = feed
        self._stream = stream
        self._monotonic = monotonic
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        one = "/v1/admin/clients/{client}"
        return [
            Route(
                "/v1/admin/clients", self.clients, "admin", "Who is connected", answer=ClientsDocument, tag="admin"
            ),
            Route(
                one, self.client, "admin", "One client", answer=ClientDocument, parameters=(CLIENT,), problems=(404,),
                tag="admin",
            ),
            Route(
                f"{one}/disconnect", self.disconnect, "admin", "Send a client away", answer=ClientDocument,
                parameters=(CLIENT,), method="POST", body=Disconnect, problems=(404,), tag="admin",
            ),
            Route(
                f"{one}/mode", self.set_mode, "admin", "Move a client to another mode", answer=ClientDocument,
                parameters=(CLIENT,), method="POST", body=SetMode, problems=(400, 404), tag="admin",
            ),
        ]  # fmt: skip

    async def clients(self, _ask: Ask) -> object:
        """All clients."""
        rows = [self._document(client) for client in self._stream.connected()]
        rows.sort(key=lambda row: (-row.utilization, row.connected_at, row.id))
        return ClientsDocument(self._feed, rows)

    async def client(self, ask: Ask) -> object:
        """One client."""
        return self._document(self._find(ask["client"]))

    async def disconnect(self, ask: Ask) -> object:
        """Close a client's connection with a reason."""
        client = self._find(ask["client"])
        body: Disconnect = ask.body
        self._stream.send_away(client, DISCONNECTED, f"disconnected: {body.reason}")
        return self._document(client)

    async def set_mode(self, ask: Ask) -> object:
        """Give a client's subscription another mode; it is told by a `subscribed` message."""
        client = self._find(ask["client"])
        body: SetMode = ask.body
        if body.interval_ms is not None and body.mode != "conflated":
            raise ApiProblem(
                400, "bad_body", f"interval_ms belongs to mode conflated, not to {body.mode}", "Leave interval_ms out."
            )
        interval_ms = (body.interval_ms or DEFAULT_INTERVAL_MS) if body.mode == "conflated" else 0
        self._stream.actions.set_mode(client, body.mode, interval_ms)
        return self._document(client)

    def _find(self, name: str) -> Client:
        clients = {client.id: client for client in self._stream.connected()}
        if name not in clients:
            step = did_you_mean(name, clients, "GET /v1/admin/clients lists who is connected.")
            raise ApiProblem(404, "unknown_client", f"no client {name} is connected", step)
        return clients[name]

    def _document(self, client: Client) -> ClientDocument:
        stats = client.stats(self._monotonic(), self._clock())
        subscription = client.subscription
        named = subscription.named()
        fields: dict[str, Any] = msgspec.structs.asdict(stats)
        del fields["key_name"]
        return ClientDocument(
            **fields
            | {
                "key": stats.key_name or None,
                "mode": subscription.mode,
                "interval_ms": subscription.interval_ms or None,
                "connected_at": iso(stats.connected_at),
                "last_message_at": iso(stats.last_message_at) if stats.last_message_at else None,
                "subscribed": len(named),
                "subscriptions": {symbol: list(named[symbol]) for symbol in list(named)[:SYMBOLS_SHOWN]},
            }
        )
