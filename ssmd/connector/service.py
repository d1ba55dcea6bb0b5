"""The connector: keeps a connection to the exchange, and turns what comes into the raw archive and the live stream."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine

import msgspec
import structlog

from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.connector.books import serve_books
from ssmd.connector.connections import Connections, OpenGap
from ssmd.connector.exchange import Exchange, Settings
from ssmd.connector.heard import Heard
from ssmd.connector.keys import Keys
from ssmd.connector.markets import Markets
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Pipeline
from ssmd.connector.predecessor import Predecessor, read_predecessor
from ssmd.connector.report import Report
from ssmd.connector.role import Role
from ssmd.connector.sealer import Sealer
from ssmd.connector.spool import Position, Spool
from ssmd.connector.standby import Standby
from ssmd.connector.takeover import Readiness, TakenOver, Takeover
from ssmd.errors import TransientError
from ssmd.feeds.interface import Mapper
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Transport
from ssmd.registry.interface import Registry
from ssmd.registry.patient import PatientRegistry

SYNC_EVERY_S = 0.03
"""Frames are durable within 50 ms: this and the duration of one fdatasync."""


_DRAIN_STREAM_S = 8.0
_DRAIN_ARCHIVE_S = 20.0
_LATE_NS = NS_PER_S
"""A planned end is announced a second longer: an exchange may go on sending until it notices."""
_SUBSCRIBED_AFTER_S = 15.0
_ASK_REGISTRY_S = 15.0
_BOOKS_AFTER_S = 60.0
"""A connection that is open for so long has the books that it will get."""
_SUCCESSION_S = 20.0
"""So long a connector that drains waits for the other one to go on where it ended."""
_TAKEOVER_S = 5.0
"""So long a takeover may take that has begun when we are to end."""
_RECENT = 6  # ticks: that far back another connector finds what was published last

log = structlog.get_logger(component="connector")


class Connector:
    """One feed. `run` returns when everything is drained after `stop` was set."""

    def __init__(
        self, settings: Settings, exchange: Exchange, transport: Transport, storage: Storage, registry: Registry
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._transport = transport
        self._storage = storage
        self._registry = PatientRegistry(registry)
        self._spool: Spool
        self._outbox: Outbox
        self._sealer: Sealer
        self._pipeline: Pipeline
        self._report: Report
        self._keys: Keys
        self._connections: Connections
        self._heard: Heard
        self._role: Role
        self._recent: deque[Position] = deque(maxlen=_RECENT)
        self._publishing = asyncio.Event()
        self._taken_over: TakenOver | None = None
        self._markets = Markets(settings, exchange, self._registry, self._add_tickers, self._drop_tickers)

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Capture until `stop`; then say goodbye, seal, flush and return (within about 20 s)."""
        settings = self._settings
        self._spool = Spool(settings.spool_folder, settings.spool_max_bytes)
        self._role = Role(settings.feed, settings.spool_folder)
        try:
            await self._role.take()
            publisher = await self._transport.publisher(settings.feed)
            self._outbox = Outbox(self._spool, publisher)
            self._sealer = Sealer(
                settings.feed, settings.raw_bucket, self._spool, self._outbox, self._storage, self._registry,
                settings.name,
            )  # fmt: skip
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
            self._heard = Heard(settings.feed, self._pipeline, self._registry)
            self._keys = Keys(settings.feed, self._exchange, self._spool.state)
            self._connections = Connections(
                settings, self._exchange, self._pipeline, self._keys, lambda: self._markets.tickers, self._pass_on_gaps
            )
            await self._resume()
            await self._work(stop)
        finally:
            self._role.release()
            self._spool.close()

    async def _work(self, stop: asyncio.Event) -> None:
        background: list[tuple[str, Callable[[], Coroutine[None, None, None]]]] = [
            ("outbox", self._outbox.run),
            ("sealer", self._sealer.run),
            ("sync", self._keep_durable),
            ("tick", self._tick),
            ("report", self._write_reports),
            ("markets", self._markets.follow),
            ("keys", self._connections.follow_keys),
            ("heard", self._heard.follow),
            ("books", self._serve_books),
            ("role", self._follow_role),
            ("registry", self._watch_registry),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work(), name=name) for name, work in background]
                try:
                    await self._connections.stay_connected(stop)
                    by_name = {task.get_name(): task for task in tasks}
                    await _ended(by_name["books"])
                    await self._end_role(by_name["role"])
                    await self._drain()
                finally:
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures

    async def _resume(self) -> None:
        """What the last run left: where its coverage ended is where the first gap begins."""
        state = self._spool.state
        if self._spool.leftovers:
            log.info("spool left from the last run", segments=len(self._spool.leftovers))
        if not self._role.active:
            self._outbox.skip_leftovers()
            parts = self._exchange
            self._pipeline.standby = Standby(parts.decoder, parts.mapper, self._pipeline.render)
        elif (folder := self._role.predecessor()) is not None:
            self._outbox.skip_leftovers()
            old = await asyncio.to_thread(read_predecessor, folder, self._settings.feed)
            self._pipeline.publish(old.unsent)
            self._continue(old)
        else:
            covered_ns, connection = self._spool.covered()
            self._open_gap(Predecessor(covered_ns, connection, state.clean))
        state.clean, state.recent = False, self._spool.place
        self._recent.append(state.recent)
        self._spool.save_state()
        if self._role.active:
            self._role.announce()
            self._publishing.set()

    def _continue(self, old: Predecessor) -> None:
        """Go on where another connector ended: what stands in our own spool so far says nothing of how far it came."""
        self._open_gap(old)
        state = self._spool.state
        state.covered_ns, state.connection, state.ended_n = old.covered_ns, old.connection, old.ended_n
        state.clean, state.counts_from = False, self._spool.place

    def _open_gap(self, old: Predecessor) -> None:
        if old.covered_ns:
            self._connections.open_gap(OpenGap(old.ended_ns, old.gap_reason, old.connection))

    async def _follow_role(self) -> None:
        """Stand by until the other connector is gone; then take over."""
        if self._role.active:
            return
        await self._role.become_active()
        takeover = Takeover(
            self._settings.feed, self._pipeline, self._role.predecessor(), self._readiness, self._connections.abandon
        )
        await takeover.look_back()
        if not await takeover.run():
            self._connections.take_gap()
            self._continue(takeover.old)
            self._connections.hurry()
        self._pass_on_gaps()
        self._spool.save_state()
        self._role.announce()  # not before: after a crash the next one begins where the old one ended
        self._taken_over = takeover.outcome()
        self._publishing.set()

    def _readiness(self) -> Readiness:
        connection = self._connections.current
        if connection is None:
            return Readiness(None, None)
        conversation = connection.conversation
        session = conversation.session
        missing = session.requested_tickers - session.heard_tickers
        if now_ns() - connection.opened_ns > _BOOKS_AFTER_S * NS_PER_S:
            return Readiness(conversation, ())
        if not self._markets.listed:
            return Readiness(conversation, None)
        return Readiness(conversation, tuple(sorted(missing)))

    def _pass_on_gaps(self) -> None:
        for gap in self._pipeline.gaps:
            self._sealer.add_gap(gap)
            self._report.gap(gap)
        self._pipeline.gaps.clear()
        for handover in self._pipeline.handovers:
            self._sealer.add_handover(handover)
        self._pipeline.handovers.clear()

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
            self._follow_protocol(now)
            self._outbox.settle()
            self._keep_recent()
            self._sealer.trim()
            self._spool.save_state()
            connection = self._connections.current
            conversation = connection.conversation if connection else None
            self._report.measure(self._pipeline, self._outbox, self._spool, conversation, self._sealer)
            self._count_heard(now)

    def _keep_recent(self) -> None:
        """Let a connector that stands by find what was published in the last seconds in which something was."""
        if self._spool.place != self._recent[-1]:
            self._recent.append(self._spool.place)
        self._spool.state.recent = self._recent[0]
        stands_by = self._role.active and self._role.someone_stands_by()
        self._sealer.keep_from = self._spool.state.recent.segment if stands_by else None

    def _count_heard(self, now: int) -> None:
        connection = self._connections.current
        self._heard.listed(self._markets.take_written())
        self._heard.measure(
            connection.conversation.session.requested_tickers if connection else self._connections.requested, now
        )

    def _follow_protocol(self, now: int) -> None:
        """The session's regular turn: what it asks for, what it found out, and how far capture has come."""
        connection = self._connections.current
        if connection is None:
            return
        session, conversation = connection.conversation.session, connection.conversation
        connection.send(session.tick(now))
        self._markets.ended(session.take_ended())
        for problem in session.take_problems():
            log.warning("exchange", problem=problem.message, reconnect=problem.reconnect)
            self._connections.problem = problem.message
            if problem.reconnect:
                connection.link.drop("connection_lost")
        if conversation.last_ns:  # the last frame's, not the latest: the clock may have been put back
            self._spool.state.covered_ns = conversation.last_ns
            self._note_last_frame()

    def _note_last_frame(self) -> None:
        if self._pipeline.last_frame is not None:
            self._spool.state.connection, self._spool.state.ended_n = self._pipeline.last_frame

    async def _write_reports(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            await self._report.flush(self._pipeline, self._sealer)

    async def _watch_registry(self) -> None:
        """Notice soon, from the start on, when the database is away or refuses us: capture goes on without it."""
        while True:
            with contextlib.suppress(TransientError):  # the registry tells of its troubles itself
                await asyncio.to_thread(self._registry.ping)
            await asyncio.sleep(_ASK_REGISTRY_S)

    def _add_tickers(self, tickers: list[str]) -> None:
        connection = self._connections.current
        if connection is not None:
            connection.send(connection.conversation.session.add_tickers(tickers))

    def _drop_tickers(self, tickers: list[str]) -> None:
        connection = self._connections.current
        if connection is not None:
            connection.send(connection.conversation.session.drop_tickers(tickers))
        self._connections.requested -= frozenset(tickers)

    async def _serve_books(self) -> None:
        def mapper() -> Mapper | None:
            connection = self._connections.current
            return connection.conversation.mapper if connection is not None else None

        await self._publishing.wait()
        await serve_books(self._transport, self._settings.feed, mapper)

    # -- the end ------------------------------------------------------------------------------------------------

    async def _end_role(self, following: asyncio.Task[None]) -> None:
        """A takeover that has begun is finished; one that has not does not begin: another connector may."""
        if self._role.active:
            await asyncio.wait({following}, timeout=_TAKEOVER_S)
        await _ended(following)
        if not self._publishing.is_set():
            self._connections.take_gap()  # the end of the one before is where the next one's gap begins
            self._role.release()

    async def _drain(self) -> None:
        """Seal and flush: a gap from the last frame to now says that capture ended here, unless another goes on."""
        now = now_ns()
        state = self._spool.state
        succession = self._role.active and self._role.someone_stands_by()
        gap = self._connections.take_gap() if succession else None
        self._connections.close_gap(now + _LATE_NS)
        state.covered_ns, state.clean = gap.from_ns if gap else now, True
        self._note_last_frame()
        self._pipeline.end_segment()
        await _until(lambda: self._outbox.empty, _DRAIN_STREAM_S)
        if succession:
            await self._hand_over()
        elif not self._outbox.empty:
            log.warning("broker behind at the end; the rest is published after the next start")
        await _until(lambda: self._sealer.idle, _DRAIN_ARCHIVE_S - _DRAIN_STREAM_S)
        if not self._sealer.idle:
            log.warning("storage or registry behind at the end; the rest is archived after the next start")
        self._sealer.trim()
        self._count_heard(now)
        await asyncio.gather(self._report.flush(self._pipeline, self._sealer), self._heard.record())

    async def _hand_over(self) -> None:
        """Let the other connector go on; what is in the spool stays there until it has looked at it."""
        self._outbox.settle()
        self._sealer.keep_from = self._spool.state.recent.segment
        self._spool.save_state()
        self._role.release()
        await _until(lambda: self._role.succeeded or not self._role.someone_stands_by(), _SUCCESSION_S)
        log.info("handed over" if self._role.succeeded else "nobody took over yet", feed=self._settings.feed)
        self._sealer.keep_from = None

    def health(self) -> dict[str, object]:
        """For /health and `ssmd status`."""
        if not hasattr(self, "_connections"):
            return {"status": "starting"}
        connection, problem = self._connections.current, self._connections.problem
        conversation = connection.conversation if connection else None
        trouble = dict(self._sealer.trouble)
        if self._registry.problem:
            trouble["registry"] = self._registry.problem
        if self._pipeline.losing:
            trouble["spool"] = "the spool is full, frames are being lost; free some disk space"
        if connection and now_ns() - connection.opened_ns > _SUBSCRIBED_AFTER_S * NS_PER_S:
            session = connection.conversation.session
            if session.requested_tickers and not session.subscribed_tickers:
                trouble["exchange"] = f"connected, but no book is subscribed: {problem or 'no answer'}"
        if self._outbox.behind:
            trouble["stream"] = "the broker is behind; frames are archived and will be published"
        if self._keys.problem:
            trouble["key"] = self._keys.problem
        return {
            "status": "ok" if connection and not trouble else "degraded",
            "role": self._role.name,
            "books_ready": self._readiness().missing == (),
            "takeover": self._taken_over and msgspec.to_builtins(self._taken_over),
            "connected": connection is not None,
            "problem": problem,
            "connection": conversation.connection if conversation else "",
            "frames": sum(self._pipeline.received.values()),
            "last_frame": iso(conversation.last_ns) if conversation and conversation.last_ns else None,
            "published": self._pipeline.published,
            "tickers": len(conversation.session.requested_tickers) if conversation else 0,
            "never_heard": self._heard.never,
            "left_out": self._markets.left_out,
            "gaps": self._report.gap_count,
            "last_gap": self._sealer.last_gap,
            "last_segment": ", ".join(self._sealer.last_sealed),
            "waiting_segments": self._sealer.objects_waiting,
            "spool_bytes": self._spool.closed_bytes + self._spool.offset,
            "trouble": trouble,
        }


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})


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
