"""The connections to the exchange, one after the other, and the recorded gap between two of them."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import NamedTuple

import structlog

from ssmd import telemetry as metrics
from ssmd.clock import now_ns
from ssmd.connector import link as links
from ssmd.connector.conversation import TRANSIT_NS, Conversation
from ssmd.connector.exchange import Credentials, Exchange, Settings
from ssmd.connector.keys import CHECK_S, Keys
from ssmd.connector.link import CredentialsRefused, Frame, Link
from ssmd.connector.pipeline import Pipeline
from ssmd.errors import ConfigError, RateLimited, SsmdError, TransientError
from ssmd.market.events import Gap

_GOODBYE_S = 3.0
_HANDOVER_GOODBYE_S = 0.5
"""A successor waits: an exchange that does not answer a goodbye must not make the gap longer than this."""
_FIRST_RETRY_S = 0.2
_MAX_RETRY_S = 3.0
_MAX_PATIENCE_S = 3.0
_LONG_PATIENCE_S = 8.0
_PATIENT_AFTER = 40
"""After a minute or two of refusals (401, 429) it is asked less often; still often enough to be back in 10 s."""

log = structlog.get_logger(component="connector")


class OpenGap(NamedTuple):
    """A gap whose end is not known yet."""

    from_ns: int
    reason: str
    connection: str


class Connection(NamedTuple):
    """An open connection: what was said on it so far, and what it was opened with."""

    link: Link
    conversation: Conversation
    credentials: Credentials
    opened_ns: int

    def send(self, commands: Iterable[bytes]) -> None:
        """Send commands; nothing when the connection is gone."""
        for command in commands:
            self.link.send(command)


class Connections:
    """Keeps one connection subscribed. A key that changed is tried on a second one, which then takes over.

    `wanted` gives the tickers to begin with; `on_gaps` is told when the pipeline holds recorded gaps.
    """

    def __init__(
        self,
        settings: Settings,
        exchange: Exchange,
        pipeline: Pipeline,
        keys: Keys,
        wanted: Callable[[], frozenset[str]],
        on_gaps: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._pipeline = pipeline
        self._keys = keys
        self._wanted = wanted
        self._on_gaps = on_gaps
        self._gap: OpenGap | None = None
        self._successor: Connection | None = None
        self._relieved = asyncio.Event()  # a successor is ready
        self._over: Conversation | None = None
        self._attempts = 0
        self._sessions = 0
        self._hurry = asyncio.Event()
        self.current: Connection | None = None
        self.requested: frozenset[str] = frozenset()
        """The tickers asked for on the last connection that ended."""
        self.problem = "starting"

    # -- from outside -------------------------------------------------------------------------------------------

    def open_gap(self, gap: OpenGap) -> None:
        """What is missing before the first frame of the next connection."""
        self._gap = gap

    def take_gap(self) -> OpenGap | None:
        """The open gap; it is no longer open here."""
        gap, self._gap = self._gap, None
        return gap

    def abandon(self, conversation: Conversation | None) -> None:
        """End this conversation's connection, if it lives, as if it were lost: not one more frame of it is taken."""
        connection = self.current
        if connection is not None and connection.conversation is conversation:
            self._over = conversation
            connection.link.drop("connection_lost")

    def hurry(self) -> None:
        """Nobody else captures now: try to connect at once."""
        self._attempts = 0
        self._hurry.set()

    def close_gap(self, to_ns: int) -> None:
        """Record the open gap, if there is one."""
        gap = self.take_gap()
        if gap is not None:
            from_ns = min(gap.from_ns, to_ns)
            self._pipeline.record_gap(Gap(self._settings.feed, gap.connection, None, from_ns, to_ns, gap.reason))
            self._on_gaps()

    async def stay_connected(self, stop: asyncio.Event) -> None:
        """Until `stop`; a connection that ends is followed by another. ConfigError when the key never worked."""
        try:
            while not stop.is_set():
                delay = await self._attempt(stop)
                self._attempts += 1
                await self._pause(stop, delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            self._discard_successor()

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (stop, self._hurry)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hurry.clear()
            for wait in waits:
                wait.cancel()

    async def follow_keys(self) -> None:
        """Look for changed credentials until cancelled; open a second connection with those that changed."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_S)
            found = await self._keys.read()
            current = self.current
            if current is None or self._successor is not None:
                continue  # the next connection is opened with what was found
            if self._keys.is_due(found, current.credentials, loop.time()):
                await self._prepare_successor(current, found)

    # -- one after the other ------------------------------------------------------------------------------------

    async def _attempt(self, stop: asyncio.Event) -> float:
        """Connect and hold the connection to its end; seconds to wait before the next attempt."""
        try:
            following: Connection | None = await self._dial()
            while following is not None:
                self._begin(following)
                following = await self._hold(following, stop)
        except CredentialsRefused as error:
            self.problem = error.message
            log.error("credentials that worked before are refused", error=error.message, attempt=self._attempts)
            return self._patience()
        except ConfigError as error:
            if self._pipeline.standby is None:
                raise
            # The other connector uses the same key: perhaps the exchange lets it in once only. We wait for our turn.
            self._note_failure("", error)
            return self._patience()
        except RateLimited as error:
            self._note_failure("rate_limited", error)
            return self._patience()
        except TransientError as error:
            self._note_failure("", error)
            return min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self._attempts, 10))
        return _FIRST_RETRY_S

    def _note_failure(self, reason: str, error: SsmdError) -> None:
        self.problem = error.message
        if self._gap is not None and reason:
            self._gap = self._gap._replace(reason=reason)
        if self._attempts in (0, 3, 10) or self._attempts % 50 == 0:
            log.warning("exchange unavailable", error=error.message, attempt=self._attempts)

    def _patience(self) -> float:
        longest = _MAX_PATIENCE_S if self._attempts < _PATIENT_AFTER else _LONG_PATIENCE_S
        return min(longest, 2.0 ** min(self._attempts, 4))

    async def _dial(self) -> Connection:
        """A connection with the credentials of now; with those that worked last in this process if they are refused."""
        credentials = await self._keys.read()
        try:
            return await self._open(credentials)
        except ConfigError as error:
            self._keys.refuse(credentials, error, asyncio.get_running_loop().time())
            spare = self._keys.accepted
            if spare is None and self._keys.is_new(credentials):
                message = f"{error.message}; key '{self._exchange.key_name}'"
                raise ConfigError(message, self._exchange.key_hint("set")) from error
            if spare is None or spare.fingerprint == credentials.fingerprint:
                raise
        return await self._open(spare)

    async def _open(self, credentials: Credentials) -> Connection:
        """An open connection on which nothing was asked for yet."""
        exchange = self._exchange
        name = f"c-{now_ns() // 1_000_000:x}-{token_hex(3)}"
        mapper = exchange.mapper(name)
        conversation = Conversation(name, mapper, exchange.session(mapper, self._settings.selects))

        def on_frames(link: Link, frames: list[Frame]) -> None:
            self._on_frames(link, conversation, frames)

        headers = await asyncio.to_thread(credentials.headers)  # an RSA signature takes milliseconds
        link = await links.connect(exchange.url, headers, on_frames)
        self._keys.accept(credentials)
        return Connection(link, conversation, credentials, now_ns())

    async def _prepare_successor(self, current: Connection, credentials: Credentials) -> None:
        now_s = asyncio.get_running_loop().time()
        try:
            successor = await self._open(credentials)
        except ConfigError as error:
            self._keys.refuse(credentials, error, now_s)
        except TransientError as error:
            log.warning("changed key not tried, exchange unavailable", error=error.message)
            self._keys.postpone(credentials, now_s)
        else:
            if self.current is not current:  # it ended meanwhile: the next one has the changed key anyway
                successor.link.drop("planned_teardown")
                return
            self._successor = successor
            self._relieved.set()

    def _take_successor(self) -> Connection | None:
        """The connection that was opened meanwhile, if it still lives."""
        successor, self._successor = self._successor, None
        self._relieved.clear()
        return None if successor is None or successor.link.closed.is_set() else successor

    def _discard_successor(self) -> None:
        successor = self._take_successor()
        if successor is not None:
            successor.link.drop("planned_teardown")

    def _begin(self, connection: Connection) -> None:
        self.current = connection
        self.problem = ""
        self._sessions += 1
        if self._sessions > 1:
            metrics.CONNECTOR_RECONNECTS.labels(self._settings.feed).inc()
        tickers = sorted(self._wanted() | self.requested)
        name = connection.conversation.connection
        log.info("connected to the exchange", connection=name, tickers=len(tickers))
        connection.send(connection.conversation.session.start(tickers))

    async def _hold(self, connection: Connection, stop: asyncio.Event) -> Connection | None:
        """Until the connection ends, `stop` is set or a successor is ready, which is returned."""
        link, goodbye_ns = connection.link, 0
        waits = [asyncio.create_task(event.wait()) for event in (stop, link.closed, self._relieved)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not link.closed.is_set():
                goodbye_ns = await self._say_goodbye(link, _GOODBYE_S if stop.is_set() else _HANDOVER_GOODBYE_S)
        finally:
            for wait in waits:
                wait.cancel()
            self._ended(connection, goodbye_ns)
        if link.failure is not None:
            raise link.failure
        if stop.is_set():
            return None
        return self._take_successor()

    async def _say_goodbye(self, link: Link, patience_s: float) -> int:
        """Close the connection; when we said so. What the exchange had sent before its answer has arrived."""
        link.reason = "planned_teardown"
        goodbye_ns = now_ns()
        link.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(link.closed.wait(), patience_s)
        link.drop("planned_teardown")
        return goodbye_ns

    def _ended(self, connection: Connection, goodbye_ns: int) -> None:
        """Open the gap: from the last frame, or from our goodbye if the exchange answered it and so all had arrived."""
        link, conversation, pipeline = connection.link, connection.conversation, self._pipeline
        self.current, self._over = None, conversation
        if not link.closed.is_set():  # cancelled: nobody is left to hear it
            link.drop(link.reason)
        session = conversation.session
        self.requested = session.requested_tickers.difference(session.take_ended())
        log.info("connection ended", connection=conversation.connection, reason=link.reason, frames=conversation.n)
        lost_until_ns = now_ns() if pipeline.losing else 0
        pipeline.close_full_gap(conversation.connection, lost_until_ns)
        if self._gap is None and (conversation.last_ns or lost_until_ns):
            from_ns = max(conversation.last_ns - TRANSIT_NS, lost_until_ns, goodbye_ns if link.farewell else 0)
            self._gap = OpenGap(from_ns, link.reason, conversation.connection)
            self.problem = f"connection ended: {link.reason}"

    def _on_frames(self, link: Link, conversation: Conversation, frames: list[Frame]) -> None:
        if conversation is self._over:
            return  # the gap that was opened covers them
        if self._gap is not None:
            self.close_gap(frames[0][0])
            self._attempts = 0
        commands = self._pipeline.process(conversation, frames)
        if self._pipeline.gaps:
            self._on_gaps()
        for command in commands:
            link.send(command)
