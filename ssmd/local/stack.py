"""`ssmd up`: start the servers and services of an environment, watch them, stop them in order."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import NoReturn

from ssmd.errors import EXIT_DONE, EXIT_UNAVAILABLE, RefusedError, Unavailable
from ssmd.local import airflow_server, nats_server, valkey_server
from ssmd.local.airflow_access import prepare_access, shared_secrets, write_private
from ssmd.local.airflow_server import AirflowServer
from ssmd.local.airflow_start import AirflowStart
from ssmd.local.demo_key import DemoKey
from ssmd.local.home import Home, StackRecord
from ssmd.local.live import FirstTrade
from ssmd.local.plan import SERVICES, Plan, programs, storage_folder
from ssmd.local.ports import refuse_taken
from ssmd.local.postgres import PostgresServer
from ssmd.local.processes import MARK, ProcessId, identify
from ssmd.local.progress import Progress
from ssmd.local.readiness import answers, await_server, await_service, require_answer, require_writable, summary, works
from ssmd.local.supervisord import Control, Program, await_control, configuration, is_secret, launch
from ssmd.local.teardown import stop_stack
from ssmd.local.watch import Watch

SERVICE_READY_S = 25.0
_HURRY_AFTER_S = 0.5


class Interrupted(Exception):
    """A signal came while the stack was being started."""


class Stack:
    """One `ssmd up`: `run` is all there is to call.

    `migrate` brings the database at a URL to the present tables, `make_database` makes an empty one of a name beside
    it; `demo` is the key pair for a simulated exchange.
    """

    def __init__(
        self,
        plan: Plan,
        home: Home,
        progress: Progress,
        migrate: Callable[[str], None],
        demo: DemoKey | None,
        environ: Mapping[str, str],
        make_database: Callable[[str, str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._home = home
        self._progress = progress
        self._migrate = migrate
        self._demo = demo
        self._environ = dict(environ)
        self._make_database = make_database
        self._airflow: AirflowStart | None = None
        self._mark = secrets.token_hex(16)
        self._well = True
        self._stopping = False
        self._last_sigint = 0.0
        self._supervisord: ProcessId | None = None
        self._control: Control | None = None
        self._began = time.monotonic()

    def run(self, *, detach: bool = False) -> int:
        """Bring everything up, then watch until a signal (or return at once with `detach`); the exit code.

        Raises the error of whatever could not be started, with everything stopped again.
        """
        self._home.prepare()
        with self._home.locked():
            self._refuse_second()
            refuse_taken(self._plan.listeners)
            # a shell's background job inherits an ignored SIGINT, and must still end on it
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, self._on_signal)
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup ssmd up` outlives its terminal
                signal.signal(signal.SIGHUP, self._on_signal)
            keep = False
            try:
                self._bring_up()
                self._show_urls()
                self._start_airflow()
                if detach:
                    self._await_airflow()
                    keep = True
                    return EXIT_DONE if self._well else EXIT_UNAVAILABLE
                self._watch()
            except Interrupted:
                return EXIT_DONE
            finally:
                if keep:
                    self._write_record(up=None)
                else:
                    self._take_down()
                if self._control is not None:
                    self._control.close()

    # -- starting ---------------------------------------------------------------------------------------------------

    def _refuse_second(self) -> None:
        record = self._home.read_record()
        if record is None:
            return
        if record.supervisord.alive:
            raise RefusedError(
                f"{self._home.root} is already up (environment {record.environment}, {record.file})",
                "Run: ssmd status, or ssmd down first; another stack needs another SSMD_HOME and other ports.",
            )
        self._progress.line("the last stack here was not taken down; ending what is left of it")
        stop_stack(self._home, record, self._progress)

    def _bring_up(self) -> None:
        plan, home = self._plan, self._home
        self._progress.line(f"environment {plan.environment.name} · exchange: {plan.exchange} · state in {home.root}")
        folder = storage_folder(plan, home)
        if folder:
            with self._progress.step("storage", str(folder)):
                require_writable(folder)
        for listener in plan.external:
            with self._progress.step(listener.program, f"{listener.host}:{listener.port} (not ours to start)"):
                require_answer(listener)
        server = self._prepare_postgres()
        self._launch(server)
        self._start_servers(server)
        if plan.database_url:
            with self._progress.step("database", "tables are up to date"):
                self._migrate(plan.database_url)
        if plan.simulator:
            simulator = plan.simulator
            with self._progress.step("simulator", f"{simulator} ({plan.exchange})"):
                self._start("simulator")
                await_server("simulator", lambda: answers(simulator), self._controls(), home, self._pause)
        self._start_services()

    def _prepare_postgres(self) -> PostgresServer | None:
        address = self._plan.postgres
        if address is None:
            return None
        server = PostgresServer(self._home.postgres, address.host, address.port, self._plan.postgres_password)
        if not (self._home.postgres / "PG_VERSION").exists():
            with self._progress.step("postgres", "new data folder"):
                server.prepare()
        else:
            server.prepare()
        return server

    def _launch(self, server: PostgresServer | None) -> None:
        """Write the configuration and start supervisord with it."""
        home, plan = self._home, self._plan
        if plan.nats:
            text = nats_server.configuration(plan.nats.host, plan.nats.port, home.nats)
            (home.run / "nats.conf").write_text(text)
        if plan.valkey:
            (home.run / "valkey.conf").write_text(valkey_server.configuration(plan.valkey, home.run))
        if plan.airflow:
            self._configure_airflow(plan.airflow)
        variables = self._variables()
        self._given = sorted(filter(is_secret, variables))
        found = programs(plan, home, server, variables, self._demo)
        self._write_configuration(found)
        with self._progress.step("supervisor", str(home.config)):
            own_logs = [airflow_server.scheduler_log(home)] if plan.airflow else []
            self._supervisord = launch(home, variables, own_logs)
            self._write_record(up=identify(os.getpid()))
            await_control(self._controls(), self._supervisord, home)

    def _write_configuration(self, found: list[Program]) -> None:
        home = self._home
        self._socket = home.socket_path()
        self._socket.unlink(missing_ok=True)
        self._password = secrets.token_hex(16)
        self._names = [program.name for program in found]
        text = configuration(found, home, self._socket, self._password, root=os.geteuid() == 0)
        home.config.touch(mode=0o600)
        home.config.write_text(text)
        self._control = Control(self._socket, self._password)

    def _variables(self) -> dict[str, str]:
        """The environment of the stack: ours, its mark, its home, and the demo key where there is none."""
        variables = {name: value for name, value in self._environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        variables |= {MARK: self._mark, "SSMD_HOME": str(self._home.root)}
        if self._plan.simulator and self._demo:
            variables |= self._demo.variables(self._environ)
        if self._plan.airflow and self._plan.airflow.webhook:
            variables[airflow_server.WEBHOOK] = self._plan.airflow.webhook
        return variables

    def _start_servers(self, server: PostgresServer | None) -> None:
        plan, home, control = self._plan, self._home, self._controls()
        if server is not None:
            with self._progress.step("postgres", str(plan.postgres)):
                self._start("postgres")
                await_server("postgres", lambda: _is_ready(server), control, home, self._pause)
        if plan.nats:
            host, port = plan.nats
            with self._progress.step("nats", f"{plan.nats} (fsync every {nats_server.SYNC_INTERVAL})"):
                self._start("nats")
                await_server("nats", lambda: nats_server.greets(host, port), control, home, self._pause)
        if (cache := plan.valkey) is not None:
            with self._progress.step("valkey", f"{cache.host}:{cache.port} (at most {valkey_server.MAX_MEMORY})"):
                self._start("valkey")
                ready = partial(valkey_server.greets, cache.host, cache.port)
                await_server("valkey", ready, control, home, self._pause)

    def _start_services(self) -> None:
        """All at once: each can wait for the others, and the exchange's frames should not wait for anybody."""
        for name in SERVICES:
            self._start(name)
        deadline = time.monotonic() + SERVICE_READY_S
        for name in SERVICES:
            with self._progress.step(name) as step:
                health = await_service(name, self._controls(), self._home, self._pause, deadline)
                step.detail = summary(name, health)
                if not works(name, health):
                    self._well = False
                    step.mark = "○"
                    trouble = health.get("problem") or health.get("problems") or "it goes on trying"
                    step.detail = f"{health.get('status', '?')}: {trouble}"

    def _configure_airflow(self, server: AirflowServer) -> None:
        home = self._home
        for folder in (home.airflow, home.airflow / "logs", home.airflow / "plugins"):
            folder.mkdir(exist_ok=True)
        home.airflow.chmod(0o700)
        self._access, self._new_password = prepare_access(home, server.url, server.login)
        text = airflow_server.configuration(server, home, shared_secrets(home), self._access.username)
        write_private(home.airflow / "airflow.cfg", text.encode())

    def _start_airflow(self) -> None:
        """In the background: capture never waits for what runs its day."""
        server, url = self._plan.airflow, self._plan.database_url
        if server is None or url is None or self._make_database is None:
            return
        variables = self._variables()
        variables = {
            name: value for name, value in variables.items() if not (is_secret(name) or name.startswith("AIRFLOW"))
        } | airflow_server.own_variables(self._home, self._plan.file, variables)
        self._airflow = AirflowStart(
            server, self._home, self._access, lambda: Control(self._socket, self._password), variables,
            partial(self._make_database, url), self._progress.line,
        )  # fmt: skip
        self._airflow.start()

    def _await_airflow(self) -> None:
        """Until its first runs have ended, if these are the first."""
        if self._airflow is not None:
            while not self._airflow.ended:
                self._pause(0.1)
            self._well = self._well and self._airflow.well

    def _start(self, name: str) -> None:
        self._pause(0)
        self._controls().start(name)

    def _show_urls(self) -> None:
        for name, url in self._plan.urls.items():
            self._progress.line(f"  {name:<8} {url}")
        if self._plan.airflow:
            self._progress.line(f"  {'airflow':<8} {self._plan.airflow.url} (starting; {self._login()})")
        state = "everything is up" if self._well else "up, but not all is well (○)"
        self._progress.line(
            f"{state} after {time.monotonic() - self._began:.1f} s · stop with: ssmd down -f {self._plan.file}"
        )

    def _login(self) -> str:
        """How to come in; a password that was made just now is shown this once."""
        access, where = self._access, self._home.airflow_access
        word = access.password if self._new_password else f"in {where}"
        return f"user {access.username}, password {word}"

    def _watch(self) -> NoReturn:
        assert self._supervisord is not None
        with FirstTrade(self._plan.urls["stream"]) as trade:
            Watch(self._home, self._controls(), self._supervisord, self._progress, trade, self._began).run(self._pause)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _take_down(self) -> None:
        if self._airflow is not None:
            self._airflow.stop()
        record = self._home.read_record()
        if record is None or record.mark != self._mark:
            return
        began = time.monotonic()
        self._progress.line("stopping")
        # A person who presses Ctrl-C again means it; a second SIGTERM (`ssmd down`, a service manager) does not.
        stop_stack(self._home, record, self._progress, lambda: self._last_sigint > began + _HURRY_AFTER_S)
        self._progress.line(f"everything is stopped after {time.monotonic() - began:.1f} s")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if number == signal.SIGINT:
            self._last_sigint = time.monotonic()

    def _pause(self, seconds: float) -> None:
        """Sleep, and leave by Interrupted when a signal has come."""
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        if self._stopping:
            raise Interrupted

    # -- the record -------------------------------------------------------------------------------------------------

    def _write_record(self, up: ProcessId | None) -> None:
        assert self._supervisord is not None
        self._home.write_record(
            StackRecord(
                mark=self._mark,
                environment=self._plan.environment.name,
                file=str(self._plan.file),
                socket=str(self._socket),
                password=self._password,
                supervisord=self._supervisord,
                programs=self._names,
                urls=self._plan.urls,
                up=up,
                rest=self._plan.endpoints[1] if self._plan.endpoints else None,
                given=self._given,
            )
        )

    def _controls(self) -> Control:
        assert self._control is not None
        return self._control


def _is_ready(server: PostgresServer) -> bool:
    try:
        server.wait_ready(0.0)
    except Unavailable:
        return False
    return True
