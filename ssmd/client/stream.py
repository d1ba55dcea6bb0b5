"""A stream of events that survives its connections."""

import asyncio
import contextlib
import inspect
import json
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

import aiohttp

from ssmd.client.address import Address, connection_refused
from ssmd.client.books import Books
from ssmd.client.errors import GatewayAway, GatewayError, refusal
from ssmd.client.events import Event, Gap
from ssmd.client.following import LATEST, Follower, Request, Wanted
from ssmd.clock import NS_PER_MS, now_ns

FIRST_PATIENCE_S = 5.0
CONNECT_S = 10.0
PING_S = 15.0
MAX_MESSAGE_BYTES = 64 << 20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 15.0
STEADY_S = 10.0
"""A connection that lived so long was a good one: after it the waiting times begin anew."""

OnGap: TypeAlias = Callable[[Gap], Awaitable[object] | object]


class Stream:
    """Iterate over it: `async for event in client.stream("…")`; made by `Client.stream`.

    Events are received while the program works, and wait; of more than `max_waiting` the oldest are given up, which a
    Gap of kind slow_consumer tells. `books` are as new as what was received. `dropped` counts what was given up,
    `connections` how often it connected.
    """

    def __init__(
        self,
        address: Address,
        wanted: Wanted,
        *,
        on_gap: OnGap | None,
        max_waiting: int,
        patience_s: float | None,
        poll_s: float,
        forget: Callable[["Stream"], None],
    ) -> None:
        self.books = Books()
        self.dropped = 0
        self.connections = 0
        self._address = address
        self._follower = Follower(wanted, self.books, lambda: now_ns() // NS_PER_MS)
        self._on_gap = on_gap
        self._max = max_waiting
        self._patience_s = patience_s
        self._poll_s = poll_s
        self._forget = forget
        self._waiting: deque[Event] = deque()
        self._hole: list[Event] = []  # the first and the last that were given up
        self._holes = 0
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._retry_after_s = 0.0

    @property
    def seq(self) -> int | None:
        """The number of the last message that was received."""
        return self._follower.seq

    @property
    def waiting(self) -> int:
        """Events that were received and not taken yet."""
        return len(self._waiting)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. GatewayAway, NotAllowed or GatewayError when there will be none."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _task: self._more.set())
        while not self._waiting and not self._hole:
            if self._task.done():
                await self.aclose(wait=False)
                if self._task.cancelled() or (error := self._task.exception()) is None:
                    raise StopAsyncIteration
                raise error.with_traceback(None) from None
            self._more.clear()
            await self._more.wait()
        event = self._given_up() if self._hole else self._waiting.popleft()
        if type(event) is Gap and self._on_gap is not None:
            answer = self._on_gap(event)
            if inspect.isawaitable(answer):
                await answer
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self, *, wait: bool = True) -> None:
        """End the stream and its connection."""
        self._forget(self)
        self.books.connection(up=False)
        if self._task is None:
            self._task = asyncio.create_task(asyncio.sleep(0))
        if wait and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        self._waiting.clear()
        self._hole.clear()

    def _push(self, events: list[Event]) -> None:
        waiting = self._waiting
        waiting.extend(events)
        while len(waiting) > self._max:
            event = waiting.popleft()
            self._hole = [self._hole[0] if self._hole else event, event]
            self._holes += 1
            self.dropped += 1
        self._more.set()

    def _given_up(self) -> Gap:
        (first, last), count = self._hole, self._holes
        self._hole, self._holes = [], 0
        start = first.from_ts if isinstance(first, Gap) else first.ts
        reason = f"{count} events were given up because {self._max} were waiting: take them faster, or ask for less"
        return Gap(
            kind="slow_consumer", reason=reason, from_ts=min(start, last.ts), to_ts=max(start, last.ts),
            from_seq=getattr(first, "seq", None), to_seq=getattr(last, "seq", None), ts=last.ts,
        )  # fmt: skip

    async def _run(self) -> None:
        """Connect again and again, until the gateway says no, or patience ends."""
        loop = asyncio.get_running_loop()
        wait_s, away_since = FIRST_WAIT_S, loop.time()
        async with aiohttp.ClientSession() as session:
            while True:
                began = loop.time()
                self._retry_after_s = 0.0
                error = await self._connection(session)
                now = loop.time()
                if self._follower.answered:
                    away_since = now
                if now - began > STEADY_S:
                    wait_s = FIRST_WAIT_S
                if now - away_since >= self._patience():
                    raise error
                await asyncio.sleep(max(wait_s * random.uniform(0.5, 1.0), self._retry_after_s))  # noqa: S311
                wait_s = min(LONGEST_WAIT_S, 2 * wait_s)

    def _patience(self) -> float:
        if self._patience_s is not None:
            return self._patience_s
        return float("inf") if self.connections else FIRST_PATIENCE_S

    async def _connection(self, session: aiohttp.ClientSession) -> GatewayAway:
        """One connection, to its end; why it ended."""
        follower, address = self._follower, self._address
        opening = follower.opening()
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await session.ws_connect(
                    address.url("/v1/stream"), headers=address.headers, heartbeat=PING_S, compress=0,
                    max_msg_size=MAX_MESSAGE_BYTES, ssl=address.tls or True,
                )  # fmt: skip
        except aiohttp.WSServerHandshakeError as error:
            return self._handshake_refused(await self._why(session, error))
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            return connection_refused(address, error)
        try:
            async with socket:
                await _send(socket, opening)
                await self._read(socket)
                reason = f"the gateway ended the connection (code {socket.close_code})"
        except GatewayAway as error:
            self._retry_after_s = error.retry_after_s or 1.0
            return error
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the connection to {address} broke: {error}"
        finally:
            follower.lost()
        return GatewayAway(reason, "Is it running? Its log says why it ended the connection.")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        follower = self._follower
        poll: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                before = follower.answered
                events, requests = follower.take(message.data)
                if follower.answered and not before:
                    self.connections += 1
                    if follower.wanted.mode == "latest":
                        poll = asyncio.create_task(self._poll(socket))
                if events:
                    self._push(events)
                for request in requests:
                    await _send(socket, request)
        finally:
            if poll is not None:
                poll.cancel()

    async def _poll(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Mode latest: nothing comes unless it is asked for."""
        with contextlib.suppress(aiohttp.ClientError, OSError):  # who reads learns of it, too
            while not socket.closed:
                await _send(socket, {"action": "snapshot", "id": LATEST})
                await asyncio.sleep(self._poll_s)

    async def _why(self, session: aiohttp.ClientSession, error: aiohttp.WSServerHandshakeError) -> GatewayError:
        """What the gateway has against the connection: a plain request to the same path is told in words."""
        status, retry_after = error.status, None if error.headers is None else error.headers.get("Retry-After")
        problem: dict[str, object] = {}
        try:
            async with (
                asyncio.timeout(CONNECT_S),
                session.get(
                    self._address.url("/v1/stream"), headers=self._address.headers, ssl=self._address.tls or True,
                    allow_redirects=False,
                ) as answer,
            ):  # fmt: skip
                if answer.status == status:
                    found = json.loads(await answer.content.read(65_536))
                    problem = found if isinstance(found, dict) else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            problem = {}  # then the status must do
        return refusal(status, problem, f"{self._address}/v1/stream", retry_after)

    def _handshake_refused(self, error: GatewayError) -> GatewayAway:
        if not isinstance(error, GatewayAway):
            raise error
        self._retry_after_s = error.retry_after_s or 1.0
        return error


async def _send(socket: aiohttp.ClientWebSocketResponse, request: Request) -> None:
    await socket.send_str(json.dumps(request))
