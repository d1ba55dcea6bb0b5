"""`ssmd env` on real servers: the lines are the design's, exit codes say what is wrong, versions can be asked."""

import asyncio
import difflib
import io
import json
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssmd.cli import env_checks
from ssmd.cli.main import main
from ssmd.middleware.factory import nats_url
from ssmd.middleware.journal.nats import NatsJournal
from ssmd.middleware.storage.s3 import S3Storage
from ssmd.middleware.transport.nats import NatsTransport
from tests.databases import Database as Server
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server, seaweedfs
from tests.servers import NatsServer, free_port
from tests.unit.keys.certificates import signing_pem
from tests.valkey import PASSWORD, ValkeyServer, valkey_server

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "env"
KEYS = {
    "SSMD_KEY_KALSHI_API_KEY": "key-id",
    "SSMD_KEY_KALSHI_API_SECRET": signing_pem(),
    "SSMD_KEY_NATS_USERNAME": "ssmd",
    "SSMD_KEY_NATS_PASSWORD": "planted-nats-password",
    "SSMD_KEY_STORAGE_ACCESS_KEY": ACCESS_KEY,
    "SSMD_KEY_STORAGE_SECRET_KEY": SECRET_KEY,
    "SSMD_KEY_REDIS_USERNAME": "default",
    "SSMD_KEY_REDIS_PASSWORD": PASSWORD,
}
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


class Site:
    """An environment file and its database; `write(changes)` sets values by dotted path (None: takes them away)."""

    def __init__(self, file: Path, data: dict[str, Any], server: Server, database: str) -> None:
        self.file = file
        self.data = data
        self._server = server
        self._database = database
        self.write()

    def write(self, changes: Mapping[str, Any] | None = None) -> str:
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            target = self.data
            for part in parents:
                target = target.setdefault(part, {})
            if value is None:
                target.pop(last, None)
            else:
                target[last] = value
        self.file.write_text(yaml.safe_dump(self.data, sort_keys=False))
        return str(self.file)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        return self._server.run(statement, self._database)

    def topic_names(self) -> dict[str, str]:
        return {topic: name for name, topic in self.data["spec"]["middleware"]["journal"]["topics"].items()}

    def log(self) -> list[tuple[object, ...]]:
        return self.run("SELECT status FROM deployment_log ORDER BY id")


@pytest.fixture
def site(postgres: Server, nats_broker: NatsServer, tmp_path: Path) -> Site:
    """A small environment: its own database, the shared broker, files; topics of its own."""
    url = postgres.fresh()
    topics = {name: f"{name}-{time.time_ns()}" for name in ("secmaster", "audit", "deployments")}
    data = {
        "apiVersion": "ssmd/v1",
        "kind": "Environment",
        "metadata": {"name": "small"},
        "spec": {
            "keys": {"kalshi": {"type": "api_key", "fields": ["api_key", "api_secret"]}},
            "feed": "kalshi",
            "database": {"url": url},
            "middleware": {
                "transport": {"type": "nats", "url": nats_broker.url},
                "storage": {"type": "local", "path": "storage"},
                "journal": {"type": "nats", "url": nats_broker.url, "topics": topics},
            },
        },
    }
    return Site(tmp_path / "small.yaml", data, postgres, url.rpartition("/")[2])


def same_as_golden(name: str, text: str, names: Mapping[str, str]) -> None:
    """`text`, with what differs from run to run (`names`: it → its name) taken out, equals the golden file."""
    for value, shown in names.items():
        text = text.replace(value, shown)
    expected = (GOLDEN / name).read_text()
    assert text == expected, "\n".join(difflib.unified_diff(expected.splitlines(), text.splitlines(), lineterm=""))


async def _prepare(nats: str, s3: S3Server, topics: Mapping[str, str]) -> None:
    storage = S3Storage(s3.endpoint, "us-east-1", ACCESS_KEY, SECRET_KEY)
    transport, journal = NatsTransport(nats), NatsJournal(nats)
    await transport.ensure_stream("kalshi")
    for topic in topics.values():
        await journal.create_topic(topic)
    for bucket in ("ssmd-raw", "ssmd-normalized"):
        await storage.replace(bucket, "kalshi/x", b"x")
    await journal.close()
    await transport.close()
    await storage.close()


def test_everything_there_reads_like_the_design(
    site: Site, nats_broker: NatsServer, s3: S3Server, valkey: ValkeyServer, capsys: Output
) -> None:
    topics = {name: f"ssmd.journal.{name}" for name in ("secmaster", "audit", "deployments")}
    file = site.write(
        {
            "metadata.name": "kalshi-prod",
            "spec.keys.storage": {"type": "storage", "fields": ["access_key", "secret_key"]},
            "spec.keys.redis": {"type": "transport", "required": False, "fields": ["username", "password"]},
            "spec.middleware.storage": {"type": "s3", "endpoint": s3.endpoint, "credentials": "$key:storage"},
            "spec.middleware.cache": {"type": "redis", "url": valkey.url, "credentials": "$key:redis"},
            "spec.middleware.journal": {"type": "nats", "url": nats_broker.url, "topics": topics},
        }
    )
    asyncio.run(_prepare(nats_broker.url, s3, topics))
    capsys.readouterr()

    assert main(["env", "validate", file]) == 0

    said = capsys.readouterr()
    names = {s3.endpoint: "http://garage.ssmd.local:3900", valkey.url: "redis://redis.ssmd.local:6379"}
    names[site.data["spec"]["database"]["url"]] = "postgresql+psycopg2://postgres@db/ssmd"
    same_as_golden("validate.txt", said.out, names)
    assert said.err == f"\nReady to deploy. Run: ssmd env apply {file}\n"
    assert main(["env", "validate", file, "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert {"section": "environment", "mark": "✓", "text": "NATS stream 'ssmd-kalshi' exists", "severity": "good",
            "fix": "", "path": "", "line": None} in checks  # fmt: skip
    assert main(["env", "apply", file, "--yes"]) == 0
    assert capsys.readouterr().out.startswith(said.out)


def test_a_required_key_that_is_not_set_refuses_in_the_designs_words(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name in KEYS:
        if "NATS" in name:
            monkeypatch.delenv(name)
    file = site.write(
        {
            "metadata.name": "kalshi-prod",
            "spec.keys.postgres": {"type": "database", "fields": ["host"]},
            "spec.keys.nats": {"type": "transport", "fields": ["url", "username", "password", "tls_cert"]},
            "spec.keys.storage": {"type": "storage", "required": False, "fields": ["access_key", "secret_key"]},
            "spec.middleware.transport": {"type": "nats", "url": "$key:nats", "credentials": "$key:nats"},
        }
    )
    monkeypatch.setenv("SSMD_KEY_POSTGRES_HOST", "db")
    monkeypatch.delenv("SSMD_KEY_STORAGE_ACCESS_KEY")
    monkeypatch.delenv("SSMD_KEY_STORAGE_SECRET_KEY")

    assert main(["env", "apply", file, "--yes"]) == 3

    said = capsys.readouterr()
    names = {str(site.file.parent): "", **site.topic_names()}
    names[site.data["spec"]["database"]["url"]] = "postgresql+psycopg2://postgres@db/ssmd"
    same_as_golden("key-not-set.txt", said.out + said.err, names)
    assert site.log() == []
    assert main(["env", "validate", file]) == 3


def test_every_printed_key_command_runs_as_printed_for_a_file_that_no_name_leads_to(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    site.file = tmp_path / "b b.yaml"
    site.write({"metadata.name": "judgeb", "spec.keys.kalshi.rotation_days": 90, "spec.keys.kalshi.fields": ["a"]})
    file = "b b.yaml"
    (tmp_path / "value").write_text("x")
    values = ["--from-file", "a=value"]
    printed = []
    for words in (
        ["env", "create", "judgeb", "--from", file],
        ["env", "apply", file, "--yes"],
        ["env", "validate", file],
        ["doctor", "-f", file],
        ["key", "verify", "judgeb", "-f", file],
        ["key", "rotate", "judgeb", "kalshi", "-f", file],
        ["key", "set", "judgeb", "kalshi", "-f", file],
        ["key", "set", "judgeb", "kalshi", "extra", "-f", file],
        ["key", "set", "judgeb", "kalshi", "-f", file, "--from-env", "gone"],
        ["key", "delete", "judgeb", "kalshi", "-f", file],
        ["key", "init", "judgeb", "-f", file],
        ["run", "connector", "-f", file],
    ):
        main(words)
        said = capsys.readouterr()
        found = re.findall(r"ssmd (key \w+ judgeb(?:'[^']*'|[^.(;:`\n'])*)", said.out + said.err)
        assert found, (words, said)
        printed += found
    assert len(printed) >= 12
    for command in printed:
        words = shlex.split(command)
        words = words[: words.index("--a")] + words[words.index("--a") + 2 :] if "--a" in words else words
        words = words[: words.index("--from-env")] if "--from-env" in words else words
        code = main([*words, *(values if words[1] == "set" else [])])
        said = capsys.readouterr()
        assert "no file in environments/" not in said.err, command
        assert code == 0 or words[1] in ("init", "rotate"), (command, said)
    main(["key", "set", "judgeb", "kalshi", "-f", file, *values])
    assert main(["env", "apply", file, "--yes"]) == 0


def test_a_refused_deployment_is_a_report_for_programs_too(site: Site, capsys: Output) -> None:
    file = site.write({"spec.feed": "kalshj"})
    for code in (2, 3):
        assert main(["env", "validate", file, "--json"]) == code
        report = json.loads(capsys.readouterr().out)
        assert main(["env", "apply", file, "--yes", "--json"]) == code
        said = capsys.readouterr()
        assert json.loads(said.out) == report
        assert any(check["mark"] == "✗" for check in report)
        assert "Error: " in said.err
        site.write({"spec.feed": "kalshi", "spec.keys.absent": {"type": "webhook", "fields": ["token"]}})
    site.file.write_text("spec: [")
    assert main(["env", "apply", file, "--yes", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)[0]["severity"] == "config"


def test_nobody_or_a_no_does_not_deploy_and_a_yes_does(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    file = site.write()
    for answer, code in (("", 3), ("n\n", 3), ("\n", 3), ("yes please\n", 3), ("Y\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert main(["env", "apply", file]) == code
        said = capsys.readouterr()
        assert said.err.startswith("\nReady to deploy. Proceed? [y/N] ")
        assert ("--yes" in said.err) is (answer == "")
        assert site.log() == ([] if code else [("completed",)])


def test_versions_are_kept_compared_and_asked_by_time(site: Site, nats_broker: NatsServer, capsys: Output) -> None:
    env = ["--env", str(site.file)]
    file = site.write()
    assert main(["env", "create", "small", "--from", file]) == 0
    assert main(["env", "create", "small", "--from", file]) == 3
    assert main(["env", "create", "smal", "--from", file]) == 2
    assert main(["env", "apply", file, "--yes", "--trigger", "gitops"]) == 0
    site.write({"spec.gateway": {"port": 9000}, "spec.keys.nats": {"type": "transport", "fields": ["token"]}})
    assert main(["env", "apply", file, "--yes"]) == 3  # the new key is not set
    site.write({"spec.keys.nats": None})
    assert main(["env", "apply", file, "--yes", "--json"]) == 0
    said = capsys.readouterr()
    assert "known already, with version 1" in said.err
    assert "is the environment 'small', not 'smal'" in said.err
    deployed = json.loads(said.out.splitlines()[-1])
    assert (deployed["version"], deployed["new"], deployed["git_commit"]) == (2, True, None)

    assert main(["env", "apply", file, "--yes"]) == 0
    assert "○ small version 2 is deployed already, with the same content: no new version" in capsys.readouterr().out
    assert main(["env", "show", "small", *env]) == 0
    shown = capsys.readouterr().out
    assert re.match(r"# small version 2\n# deployed by cli:\S+; in force from \S+ until now\n", shown)
    again = site.file.with_name("again.yaml")
    again.write_text(shown)
    assert main(["env", "apply", str(again), "--yes"]) == 0
    assert "no new version" in capsys.readouterr().out  # what is shown is a file with the same content

    first = site.run("SELECT valid_from FROM environment_versions WHERE deployed_at IS NOT NULL ORDER BY version")[0][0]
    assert main(["env", "show", "small", "--as-of", f"{first:%Y-%m-%dT%H:%M:%S.%fZ}", *env, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert main(["env", "show", "small", "--as-of", "2020-01-01", *env]) == 2
    assert main(["env", "show", "small", "--as-of", "yesterday", *env]) == 2
    assert main(["env", "show", "small", "--version", "7", *env]) == 2
    assert "Its versions: 1, 2." in capsys.readouterr().err

    topic = site.data["spec"]["middleware"]["journal"]["topics"]["deployments"]
    names = {site.data["spec"]["database"]["url"]: "postgresql+psycopg2://postgres@db/ssmd", **site.topic_names()}
    assert main(["env", "diff", "small", "--v1", "1", "--v2", "2", *env]) == 0
    same_as_golden("diff.txt", capsys.readouterr().out, names)
    assert main(["env", "diff", "small", *env, "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert {"path": "spec.gateway.port", "old": 8080, "new": 9000} in changes

    assert main(["env", "history", "small", *env, "--json"]) == 0
    history = json.loads(capsys.readouterr().out)
    assert [version["version"] for version in history["versions"]] == [2, 1]
    assert [(line["version"], line["trigger"]) for line in history["deployments"]] == [
        (2, "manual"), (2, "manual"), (2, "manual"), (1, "gitops"),
    ]  # fmt: skip
    assert main(["env", "list", *env, "--json"]) == 0
    assert {"small", "kalshi-prod"} <= {one["name"] for one in json.loads(capsys.readouterr().out)}
    for words in (["show", "smalll"], ["history", "smalll"], ["diff", "smalll"]):
        assert main(["env", *words, *env]) == 2
        assert "Did you mean 'small'?" in capsys.readouterr().err

    entries = [json.loads(payload) for payload in asyncio.run(_journal(nats_broker.url, topic))]
    assert [(entry["version"], entry["new"]) for entry in entries] == [(1, True), (2, True), (2, False), (2, False)]


async def _journal(url: str, topic: str) -> list[bytes]:
    journal = NatsJournal(url)
    try:
        return [entry.payload async for entry in journal.read(topic)]
    finally:
        await journal.close()


HOSTILE = (
    "x'; DROP TABLE environments; --",
    "$(reboot)",
    "a\nb",
    "\x1b[31mred",
    "nul\0",
    "\udcff",
    "x" * 10_000,
    "",
    "-x",
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_a_hostile_argument_is_an_error_of_short_lines(site: Site, text: str, capsys: Output) -> None:
    env, file = ["--env", str(site.file)], str(site.file)
    commands = [
        ["env", "create", text, "--from", file, *env],
        ["env", "show", text, *env],
        ["env", "show", "local", "--as-of", text, *env],
        ["env", "show", "local", "--version", text, *env],
        ["env", "diff", text, *env],
        ["env", "diff", "local", "--v1", text, *env],
        ["env", "history", text, *env],
        ["env", "apply", file, "--trigger", text],
    ]
    for command in commands:
        assert main(command) == 2, command
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        assert all(line.isprintable() and len(line) < 300 for line in said.err.splitlines()), said.err
    assert site.run("SELECT count(*) FROM environments WHERE name NOT IN ('local', 'test', 'kalshi-prod')") == [(0,)]


def test_an_environment_whose_own_database_is_not_known_here_is_kept_in_the_default_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The design's own command, `ssmd env create kalshi-prod --from environments/kalshi.yaml`."""
    monkeypatch.setenv("SSMD_ENV", str(site.file))
    shipped = Path(__file__).parents[2] / "environments" / "kalshi.yaml"

    assert main(["env", "create", "kalshi-prod", "--from", str(shipped)]) == 0

    said = capsys.readouterr()
    assert "asking the database of small: the key 'postgres' has no value for 'host'" in said.err
    assert main(["env", "show", "kalshi-prod"]) == 0
    assert "name: kalshi-prod" in capsys.readouterr().out
    assert main(["env", "apply", str(shipped), "--yes"]) == 3
    assert (
        "Error: Required key 'postgres' is not set.\nRun: ssmd key set kalshi-prod postgres" in capsys.readouterr().err
    )


def test_a_password_in_the_file_reaches_no_table(site: Site, capsys: Output) -> None:
    url = site.data["spec"]["database"]["url"].replace("postgres@", "postgres:planted-in-url@")
    file = site.write({"spec.database": {"url": url}})

    assert main(["env", "validate", file]) == 0
    assert "○ A password stands in the file, at spec.database.url" in capsys.readouterr().out
    assert main(["env", "apply", file, "--yes"]) == 0
    assert main(["env", "show", "small", "--env", file]) == 0

    said = capsys.readouterr()
    assert "postgres:***@127.0.0.1" in said.out
    stored = str(site.run("SELECT config_yaml FROM environment_versions")) + str(site.run("SELECT * FROM keys"))
    pem = KEYS["SSMD_KEY_KALSHI_API_SECRET"].splitlines()[1]
    for secret in ("planted-in-url", pem, *(value for value in KEYS.values() if value.startswith("planted"))):
        assert secret not in said.out + said.err + stored


@pytest.mark.parametrize(
    ("statement", "changes", "code", "says"),
    [
        ("UPDATE feeds SET status = 'disabled'", {}, 3, "✗ Feed 'kalshi' exists and is disabled, NOT active"),
        ("UPDATE feed_versions SET required_transport = '{aeron}'", {}, 2,
         "✗ Transport 'nats' is NOT compatible with feed 'kalshi'"),
        ("UPDATE feed_versions SET required_transport = NULL", {}, 0, "✓ Transport 'nats' is compatible"),
        ("SELECT 1", {"spec.feed": "klashi"}, 2, "✗ Feed 'klashi' not found in feed registry"),
        ("SELECT 1", {"spec.keys.kalshi": None}, 2, "which feed 'kalshi' needs, is NOT defined in spec.keys"),
        ("UPDATE schema_versions SET status = 'deprecated' WHERE name = 'trade'", {}, 3,
         "✗ Schema 'trade:v1' exists and is deprecated, NOT active"),
        ("UPDATE schema_versions SET schema_hash = repeat('0', 64) WHERE name = 'gap'", {}, 3,
         "✗ Schema 'gap:v1' is registered with another text"),
        ("DELETE FROM schema_versions WHERE name = 'status'", {}, 3, "✗ Schema 'status:v1' is NOT registered"),
        ("DELETE FROM ssmd_migrations WHERE version = '20261122000007'", {}, 3, "lacks 1 migration of sql/"),
        ("UPDATE feed_versions SET effective_to = '2026-06-01' WHERE effective_to IS NULL", {}, 3,
         "✗ Feed 'kalshi' has no version that holds today"),
        ("UPDATE feed_versions SET secret_ref = 'sealed-secret/kalshi-creds'", {}, 0,
         "○ Secret 'sealed-secret/kalshi-creds' is not known to the registry"),
        ("SELECT 1", {"spec.middleware.storage.path": "/dev/null/x"}, 7,
         "✗ Storage folder '/dev/null/x' is NOT writable"),
    ],
)  # fmt: skip
def test_what_the_registry_or_the_machine_refuses_is_a_line_and_an_exit_code(
    site: Site, statement: str, changes: dict[str, Any], code: int, says: str, capsys: Output
) -> None:
    site.run(statement)
    file = site.write(changes)

    assert main(["env", "validate", file]) == code
    said = capsys.readouterr()
    assert says in said.out
    if code:
        assert said.err.strip()
        assert main(["env", "apply", file, "--yes"]) == code
        assert site.log() == []


def test_an_expired_key_refuses(site: Site, tmp_path: Path, capsys: Output) -> None:
    file = site.write({"spec.keys.kalshi.rotation_days": 30})
    assert main(["env", "apply", file, "--yes"]) == 0
    site.run("UPDATE keys SET status = 'set', last_rotated = now() - interval '20 days' WHERE name = 'kalshi'")
    assert main(["env", "validate", file]) == 0
    assert "○ Key 'kalshi' is set (expires in 10 days)" in capsys.readouterr().out
    site.run("UPDATE keys SET status = 'set', last_rotated = now() - interval '31 days' WHERE name = 'kalshi'")

    assert main(["env", "validate", file]) == 3

    said = capsys.readouterr()
    assert "✗ Key 'kalshi' has EXPIRED (" in said.out
    assert "Error: Required key 'kalshi' has expired.\nRun: ssmd key rotate small kalshi" in said.err


@pytest.mark.alone
def test_servers_that_are_away_are_lines_within_five_seconds(site: Site, capsys: Output) -> None:
    """Refused connections, a name that nobody knows, and servers that take a connection and never say a word."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(64)
        port, gone = mute.getsockname()[1], free_port()
        file = site.write(
            {
                "spec.database": {"url": f"postgresql+psycopg2://u:planted-in-url@127.0.0.1:{port}/ssmd"},
                "spec.middleware.transport.url": f"nats://127.0.0.1:{port}",
                "spec.middleware.journal.url": f"nats://127.0.0.1:{gone}",
                "spec.keys.storage": {"type": "storage", "fields": ["access_key", "secret_key"]},
                "spec.middleware.storage": {
                    "type": "s3", "endpoint": f"http://127.0.0.1:{port}", "credentials": "$key:storage"
                },
                "spec.middleware.cache": {"type": "redis", "url": "redis://nobody.invalid:6379"},
            }
        )  # fmt: skip
        began = time.monotonic()
        code = main(["env", "validate", file])
        took = time.monotonic() - began

    said = capsys.readouterr()
    assert code == 7
    assert took < 5
    away = [line for line in said.out.splitlines() if line.startswith("  ✗")]
    assert [words for words in ("Database", "Storage bucket 'ssmd-raw'", "Cache", "Journal topic", "NATS stream")
            if not any(words in line for line in away)] == []  # fmt: skip
    assert "Run: ssmd up" in said.out
    assert "Feed 'kalshi' exists and is active (built in)" in said.out
    assert "planted-in-url" not in said.out + said.err
    assert main(["env", "apply", file, "--yes"]) == 7


def test_a_bucket_that_is_not_there_and_a_wrong_password_are_refused(
    site: Site, s3: S3Server, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("SSMD_KEY_REDIS_PASSWORD", "wrong")
    file = site.write(
        {
            "spec.keys.storage": {"type": "storage", "fields": ["access_key", "secret_key"]},
            "spec.keys.redis": {"type": "transport", "fields": ["username", "password"]},
            "spec.middleware.storage": {
                "type": "s3", "endpoint": s3.endpoint, "credentials": "$key:storage",
                "buckets": {"raw": "nobody-made-this", "normalized": "nor-this"},
            },
            "spec.middleware.cache": {"type": "redis", "url": valkey.url, "credentials": "$key:redis"},
        }
    )  # fmt: skip

    assert main(["env", "validate", file]) == 3

    said = capsys.readouterr().out
    assert f"✓ Storage endpoint '{s3.endpoint}' is reachable" in said
    assert "✗ Storage bucket 'nobody-made-this' is NOT accessible" in said
    assert "refuses the credentials" in said
    monkeypatch.setenv("SSMD_KEY_STORAGE_SECRET_KEY", "wrong")
    assert main(["env", "validate", file]) == 3


def test_validating_writes_nothing(site: Site, tmp_path: Path) -> None:
    file = site.write()
    before = site.run("SELECT * FROM environments ORDER BY id")

    assert main(["env", "validate", file]) == 0

    assert site.run("SELECT * FROM environments ORDER BY id") == before
    assert not (tmp_path / "home").exists()


def test_a_journal_that_is_away_is_a_finding(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """It went away between the check and the commit."""
    file, gone = site.write(), f"nats://127.0.0.1:{free_port()}"

    def then_away(chosen: Any, *, write: bool) -> Any:
        found = env_checks.look(chosen, write=write)
        monkeypatch.setattr("ssmd.middleware.factory.nats_url", lambda *_arguments: gone)
        return found

    monkeypatch.setattr("ssmd.cli.env_apply.look", then_away)

    assert main(["env", "apply", file, "--yes"]) == 6

    said = capsys.readouterr()
    assert "✓ Deployed small version 1" in said.out
    assert "✗ the journal topic" in said.err
    assert "was not told of this deployment" in said.err
    monkeypatch.setattr("ssmd.middleware.factory.nats_url", nats_url)
    assert main(["env", "apply", file, "--yes", "--json"]) == 6
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 1
