"""Run one service in the foreground: uvloop, signals, one task group, admin port, drain deadline, exit code."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
import structlog
import uvloop
from aiohttp import web

from ssmd.clock import iso, now_ns
from ssmd.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, FatalError, SsmdError
from ssmd.service_state import ServiceState, write_state
from ssmd.telemetry import exposition

DRAIN_S = 25.0
"""A service that was told to stop has this long; shorter than the supervisor's and Kubernetes' 30 s."""

CLOSE_S = 3.0
"""After the drain deadline: time for closing connections before the process leaves without ceremony."""

MAX_FILES = 65_536
SWITCH_S = 0.001
"""A thread that computes lets the event loop go on after this long, not after the interpreter's 5 ms: frames wait."""

SUPERVISED = "SSMD_STACK"
"""Environment variable that `ssmd up` gives to what it supervises."""

YOUNG_S = 20.0
FAILURE_PAUSE_S = 3.0
"""A supervised service that fails within `YOUNG_S` leaves only after this pause."""

_log = structlog.get_logger()


class Service(Protocol):
    """What can be run: opened already, told to stop by an event."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain and return. Raising means failure."""
        ...

    def health(self) -> dict[str, object]:
        """What an operator wants to know now; `status` is `ok` when the service does its job."""
        ...


OpenService: TypeAlias = Callable[[AsyncExitStack], Awaitable[Service]]
"""Opens the middleware into the stack and makes the service."""


def run_service(
    name: str, open_service: OpenService, home: Path, admin_host: str = "127.0.0.1", admin_port: int = 0
) -> int:
    """Run the service until SIGTERM, SIGINT or its failure; the exit code of `ssmd.errors`.

    A second signal does not wait for the drain. The reason of a failure is one line on stderr, the whole story is in
    the log.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    run = _Run(name, open_service, home, admin_host, admin_port)
    _allow_many_connections()
    sys.setswitchinterval(SWITCH_S)
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run.main())
    if SUPERVISED in os.environ and code not in (EXIT_DONE, EXIT_CONFIG) and time.monotonic() - began < YOUNG_S:
        # The supervisor restarts us at once, as it should after a kill. A failure that repeats must not become a storm
        # of connections to the exchange.
        time.sleep(FAILURE_PAUSE_S)
    return code


def _allow_many_connections() -> None:
    """As many open files as the system lets us have: the usual soft limit of 1,024 is one gateway's clients."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MAX_FILES) if hard > 0 else MAX_FILES, hard))


class _Run:
    """One service's life in this process."""

    def __init__(self, name: str, open_service: OpenService, home: Path, host: str, port: int) -> None:
        self.name = name
        self.home = home
        self.host = host
        self.port = port
        self.state = "starting"
        self.service: Service | None = None
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._open_service = open_service

    async def main(self) -> int:
        """Everything between the first and the last line of the log."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._on_signal, sign)
        try:
            async with AsyncExitStack() as admin:
                await self._open_admin(admin)
                self._write("starting")
                code = await self._live()
        except SsmdError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 the runtime's last line: a bug is logged whole and told in one line
            return self._failed(error)
        self._write("stopped", exit_code=code, health=self.service.health() if self.service else None)
        _log.info("stopped", exit_code=code)
        return code

    async def _live(self) -> int:
        """Open, work, drain; what takes too long is cancelled."""
        late = False
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work(), name=self.name)
            patience = tasks.create_task(self._patience(), name=f"{self.name} drain deadline")
            await asyncio.wait({work, patience}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                patience.cancel()
            else:
                late = patience.result()
                work.cancel()
                await self._close_in_time(work)
        return EXIT_FAILED if late else EXIT_DONE

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            self.service = await self._open_service(stack)
            # What exists now lives until the end: keep the collector from walking through it again and again.
            gc.collect()
            gc.freeze()
            self._write("running")
            _log.info("running", admin=f"http://{self.host}:{self.port}", pid=os.getpid())
            await self.service.run(self.stop)
        if not self.stop.is_set():
            raise FatalError(f"{self.name} ended without being told to", f"Look into its log: {self.home / 'log'}")

    async def _patience(self) -> bool:
        """Wait for the order to stop, then as long as a drain may take; true when a drain is cut short."""
        await self.stop.wait()
        if self.service is None:
            return False
        self._write("draining")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.hurry.wait()
        _log.error("drain cut short", after_s=DRAIN_S, second_signal=self.hurry.is_set())
        return True

    async def _close_in_time(self, work: asyncio.Task[None]) -> None:
        _, pending = await asyncio.wait({work}, timeout=CLOSE_S)
        if pending:
            _log.critical("does not close, leaving", after_s=CLOSE_S)
            self._write("failed", exit_code=EXIT_FAILED, error=f"{self.name} did not stop within {DRAIN_S + CLOSE_S} s")
            sys.stdout.flush()
            os._exit(EXIT_FAILED)

    def _on_signal(self, sign: signal.Signals) -> None:
        again = self.stop.is_set()
        if again:
            self.hurry.set()
        self.stop.set()
        _log.info("signal", signal=sign.name, again=again)

    def _failed(self, error: Exception) -> int:
        cause = root_cause(error)
        if isinstance(cause, SsmdError):
            code, message, hint = cause.exit_code, cause.message, cause.hint
            _log.error("failed", error=message, hint=hint, error_class=type(cause).__name__, exit_code=code)
        else:
            code, message = EXIT_BUG, f"This is a bug in ssmd: {type(cause).__name__}: {cause}"
            hint = f"The traceback is in the log of {self.name} (standard output, or {self.home / 'log'})"
            _log.error("bug", exc_info=error, exit_code=code)
        with contextlib.suppress(OSError):
            sys.stderr.write(f"ssmd {self.name}: {message}\n" + (f"  {hint}\n" if hint else ""))
        self._write("failed", exit_code=code, error=message, hint=hint)
        return code

    def _write(
        self,
        state: str,
        exit_code: int | None = None,
        error: str = "",
        hint: str = "",
        health: dict[str, Any] | None = None,
    ) -> None:
        self.state = state
        told = ServiceState(
            self.name, os.getpid(), state, self.host, self.port, iso(now_ns()), exit_code, error, hint, health
        )
        try:
            write_state(self.home, told)
        except OSError as problem:
            # A full disk must not end a service that may still be able to stream.
            _log.warning("state not written", state=state, error=str(problem))

    async def _open_admin(self, stack: AsyncExitStack) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.host, self.port)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise FatalError(f"cannot listen on {self.host}:{self.port}: {error.strerror}") from error
            _log.warning("admin port taken, using a free one", host=self.host, port=self.port)
            await web.TCPSite(runner, self.host, 0).start()
        self.host, self.port = runner.addresses[0][:2]

    async def _metrics(self, _request: web.Request) -> web.Response:
        body, content_type = exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _health(self, _request: web.Request) -> web.Response:
        health: dict[str, Any] = {"service": self.name, "state": self.state, "pid": os.getpid()}
        health |= self.service.health() if self.service is not None else {"status": "starting"}
        well = health.get("status", "ok") == "ok" and self.state == "running"
        return web.Response(
            body=msgspec.json.encode(health), status=200 if well else 503, content_type="application/json"
        )


def root_cause(error: BaseException) -> BaseException:
    """What an exception group is really about: its first error of ours, else its first error."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [root_cause(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, SsmdError)), leaves[0])
