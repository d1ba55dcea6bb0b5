"""Who comes in: API keys in headers, as a password, or as a first message; what each may do, and how often.

Everything is closed unless the table of routes opens it. A key is never taken from a URL, and never repeated.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeAlias

import msgspec
import structlog
from aiohttp import WSMsgType, hdrs, web

from ssmd.config.environment import Gateway as Settings
from ssmd.gateway.caller import CALLER, SCOPES, Caller
from ssmd.gateway.credentials import HOW, challenge, first_message, presented, refuse_key_in_url
from ssmd.gateway.keyring import Keyring
from ssmd.gateway.limiting import Allowance, Heads, RequestLimiter, neighbourhood
from ssmd.gateway.origins import Origins
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import Route
from ssmd.registry.client_keys import ClientKey
from ssmd.telemetry import GATEWAY_REFUSED

STREAM = "/v1/stream"
AUTH_S = 5.0
BODY_S = 10.0
MAX_BODY_BYTES = 65_536
_PATTERN = re.compile(r"\{(\w+):[^{}]*\}")
_ALLOWANCE = web.RequestKey("allowance", Allowance)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Close: TypeAlias = Callable[[int, str], None]

log = structlog.get_logger()


class Seat(AbstractContextManager["Seat"]):
    """The place of one WebSocket client; left at the end of the context. `caller` is who sits there by now."""

    def __init__(self, doors: "Doors", caller: Caller) -> None:
        self.caller = caller
        self._doors = doors
        self._close: Close | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._doors.leave(self)

    async def identify(self, socket: web.WebSocketResponse) -> bool:
        """Make sure that it is known who this is: by the handshake, or by the first message within five seconds.

        False when it is not; then the connection was closed with a reason.
        """
        return self.caller.may("read:live") or await self._doors.hear(self, socket)

    def on_end(self, close: Close) -> None:
        """What to call with a close code and a reason when the key ends."""
        self._close = close

    def end(self, reason: str) -> None:
        """The key has ended."""
        if self._close is not None:
            self._close(1008, reason)

    def spend(self) -> Allowance:
        """Count one of its requests; the connection survives what is `refused`."""
        return self._doors.spend(self.caller)


class Doors:
    """Admission of every request and every WebSocket. `keyring` None: nobody is asked for a key."""

    def __init__(self, settings: Settings, keyring: Keyring | None) -> None:
        self._settings = settings
        self._keyring = keyring
        self._limiter = RequestLimiter(settings.limits)
        self._heads = Heads(settings.limits.clients_per_address)
        self._origins = Origins(settings.cors_origins, only_here=keyring is None, stream=STREAM)
        self._routes: dict[tuple[str, str], Route | None] = {}
        self._seats: set[Seat] = set()

    def open(self, app: web.Application, routes: Sequence[Route]) -> None:
        """Guard an application: `routes` are its doors, and what is not among them stays closed."""
        self._routes = {(route.method, _PATTERN.sub(r"{\1}", route.path)): route for route in routes}
        app.on_response_prepare.append(self._add_headers)

    def guarded(self, method: str, path: str) -> bool:
        """Is it known who may use it?"""
        return path == STREAM or (_plain(method), path) in self._routes

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who asks and whether they may; ApiProblem when not."""
        try:
            preflight = self._origins.check(request)
            if preflight is not None:
                return preflight
            route = self._route_of(request)
            refuse_key_in_url(request, route)
            caller = await self._identify(request, route)
            request[CALLER] = caller
            request[_ALLOWANCE] = allowance = self.spend(caller)
            if allowance.refused:
                raise too_many(allowance)
            self._check_scope(request, route, caller)
        except ApiProblem as error:
            GATEWAY_REFUSED.labels(error.code).inc()
            raise
        if request.can_read_body:
            await _read_body(request)
        return await handler(request)

    def spend(self, caller: Caller, *, burst: bool = True) -> Allowance:
        """Count one request."""
        return self._limiter.spend(_who(caller), burst=burst)

    def sit(self, caller: Caller) -> Seat:
        """A place for a WebSocket client, to be used as a context; ApiProblem 429 when it has too many already."""
        if not self._heads.enter(_who(caller)):
            GATEWAY_REFUSED.labels("too_many_clients").inc()
            raise ApiProblem(
                429, "too_many_clients", f"{self._heads.most} WebSocket clients are connected already, with this key or"
                " from this address", "Close one first; one connection can have up to thousands of symbols.",
                headers={"Retry-After": "10"},
            )  # fmt: skip
        seat = Seat(self, caller)
        self._seats.add(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """Free a place."""
        self._seats.discard(seat)
        self._heads.leave(_who(seat.caller))

    async def hear(self, seat: Seat, socket: web.WebSocketResponse) -> bool:
        """Wait for `{"action":"auth","key":…}`."""
        try:
            try:
                message = await socket.receive(timeout=AUTH_S)
            except TimeoutError:
                raise ApiProblem(
                    401, "no_key", f"no key within {AUTH_S:.0f} s",
                    'Send {"action":"auth","key":"ssmd_…"} first, or the header Authorization: Bearer KEY.',
                ) from None  # fmt: skip
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return False  # gone
            first = first_message(message.data)
            caller = self._caller(await self._try(first.key, seat.caller), seat.caller.address)
            self._check_live(caller)
            self._change_place(seat, caller)
        except ApiProblem as error:
            GATEWAY_REFUSED.labels(error.code).inc()
            await self._send_away(socket, error)
            return False
        answer = {"type": "authenticated", "key_id": caller.key_id, "name": caller.name,
                  "scopes": sorted(caller.scopes)} | ({} if first.id is None else {"id": first.id})  # fmt: skip
        await socket.send_str(msgspec.json.encode(answer).decode())
        return True

    def close_ended(self) -> None:
        """Call about once a second: whose key was revoked or has expired is sent away."""
        if self._keyring is None:
            return
        for seat in list(self._seats):
            reason = self._keyring.ended(seat.caller.key_id) if seat.caller.key_id else ""
            if reason:
                GATEWAY_REFUSED.labels("key_ended").inc()
                seat.end(f"the API key {seat.caller.key_id} {reason}")

    # --- who asks -----------------------------------------------------------------------------------------------------

    async def _identify(self, request: web.Request, route: Route | None) -> Caller:
        address = request.remote or ""
        if self._keyring is None:
            return Caller(address, scopes=frozenset(SCOPES))
        text = presented(request, route)
        nobody = Caller(address)
        if text is None:
            return nobody
        try:
            return self._caller(await self._try(text, nobody, route), address)
        except ApiProblem as error:
            if error.status == 503 and route is not None and route.scope is None:
                return nobody  # what is for everyone needs no database
            raise

    async def _try(self, text: str, nobody: Caller, route: Route | None = None) -> ClientKey:
        """The key that `text` is; wrong ones are counted, too."""
        assert self._keyring is not None
        try:
            return await self._keyring.open(text)
        except ApiProblem as error:
            if error.status != 401:
                raise
            allowance = self.spend(nobody, burst=False)
            if allowance.refused:
                raise too_many(allowance) from error
            error.headers = challenge(route, wrong=True)
            raise

    @staticmethod
    def _caller(key: ClientKey, address: str) -> Caller:
        return Caller(address, key.id, key.name, frozenset(scope for scope in SCOPES if scope in key.scopes))

    # --- what they may ------------------------------------------------------------------------------------------------

    def _route_of(self, request: web.Request) -> Route | None:
        """The route of the request; None for the stream and for what is answered with 404 or 405."""
        resource = request.match_info.route.resource
        if request.match_info.http_exception is not None or resource is None:
            return None
        path = resource.canonical
        if not self.guarded(request.method, path):
            # Nobody said who may use it: a mistake of ours, and nobody may.
            log.error("route without a scope", method=request.method, path=path)
            raise ApiProblem(403, "closed", "nobody may use this path")
        return self._routes.get((_plain(request.method), path))

    def _check_scope(self, request: web.Request, route: Route | None, caller: Caller) -> None:
        if request.match_info.http_exception is not None:
            return
        if route is None:  # the stream; a client without key may still send one as its first message
            upgrade = request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
            if caller.key_id or self._keyring is None or not upgrade:
                self._check_live(caller)
            return
        if caller.may(route.scope):
            return
        if not caller.key_id:
            raise ApiProblem(
                401, "no_key", f"{route.path} needs an API key",
                f"{HOW}; the operator makes one: ssmd client key create.",
                headers=challenge(route, wrong=False),
            )  # fmt: skip
        raise _scope_missing(route.path, route.scope or "", caller)

    @staticmethod
    def _check_live(caller: Caller) -> None:
        if caller.may("read:live"):
            return
        if not caller.key_id:
            how = f'{HOW}, or as the first message: {{"action":"auth","key":"ssmd_…"}}.'
            raise ApiProblem(401, "no_key", f"{STREAM} needs an API key", how, headers=challenge(None, wrong=False))
        raise _scope_missing(STREAM, "read:live", caller)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        self._origins.add_headers(request, response)
        response.headers[hdrs.SERVER] = "ssmd"  # and not which versions of what
        allowance = request.get(_ALLOWANCE)
        if allowance is not None:
            response.headers.update(allowance.headers())

    # --- first messages ---------------------------------------------------------------------------------------------

    def _change_place(self, seat: Seat, caller: Caller) -> None:
        """From among those of the address to those of the key."""
        if not self._heads.enter(_who(caller)):
            raise ApiProblem(
                429, "too_many_clients", f"{self._heads.most} WebSocket clients are connected already with this key",
                "Close one first.",
            )  # fmt: skip
        self._heads.leave(_who(seat.caller))
        seat.caller = caller

    @staticmethod
    async def _send_away(socket: web.WebSocketResponse, error: ApiProblem) -> None:
        body = {"type": "error", "code": error.code, "message": error.message, "next": error.hint}
        try:
            async with asyncio.timeout(2.0):
                await socket.send_str(msgspec.json.encode(body).decode())
                await socket.close(code=1013 if error.status == 503 else 1008, message=error.message.encode()[:120])
        except (TimeoutError, ConnectionError):
            return


async def _read_body(request: web.Request) -> None:
    """The body, before anything is done with it; nobody may send it for minutes."""
    try:
        async with asyncio.timeout(BODY_S):
            await request.read()
    except TimeoutError:
        GATEWAY_REFUSED.labels("slow_body").inc()
        raise ApiProblem(408, "slow_body", f"the body was not here within {BODY_S:.0f} s", "Send it at once.") from None


def too_many(allowance: Allowance) -> ApiProblem:
    """The problem of a client that asks too often."""
    return ApiProblem(
        429, "rate_limited", f"more than {allowance.refused}", f"Wait {allowance.reset_s} s.",
        headers=allowance.headers(), retry_after_s=allowance.reset_s,
    )  # fmt: skip


def _scope_missing(path: str, scope: str, caller: Caller) -> ApiProblem:
    has = ", ".join(sorted(caller.scopes)) or "no scope"
    return ApiProblem(
        403, "scope_missing", f"{path} needs the scope {scope}; the key {caller.key_id} has {has}",
        f"Ask the operator for another key: ssmd client key create --scope {scope}", scope=scope,
        headers={hdrs.WWW_AUTHENTICATE: f'Bearer realm="ssmd", error="insufficient_scope", scope="{scope}"'},
    )  # fmt: skip


def _who(caller: Caller) -> str:
    """Whose requests are counted together: the key's, or those of an address without one."""
    return f"key {caller.key_id}" if caller.key_id else neighbourhood(caller.address)


def _plain(method: str) -> str:
    return "GET" if method == "HEAD" else method
