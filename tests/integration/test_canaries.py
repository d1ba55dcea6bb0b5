"""Twenty planted secrets, given in every way and kept in every store: none of them shows anywhere afterwards."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssmd.cli.main import main
from ssmd.errors import SsmdError
from ssmd.keys.secret import SecretValue
from ssmd.keys.stores import EnvironmentStore, LocalStore, MountedStore
from ssmd.registry.postgres import prepare_database
from tests.databases import Database as Server
from tests.servers import free_port, program
from tests.unit.keys.certificates import certificate, private_pem

pytestmark = pytest.mark.integration

CANARIES = [f"canary-{number:02d}-q7Zx" for number in range(19)]
FLAG, FILE, VARIABLE, STDIN, ROTATED, DATABASE, WRONG_DATABASE, BROKER, WRONG_BROKER, SEALED = CANARIES[:10]
BROKEN_PEM, NO_FIELD, POSITIONAL, WITH_NUL, IN_URL, NO_KEY, TYPED_WRONG, FROM_FILE_VARIABLE, MOUNTED = CANARIES[10:]

ENVIRONMENT = """
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: canary}}
spec:
  keys:
    kalshi: {{type: api_key, fields: [api_key, api_secret], rotation_days: 90}}
    postgres: {{type: database, fields: [host, port, database, username, password]}}
    nats: {{type: transport, fields: [username, password]}}
    hook: {{type: webhook, required: false, fields: [token, other]}}
    storage: {{type: storage, required: false, fields: [access_key, secret_key]}}
  feed: kalshi
  endpoints: {{ws: "ws://127.0.0.1:{closed}/trade-api/ws/v2", rest: "http://127.0.0.1:{closed}/trade-api/v2"}}
  database: $key:postgres
  middleware:
    transport: {{type: nats, url: "nats://127.0.0.1:{nats}", credentials: $key:nats}}
    storage: {{type: local, path: storage}}
  symbols: {{sync: false, tickers: [T-1]}}
  gateway: {{port: {gateway}, metrics_port: {metrics}}}
"""


@contextlib.contextmanager
def guarded_role(server: Server, password: str) -> Iterator[str]:
    """A database user that needs a password."""
    hba = Path(str(server.run("SHOW hba_file")[0][0]))
    before = hba.read_text()
    hba.write_text("host all guarded all scram-sha-256\n" + before)
    server.run(f"CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{password}'")
    server.run("SELECT pg_reload_conf()")
    try:
        yield "guarded"
    finally:
        hba.write_text(before)
        server.run("SELECT pg_reload_conf()")
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'")
        server.run("DROP ROLE guarded")


@contextlib.contextmanager
def guarded_broker(folder: Path, port: int, password: str) -> Iterator[None]:
    """A NATS server that needs a password; its settings lie outside what is searched."""
    folder.mkdir()
    config: dict[str, object] = {"port": port, "host": "127.0.0.1", "jetstream": {"store_dir": str(folder / "js")}}
    config["authorization"] = {"user": "ssmd", "password": password}
    (folder / "nats.conf").write_text(json.dumps(config))
    process = subprocess.Popen([program("nats-server"), "-c", str(folder / "nats.conf"), "-l", str(folder / "log")])
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


class Search:
    """Everything that was seen, by where; says which canaries are in it."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def add(self, where: str, text: str) -> None:
        self.seen[where] = self.seen.get(where, "") + text

    def found(self, needles: list[str]) -> list[tuple[str, str]]:
        return [(where, needle) for where, text in self.seen.items() for needle in needles if needle in text]


def run_service(
    search: Search, folder: Path, name: str, environ: dict[str, str], audited: Callable[[str], bool] | None
) -> None:
    """Run a service until it works and is `audited` (None: until it says that it cannot), look at it, and stop it."""
    log = folder / f"{name}.out"
    command = [sys.executable, "-m", "ssmd", "run", name, "--env", str(folder / "environments" / "c.yaml")]
    with log.open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, env=environ)
    deadline = time.monotonic() + (60 if audited else 6)
    while time.monotonic() < deadline and process.poll() is None and '"msg": "running"' not in log.read_text():
        time.sleep(0.1)
    if audited:
        assert process.poll() is None, (folder / f"{name}.err").read_text()
        line = next(line for line in log.read_text().splitlines() if '"msg": "running"' in line)
        admin = json.loads(line)["admin"]
        while not audited(f"system:{name}"):
            assert time.monotonic() < deadline, f"{name} reads keys without an audit row"
            time.sleep(0.1)
        for page in ("metrics", "health"):
            try:
                with urllib.request.urlopen(f"{admin}/{page}", timeout=10) as answer:
                    search.add(f"{name} /{page}", answer.read().decode())
            except urllib.error.HTTPError as error:  # not well: its exchange is away
                search.add(f"{name} /{page}", error.read().decode())
                error.close()
        search.add("ps", Path(f"/proc/{process.pid}/cmdline").read_text())
    process.send_signal(signal.SIGTERM)
    while not audited and process.poll() is None and time.monotonic() < deadline + 40:
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # asked again, it hurries: it has nothing to finish
    process.wait(40)
    search.add(f"{name} log", log.read_text() + (folder / f"{name}.err").read_text())


def dump(server: Server, name: str) -> str:
    """Every row of every table."""
    tables = server.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)
    return "\n".join(f"{table}: {server.run(f'SELECT t::text FROM {table} t', name)}" for (table,) in tables)


def test_no_planted_secret_shows_anywhere(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, search = tmp_path / "work", Search()
    (folder / "environments").mkdir(parents=True)
    nats, database = free_port(), postgres.fresh().rpartition("/")[2]
    text = ENVIRONMENT.format(closed=free_port(), nats=nats, gateway=free_port(), metrics=free_port())
    (folder / "environments" / "c.yaml").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SSMD_HOME", str(folder / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)
    # the password is wrong on purpose: no need to wait half a minute for the server
    monkeypatch.setattr("ssmd.registry.postgres.prepare_database", partial(prepare_database, wait_s=2))
    given = tmp_path / "given"  # what the operator has: not searched
    given.mkdir()
    pem = private_pem(Ed25519PrivateKey.generate())
    canaries = [*CANARIES, pem.splitlines()[1]]
    assert len(set(canaries)) == 20

    def ssmd(*arguments: str, stdin: str = "") -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(arguments)
        said = capfd.readouterr()
        search.add(f"stdout of {' '.join(arguments[:2])}", said.out)
        search.add(f"stderr of {' '.join(arguments[:2])}", said.err)
        return code

    def audited(actor: str) -> bool:
        return bool(postgres.run(f"SELECT 1 FROM key_audit_log WHERE actor = '{actor}' LIMIT 1", database))

    def file(name: str, content: str) -> str:
        (given / name).write_text(content)
        return str(given / name)

    with guarded_role(postgres, DATABASE) as role, guarded_broker(tmp_path / "broker", nats, BROKER):
        # while its own key is missing or wrong, the database is away
        assert ssmd("key", "set", "canary", "kalshi", "--api-key", FLAG) == 0
        assert ssmd("key", "set", "canary", "kalshi", "--from-file", f"api_key={file('k', FILE)}") == 0
        place = ["--host", "127.0.0.1", "--port", str(postgres.port), "--database", database, "--username", role]
        assert ssmd("key", "set", "canary", "postgres", *place, "--stdin", "password", stdin=WRONG_DATABASE) == 0
        for command in ("list", "verify", "export", "audit"):
            ssmd("key", command, "canary")
        ssmd("env", "validate", "environments/c.yaml")
        ssmd("env", "apply", "environments/c.yaml", "--yes")
        ssmd("doctor", "--env", "environments/c.yaml")
        ssmd("db", "migrate", "--env", "environments/c.yaml")
        monkeypatch.setenv("MY_PASSWORD", DATABASE)
        assert ssmd("key", "rotate", "canary", "postgres", "--from-env", "MY_PASSWORD") == 0
        # ways in, and slips
        assert ssmd("key", "set", "canary", "nats", "--username", "ssmd", "--password", "-", stdin=WRONG_BROKER) == 0
        environ = {**os.environ, "SSMD_HOME": str(folder / "home")}
        assert ssmd("key", "set", "canary", "kalshi", "--from-file", f"api_secret={file('p', pem)}") == 0
        run_service(search, folder, "archiver", environ, None)
        assert ssmd("key", "rotate", "canary", "nats", "--stdin", "password", stdin=BROKER) == 0
        monkeypatch.setenv("APP_TOKEN", VARIABLE)
        assert ssmd("key", "set", "canary", "hook", "--from-env", "APP_TOKEN", "--other", ROTATED) == 0
        assert ssmd("key", "rotate", "canary", "hook", "--stdin", "token", stdin=STDIN) == 0
        broken = f"-----BEGIN PRIVATE KEY-----\n{BROKEN_PEM}\n-----END PRIVATE KEY-----\n"
        assert ssmd("key", "rotate", "canary", "kalshi", "--api-secret", broken) == 2
        assert ssmd("key", "set", "canary", "hook", "--tokn", NO_FIELD) == 2
        assert ssmd("key", "set", "canary", "hook", POSITIONAL) == 2
        for option in ("--from-file", "--from-env", "--stdin"):
            for misplaced in (POSITIONAL, f"token={POSITIONAL}", f"{POSITIONAL}=", f"{POSITIONAL}=PATH"):
                assert ssmd("key", "set", "canary", "hook", option, misplaced) == 2
        assert ssmd("key", "set", "canary", "hook", "--token", "\x00" + WITH_NUL) == 2
        assert ssmd("key", "set", "canary", "hok", "--token", NO_KEY) == 2
        assert ssmd("key", "sett", "canary", "hook", "--token", TYPED_WRONG) == 2
        sealed = ["--store", "kubernetes", "--cert", file("cert", certificate().decode()), "--output", "sealed.yaml"]
        assert ssmd("key", "set", "canary", "storage", "--access-key", "a", "--secret-key", SEALED, *sealed) == 0
        # what services and commands do with them
        environ |= {"SSMD_KEY_HOOK_TOKEN_FILE": file("t", FROM_FILE_VARIABLE), "SSMD_KEY_HOOK_OTHER": VARIABLE}
        for name in ("archiver", "gateway", "connector"):
            run_service(search, folder, name, environ, audited)
        for command in ("list", "verify", "export", "audit"):
            assert ssmd("key", command, "canary") == 0
            assert ssmd("key", command, "canary", "--json") == 0
        assert ssmd("key", "show", "canary", "kalshi") == 0
        in_url = text.replace(
            "$key:postgres", f"postgresql+psycopg2://guarded:{IN_URL}@127.0.0.1:{postgres.port}/{database}"
        )
        (given / "u.yaml").write_text(in_url)
        for words in (["env", "validate"], ["env", "apply", "--yes"]):
            ssmd(*words, str(given / "u.yaml"))
        ssmd("market", "list", "--env", str(given / "u.yaml"))
        search.add("database", dump(postgres, database))
        actions = json.loads(search.seen["stdout of key audit"].splitlines()[-1])
        assert {("accessed", "system:connector"), ("accessed", "system:gateway")} <= {
            (row["action"], row["actor"]) for row in actions
        }

    # objects, errors and tracebacks
    store = LocalStore(folder / "home", "canary")
    mounted = given / "hook"
    mounted.mkdir()
    (mounted / "token").write_text(MOUNTED)
    for value in (store.read("hook", "token"), MountedStore(given).read("hook", "token"), SecretValue(FLAG)):
        assert value is not None
        search.add("repr", f"{value!r} {value} {[value]} {vars(EnvironmentStore)}")
    (folder / "home" / "keys" / "canary" / "hook" / "token").write_text("garbage")
    try:
        store.read("hook", "token")
    except SsmdError as error:
        search.add("traceback", "".join(traceback.format_exception(error)))
    for path in [*(folder / "home").rglob("*"), folder / "sealed.yaml"]:
        if path.is_file():
            search.add(str(path), path.read_bytes().decode("latin-1"))
    assert store.read("kalshi", "api_key") == SecretValue(FILE)
    assert search.found(canaries) == []
    # the search itself works, and looked at something everywhere
    assert all(search.seen[where].strip() for where in ("database", "archiver log", "connector /metrics", "ps"))
    search.add("planted", FLAG)
    assert search.found(canaries) == [("planted", FLAG)]
