"""The connector: keeps a connection to the exchange, and turns what comes into the raw archive and the live stream."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import NamedTuple

import structlog

from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.connector import link as links
from ssmd.connector.books import serve_books
from ssmd.connector.exchange import Exchange, Settings
from ssmd.connector.link import CredentialsRefused, Frame, Link
from ssmd.connector.markets import Markets
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import TRANSIT_NS, Conversation, Pipeline
from ssmd.connector.report import Report
from ssmd.connector.sealer import Sealer
from ssmd.connector.spool import Spool
from ssmd.errors import ConfigError, RateLimited, SsmdError, TransientError
from ssmd.feeds.interface import Mapper
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Transport
from ssmd.registry.interface import Registry

SYNC_EVERY_S = 0.03
"""Frames are durable within 50 ms: this and the duration of one fdatasync."""


_GOODBYE_S = 3.0
_DRAIN_STREAM_S = 8.0
_DRAIN_ARCHIVE_S = 20.0
_FIRST_RETRY_S = 0.2
_MAX_RETRY_S = 3.0
_MAX_PATIENCE_S = 3.0
_LONG_PATIENCE_S = 8.0
_PATIENT_AFTER = 40
"""After a minute or two of refusals (401, 429) it is asked less often; still often enough to be back in 10 s."""
_LATE_NS = NS_PER_S
"""A planned end is announced a second longer: an exchange may go on sending until it notices."""
_SUBSCRIBED_AFTER_S = 15.0

log = structlog.get_logger(component="connector")


class _OpenGap(NamedTuple):
    from_ns: int
    reason: str
    connection: str


class Connector:
    """One feed. `run` returns when everything is drained after `stop` was set."""

    def __init__(
        self, settings: Settings, exchange: Exchange, transport: Transport, storage: Storage, registry: Registry
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._transport = transport
        self._storage = storage
        self._registry = registry
        self._spool: Spool
        self._outbox: Outbox
        self._sealer: Sealer
        self._pipeline: Pipeline
        self._report: Report
        self._conversation: Conversation | None = None
        self._link: Link | None = None
        self._gap: _OpenGap | None = None
        self._markets = Markets(settings, exchange.markets, registry, self._add_tickers)
        self._last_requested: frozenset[str] = frozenset()
        self._connected_ns = 0
        self._problem = "starting"
        self._attempts = 0

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Capture until `stop`; then say goodbye, seal, flush and return (within about 20 s)."""
        settings = self._settings
        self._spool = Spool(settings.spool_folder, settings.spool_max_bytes)
        try:
            publisher = await self._transport.publisher(settings.feed)
            self._outbox = Outbox(self._spool, publisher)
            self._sealer = Sealer(
                settings.feed, settings.raw_bucket, self._spool, self._outbox, self._storage, self._registry
            )
            self._pipeline = Pipeline(
                settings.feed,
                self._exchange.decoder,
                self._spool,
                self._outbox,
                max_segment_bytes=settings.seal_bytes,
                publish_raw=settings.publish_raw,
                on_segment_end=self._sealer.add,
                make_room=self._sealer.make_room,
            )
            self._report = Report(settings.feed, self._registry)
            self._resume()
            await self._work(stop)
        finally:
            self._spool.close()

    async def _work(self, stop: asyncio.Event) -> None:
        background: list[tuple[str, Callable[[], Coroutine[None, None, None]]]] = [
            ("outbox", self._outbox.run),
            ("sealer", self._sealer.run),
            ("sync", self._keep_durable),
            ("tick", self._tick),
            ("report", self._write_reports),
            ("markets", self._markets.follow),
            ("books", self._serve_books),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work(), name=name) for name, work in background]
                try:
                    await self._stay_connected(stop)
                    await self._drain()
                finally:
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures

    def _resume(self) -> None:
        """What the last run left: where its coverage ended is where the first gap begins."""
        state = self._spool.state
        covered_ns, connection = self._spool.covered()
        if covered_ns:
            reason, margin = ("planned_teardown", 0) if state.clean else ("startup", TRANSIT_NS)
            self._gap = _OpenGap(covered_ns - margin, reason, connection)
        if self._spool.leftovers:
            log.info("spool left from the last run", segments=len(self._spool.leftovers))
        state.clean = False
        self._spool.save_state()

    # -- connections --------------------------------------------------------------------------------------------

    async def _stay_connected(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._one_session(stop)
            except CredentialsRefused as error:
                delay = self._refused(error)
            except RateLimited as error:
                self._note_failure("rate_limited", error)
                delay = self._patience()
            except TransientError as error:
                self._note_failure("", error)
                delay = min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self._attempts, 10))
            else:
                delay = _FIRST_RETRY_S
            self._attempts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _note_failure(self, reason: str, error: SsmdError) -> None:
        self._problem = error.message
        if self._gap is not None and reason:
            self._gap = self._gap._replace(reason=reason)
        if self._attempts in (0, 3, 10) or self._attempts % 50 == 0:
            log.warning("exchange unavailable", error=error.message, attempt=self._attempts)

    def _refused(self, error: CredentialsRefused) -> float:
        """Credentials that never worked end the process; ones that did are tried again, ever more patiently."""
        if self._spool.state.accepted_key != self._exchange.credentials().fingerprint:
            prefix = f"SSMD_KEY_{self._exchange.key_name.upper().replace('-', '_')}"
            raise ConfigError(
                f"{error.message}; key '{self._exchange.key_name}'",
                f"Run: export {prefix}_API_KEY=<key id> {prefix}_API_SECRET_FILE=<PEM file>, and start again",
            ) from error
        self._problem = error.message
        log.error("credentials that worked before are refused", error=error.message, attempt=self._attempts)
        return self._patience()

    def _patience(self) -> float:
        longest = _MAX_PATIENCE_S if self._attempts < _PATIENT_AFTER else _LONG_PATIENCE_S
        return min(longest, 2.0 ** min(self._attempts, 4))

    async def _one_session(self, stop: asyncio.Event) -> None:
        connection = f"c-{now_ns() // 1_000_000:x}-{token_hex(3)}"
        exchange = self._exchange
        credentials = exchange.credentials()
        mapper = exchange.mapper(connection)
        self._conversation = Conversation(connection, mapper, exchange.session(mapper, self._settings.selects))
        session = self._conversation.session
        try:
            link = await links.connect(exchange.url, credentials.headers(), self._on_frames)
        except BaseException:
            self._conversation = None
            raise
        self._link = link
        self._connected_ns = now_ns()
        self._problem = ""
        self._spool.state.accepted_key = credentials.fingerprint
        tickers = self._markets.tickers | self._last_requested
        log.info("connected to the exchange", connection=connection, tickers=len(tickers))
        self._send(link, session.start(sorted(tickers)))
        goodbye_ns = 0
        stopping = asyncio.create_task(stop.wait())
        closed = asyncio.create_task(link.closed.wait())
        try:
            await asyncio.wait((stopping, closed), return_when=asyncio.FIRST_COMPLETED)
            if not link.closed.is_set():
                link.reason = "planned_teardown"
                goodbye_ns = now_ns()
                link.close()
                with suppress(TimeoutError):
                    await asyncio.wait_for(link.closed.wait(), _GOODBYE_S)
                link.drop("planned_teardown")
        finally:
            stopping.cancel()
            closed.cancel()
            self._session_ended(link, goodbye_ns)
        if link.failure is not None:
            raise link.failure

    def _session_ended(self, link: Link, goodbye_ns: int) -> None:
        """Open the gap: from the last frame, or from our goodbye if the exchange answered it and so all had arrived."""
        conversation, self._conversation, self._link = self._conversation, None, None
        self._connected_ns = 0
        assert conversation is not None
        self._last_requested = conversation.session.requested_tickers
        log.info("connection ended", connection=conversation.connection, reason=link.reason, frames=conversation.n)
        lost_until_ns = now_ns() if self._pipeline.losing else 0
        self._pipeline.close_full_gap(conversation.connection, lost_until_ns)
        if conversation.last_ns or lost_until_ns:
            from_ns = max(conversation.last_ns - TRANSIT_NS, lost_until_ns, goodbye_ns if link.farewell else 0)
            self._gap = _OpenGap(from_ns, link.reason, conversation.connection)
            self._problem = f"connection ended: {link.reason}"

    def _on_frames(self, link: Link, frames: list[Frame]) -> None:
        conversation = self._conversation
        assert conversation is not None
        if self._gap is not None:
            self._close_gap(frames[0][0])
            self._attempts = 0
        commands = self._pipeline.process(conversation, frames)
        if self._pipeline.gaps:
            self._pass_on_gaps()
        if commands:
            self._send(link, commands)

    def _close_gap(self, to_ns: int) -> None:
        gap, self._gap = self._gap, None
        assert gap is not None
        self._pipeline.record_gap(
            Gap(self._settings.feed, gap.connection, None, min(gap.from_ns, to_ns), to_ns, gap.reason)
        )
        self._pass_on_gaps()

    def _pass_on_gaps(self) -> None:
        for gap in self._pipeline.gaps:
            self._sealer.add_gap(gap)
            self._report.gap(gap)
        self._pipeline.gaps.clear()

    def _send(self, link: Link, commands: Iterable[bytes]) -> None:
        for command in commands:
            link.send(command)

    # -- background ---------------------------------------------------------------------------------------------

    async def _keep_durable(self) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            if self._spool.dirty:
                await asyncio.to_thread(self._spool.sync)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = now_ns()
            current = self._spool.current
            if current is not None and (
                now - current.began_ns >= self._settings.seal_s * NS_PER_S or day_of(now) != current.day
            ):
                self._pipeline.end_segment()
            conversation, link = self._conversation, self._link
            if conversation is not None and link is not None:
                self._send(link, conversation.session.tick(now))
                for problem in conversation.session.take_problems():
                    log.warning("exchange", problem=problem.message, reconnect=problem.reconnect)
                    self._problem = problem.message
                    if problem.reconnect:
                        link.drop("connection_lost")
                if conversation.last_ns:  # the last frame's, not the latest: the clock may have been put back
                    self._spool.state.covered_ns = conversation.last_ns
                    self._spool.state.connection = conversation.connection
            self._outbox.settle()
            self._sealer.trim()
            self._spool.save_state()
            connected = conversation if link is not None else None
            self._report.measure(self._pipeline, self._outbox, self._spool, connected, self._sealer)

    async def _write_reports(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            await self._report.flush(self._pipeline, self._sealer)

    def _add_tickers(self, tickers: list[str]) -> None:
        conversation, link = self._conversation, self._link
        if conversation is not None and link is not None:
            self._send(link, conversation.session.add_tickers(tickers))

    async def _serve_books(self) -> None:
        def mapper() -> Mapper | None:
            return self._conversation.mapper if self._conversation is not None else None

        await serve_books(self._transport, self._settings.feed, mapper)

    # -- the end ------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Seal and flush: a gap from the last frame to now says that capture ended here."""
        now = now_ns()
        state = self._spool.state
        if self._gap is not None:
            self._close_gap(now + _LATE_NS)
        state.covered_ns, state.clean = now, True
        self._pipeline.end_segment()
        await _until(lambda: self._outbox.empty, _DRAIN_STREAM_S)
        if not self._outbox.empty:
            log.warning("broker behind at the end; the rest is published after the next start")
        await _until(lambda: self._sealer.idle, _DRAIN_ARCHIVE_S - _DRAIN_STREAM_S)
        if not self._sealer.idle:
            log.warning("storage or registry behind at the end; the rest is archived after the next start")
        self._sealer.trim()
        await self._report.flush(self._pipeline, self._sealer)

    def health(self) -> dict[str, object]:
        """For /health and `ssmd status`."""
        conversation = self._conversation
        connected = self._connected_ns > 0
        if not hasattr(self, "_pipeline"):
            return {"status": "starting"}
        trouble = dict(self._sealer.trouble)
        if self._pipeline.losing:
            trouble["spool"] = "the spool is full, frames are being lost; free some disk space"
        if conversation and connected and now_ns() - self._connected_ns > _SUBSCRIBED_AFTER_S * NS_PER_S:
            session = conversation.session
            if session.requested_tickers and not session.subscribed_tickers:
                trouble["exchange"] = f"connected, but no book is subscribed: {self._problem or 'no answer'}"
        if self._outbox.behind:
            trouble["stream"] = "the broker is behind; frames are archived and will be published"
        return {
            "status": "ok" if connected and not trouble else "degraded",
            "connected": connected,
            "problem": self._problem,
            "connection": conversation.connection if conversation else "",
            "frames": sum(self._pipeline.received.values()),
            "last_frame": iso(conversation.last_ns) if conversation and conversation.last_ns else None,
            "published": self._pipeline.published,
            "tickers": len(conversation.session.requested_tickers) if conversation else 0,
            "gaps": self._report.gap_count,
            "spool_bytes": self._spool.closed_bytes + self._spool.offset,
            "trouble": trouble,
        }


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition() and loop.time() < deadline:  # noqa: ASYNC110 - conditions of several parts, at the end only
        await asyncio.sleep(0.02)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure that ended the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
