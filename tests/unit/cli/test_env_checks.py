"""`ssmd env validate` without a server: its lines, its marks, its exit codes, the commands that it prints."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ssmd.cli.commits import commit_of
from ssmd.cli.env_report import ENVIRONMENT, KEYS, Check, KeyNotSet, Severity, exit_code, set_key_lines, show_checks
from ssmd.cli.main import main
from ssmd.keys.state import KeyState, Status
from ssmd.local.home import Home, StackRecord
from ssmd.local.processes import identify
from tests.certificates import write_pair
from tests.unit.keys.certificates import signing_pem

MEMORY = str(Path(__file__).parents[3] / "environments" / "test.yaml")
LOCAL = str(Path(__file__).parents[3] / "environments" / "local.yaml")
PEM = signing_pem()
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "key-id")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", PEM)


@pytest.mark.usefixtures("_key")
def test_an_environment_in_memory_is_checked_without_any_server(capsys: Output) -> None:
    assert main(["env", "validate", MEMORY]) == 0

    said = capsys.readouterr()
    assert said.out.startswith(
        "Validating environment...\n  ✓ Keys section present\n  ✓ Key 'kalshi' defined (api_key, "
    )
    assert "  ○ Registry is kept in memory" in said.out
    assert "  ✓ Transport 'memory' is compatible with feed 'kalshi'\n" in said.out
    assert said.out.endswith("\nChecking key status...\n  ✓ Key 'kalshi' is set\n")
    assert said.err == f"\nReady to deploy. Run: ssmd env apply {MEMORY}\n"
    assert PEM.splitlines()[1] not in said.out + said.err


def test_a_secret_that_cannot_sign_for_the_feed_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "key-id")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", "planted-secret")
    assert main(["env", "validate", MEMORY]) == 3

    said = capsys.readouterr()
    assert "✗ Key 'kalshi' cannot be used: the value of 'api_secret' is not a PEM private key" in said.out
    assert "planted" not in said.out + said.err


def test_a_key_that_is_not_set_is_named_with_its_command(capsys: Output) -> None:
    assert main(["env", "validate", MEMORY]) == 3

    said = capsys.readouterr()
    assert "  ○ Secret '$key:kalshi' is defined, and has no value yet\n" in said.out
    assert "  ✗ Key 'kalshi' is NOT SET\n" in said.out
    assert said.err == (
        "\nError: Required key 'kalshi' is not set.\nRun: ssmd key set test kalshi --api-key xxx --api-secret yyy\n"
    )


@pytest.mark.usefixtures("_key")
def test_the_checks_are_one_list_for_programs(capsys: Output) -> None:
    assert main(["env", "validate", MEMORY, "--json"]) == 0

    said = capsys.readouterr()
    checks = json.loads(said.out)
    assert {check["section"] for check in checks} == {"environment", "keys"}
    assert {check["mark"] for check in checks} == {"✓", "○"}
    assert said.err == ""


@pytest.mark.usefixtures("_key")
def test_an_environment_without_a_database_cannot_be_deployed(capsys: Output) -> None:
    assert main(["env", "apply", MEMORY, "--yes"]) == 2

    assert "names no database to record it in\n  Add spec.database.url." in capsys.readouterr().err


def test_the_running_stacks_demo_key_counts_for_its_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    us = identify(os.getpid())
    assert us is not None
    record = StackRecord(
        mark="m", environment="test", file=MEMORY, socket="", password="", supervisord=us,
        programs=["nats", "simulator"], urls={},
    )  # fmt: skip
    home.write_record(record)
    assert main(["env", "validate", MEMORY]) == 0
    assert "○ Key 'kalshi' is the demo key, which only the simulated exchange takes" in capsys.readouterr().out
    assert main(["key", "verify", "test", "--env", MEMORY]) == 0
    assert "○ kalshi: the demo key, which only the simulated exchange takes\n" in capsys.readouterr().out
    assert main(["key", "list", "test", "--env", MEMORY]) == 0
    assert "kalshi: the running stack uses the demo key" in capsys.readouterr().err

    for other in ({"environment": "local"}, {"programs": ["nats"]}):
        home.write_record(msgspec.structs.replace(record, **other))
        assert main(["env", "validate", MEMORY]) == 3
        assert main(["key", "verify", "test", "--env", MEMORY]) == 3
    home.write_record(record)
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "key-id")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", PEM)
    capsys.readouterr()
    assert main(["env", "validate", MEMORY]) == 0
    assert "✓ Key 'kalshi' is set" in capsys.readouterr().out


def check(severity: Severity) -> Check:
    return Check(ENVIRONMENT, "text", severity)


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ((), 0),
        (("good", "note"), 0),
        (("unavailable", "good"), 7),
        (("unavailable", "refused"), 3),
        (("unavailable", "refused", "config"), 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_trouble(severities: tuple[Severity, ...], code: int) -> None:
    assert exit_code(check(severity) for severity in severities) == code


def state(status: Status, *missing: str) -> KeyState:
    return KeyState(
        name="nats", type="transport", required=True, description="", fields=("url", "username", "password", "tls_key"),
        missing_fields=missing, status=status, last_rotated=datetime(2026, 1, 1, tzinfo=UTC), expires_at=None,
        rotation_days=None, sealed_secret_ref=None,
    )  # fmt: skip


def test_the_command_that_mends_a_key_has_the_fields_that_miss() -> None:
    assert set_key_lines("prod", state("not_set", "url", "password", "tls_key", "x_y")) == (
        "Error: Required key 'nats' is not set.",
        "Run: ssmd key set prod nats --url xxx --password yyy --tls-key zzz --x-y zzz",
    )
    assert set_key_lines("prod", state("expired"))[1] == "Run: ssmd key rotate prod nats"
    both = str(KeyNotSet("prod", [state("not_set", "url"), state("expired")]))
    assert both.splitlines()[1::2] == ["Run: ssmd key set prod nats --url xxx", "Run: ssmd key rotate prod nats"]


def test_lines_are_printable_and_a_fix_is_said_once(capsys: Output) -> None:
    show_checks(
        [
            Check(KEYS, "b", "good"),
            Check(ENVIRONMENT, "a\x1b[31m\n", "unavailable", "Run: it"),
            Check(ENVIRONMENT, "c", "note", "Run: it"),
        ],
        as_json=False,
    )

    assert capsys.readouterr().out == (
        "Validating environment...\n  ✗ a·[31m·\n      Run: it\n  ○ c\n\nChecking key status...\n  ✓ b\n"
    )


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_commit_is_named_only_for_a_file_that_is_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "environments" / "a [b].yaml"
    file.parent.mkdir()
    file.write_text("a: 1\n")
    assert commit_of(file) == (None, "the file is in no git repository")
    git(tmp_path, "init", "-q")
    assert commit_of(file)[0] is None
    (tmp_path / "other").write_text("x")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-q", "-m", "first")
    assert commit_of(file) == (None, "the file is not tracked by git")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "second")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(file) == (head, "")
    (tmp_path / "other").write_text("changed")
    assert commit_of(file) == (head, "")
    file.write_text("a: 2\n")
    assert commit_of(file) == (None, "the file has changes that are not committed")
    link = tmp_path.parent / f"{tmp_path.name}-link.yaml"
    link.symlink_to(file)
    assert commit_of(link)[1] == "the file has changes that are not committed"


@pytest.mark.usefixtures("_key")
def test_the_gateway_s_certificate_files_are_looked_at(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "own.yaml"
    text = Path(MEMORY).read_text().rstrip() + "\n  gateway: {tls: {cert_file: c.pem, key_file: k.pem}}\n"
    file.write_text(text)
    assert "tls:" in text
    assert main(["env", "validate", str(file)]) == 3
    said = capsys.readouterr().out
    assert f"✗ Gateway's certificate: cannot read {tmp_path / 'home' / 'c.pem'} (spec.gateway.tls.cert_file)" in said

    write_pair(tmp_path / "home", days=100)
    file.write_text(text.replace("c.pem", "tls/cert.pem").replace("k.pem", "tls/key.pem"))
    assert main(["env", "validate", str(file)]) == 0
    assert "✓ Gateway's certificate fits its key (expires in 99 days)" in capsys.readouterr().out
    write_pair(tmp_path / "home", days=9)
    assert main(["env", "validate", str(file)]) == 0
    assert "○ Gateway's certificate fits its key (expires in 8 days)" in capsys.readouterr().out


@pytest.mark.usefixtures("_key")
def test_a_gateway_with_keys_needs_a_database(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(Path(MEMORY).read_text().rstrip() + "\n  gateway: {auth: keys}\n")
    assert main(["env", "validate", str(file)]) == 2
    assert "✗ Gateway asks clients for keys, and there is no database that keeps them" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to: /proc")
@pytest.mark.usefixtures("_key")
def test_a_storage_folder_is_writable_only_if_that_was_tried(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "environment.yaml"

    def validated(folder: str) -> tuple[int, str]:
        text = Path(MEMORY).read_text()
        file.write_text(text.replace("storage: {type: memory}", f"storage: {{type: local, path: {folder!r}}}"))
        return main(["env", "validate", str(file)]), capsys.readouterr().out

    code, said = validated("/proc/nope")
    assert code == 7
    assert "✗ Storage folder '/proc/nope' is NOT writable: /proc: " in said

    there = tmp_path / "there"
    (there / "ssmd-raw").mkdir(parents=True)
    code, said = validated(str(there / "new" / "folder"))
    assert (code, list(there.rglob("*"))) == (0, [there / "ssmd-raw"])
    assert f"✓ Storage folder '{there}/new/folder' is writable" in said
    code, said = validated(str(there))
    assert (code, list(there.rglob("*"))) == (0, [there / "ssmd-raw"])
    assert "✓ Storage bucket 'ssmd-raw' accessible" in said
