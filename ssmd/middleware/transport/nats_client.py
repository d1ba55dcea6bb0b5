"""The control connection to a NATS server: nats-py, JetStream's API requests, and its errors as ours."""

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import nats
import nats.errors
import structlog
from nats.aio.client import Client

from ssmd.middleware.transport.interface import TransportUnavailable
from ssmd.middleware.transport.nats_wire import Address, address

STREAM_NOT_FOUND = 10059
"""JetStream's error code for a stream that does not exist."""
_API_TIMEOUT_S = 5.0
_HINT = "start it (`ssmd up` does) or correct spec.middleware.transport.url; `ssmd doctor` says more"

log = structlog.get_logger(component="transport")


def nanoseconds(span: timedelta) -> int:
    """Whole seconds, as JetStream writes durations."""
    return round(span.total_seconds()) * 1_000_000_000


class NatsControl:
    """One connection, made on first use, for streams, consumers and requests (`url`: comma-separated servers).

    A function is asked for the URL again at each reconnect, so that a rotated password is followed.
    """

    def __init__(self, url: Address, name: str) -> None:
        self._url = url
        self._last = address(url)
        self._name = name
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    @property
    def where(self) -> str:
        """The servers as host:port, without credentials."""
        return ", ".join(f"{urlsplit(u).hostname}:{urlsplit(u).port or 4222}" for u in self._servers)

    @property
    def _servers(self) -> list[str]:
        with contextlib.suppress(TransportUnavailable):  # nats-py's own reconnect goes on with what was last known
            self._last = address(self._url)
        return [one.strip() for one in self._last.split(",")]

    async def connected(self) -> Client:
        """The connected client; TransportUnavailable when no server answers."""
        async with self._connecting:
            if self._client is not None and not self._client.is_closed:
                if not self._client.is_connected:
                    raise TransportUnavailable(f"no NATS server answers at {self.where}", _HINT)
                return self._client
            # nats-py sleeps two seconds after a refused first connect: look first
            await self._look()
            connecting = asyncio.ensure_future(self._connect())
            try:
                # shielded: nats-py swallows a cancellation while it connects, and the canceller would wait for ever
                self._client = await asyncio.shield(connecting)
            except asyncio.CancelledError:
                connecting.add_done_callback(_close_late)
                raise
            return self._client

    async def _connect(self) -> Client:
        try:
            return await nats.connect(
                **self._sign_in(),
                name=self._name,
                connect_timeout=3,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.5,
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=_log_error,
            )
        except (nats.errors.Error, OSError) as error:
            raise TransportUnavailable(f"cannot connect to NATS at {self.where}: {error}", _HINT) from error

    def _sign_in(self) -> dict[str, Any]:
        """Servers, user and password: said anew at each reconnect when they may change."""
        if isinstance(self._url, str) or urlsplit(self._servers[0]).password is None:
            return {"servers": self._servers}

        def user() -> str:
            return unquote(urlsplit(self._servers[0]).username or "")

        def password() -> str:
            return unquote(urlsplit(self._servers[0]).password or "")

        parts = [urlsplit(one) for one in self._servers]
        plain = [urlunsplit(one._replace(netloc=one.netloc.rpartition("@")[2])) for one in parts]
        return {"servers": plain, "user": user, "password": password}

    async def _look(self) -> None:
        for one in self._servers:
            parts = urlsplit(one)
            with contextlib.suppress(OSError):
                async with asyncio.timeout(3):
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
                    writer.close()
                    await writer.wait_closed()
                    return
        raise TransportUnavailable(f"no NATS server answers at {self.where}", _HINT)

    async def api(self, subject: str, body: dict[str, Any]) -> bytes:
        """JetStream's answer to a request on `$JS.API.{subject}`, error answers included."""
        client = await self.connected()
        try:
            answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=_API_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise TransportUnavailable(
                f"JetStream at {self.where} did not answer {subject}: {str(error) or 'time-out'}",
                "is JetStream enabled (`jetstream {}` in the server's configuration)? try `ssmd doctor`",
            ) from error
        return answer.data

    async def ping(self) -> None:
        """Return when the server answers; TransportUnavailable otherwise."""
        client = await self.connected()
        try:
            await client.flush(timeout=3)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise TransportUnavailable(f"NATS at {self.where} does not answer: {error}", _HINT) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None


async def _log_error(error: Exception) -> None:
    log.warning("nats client", error=str(error) or type(error).__name__)


def _close_late(connecting: "asyncio.Future[Client]") -> None:
    """A connection that nobody waits for any more is closed when it is there."""
    if not connecting.cancelled() and connecting.exception() is None:
        _closing.add(closing := asyncio.ensure_future(connecting.result().close()))
        closing.add_done_callback(_closing.discard)


_closing: set["asyncio.Future[None]"] = set()
