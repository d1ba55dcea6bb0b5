"""`ssmd client key` on a real PostgreSQL: the key is printed once, a hash is kept, and who did what is known."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from ssmd.cli.main import main, without_secrets
from ssmd.errors import ConfigError, RefusedError
from ssmd.gateway.caller import SCOPES
from ssmd.registry.client_keys import ClientKeys, key_id, key_sha256, without_keys
from ssmd.registry.database import Database
from tests.databases import Database as Server
from tests.integration.test_registry_commands import ENVIRONMENT, ask

pytestmark = pytest.mark.integration
KEY = re.compile(r"ssmd_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\n")


@pytest.fixture
def url(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database, and an environment in $SSMD_ENV that uses it."""
    found = postgres.fresh()
    (tmp_path / "here.yaml").write_text(ENVIRONMENT.replace("URL", found))
    monkeypatch.setenv("SSMD_ENV", str(tmp_path / "here.yaml"))
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    return found


def create(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    return ask(capsys, "client", "key", "create", "--name", "bot 1", "--scope", "read:live", *more)


def test_a_key_is_printed_once_alone_on_stdout(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = create(capsys, "--scope", "read:history,admin")
    assert code == 0
    assert KEY.fullmatch(out)
    assert "bot 1: read:live, read:history, admin, until it is revoked" in err
    assert out.strip() not in err
    code, listed, _ = ask(capsys, "client", "key", "list")
    assert (code, key_id(out.strip()) in listed, out[14:20] in listed) == (0, True, False)


def test_what_the_database_keeps_is_no_key(url: str, postgres: Server, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = create(capsys)
    text = out.strip()
    ((row,),) = postgres.run("SELECT row_to_json(client_keys)::text FROM client_keys", url.rpartition("/")[2])
    assert text[14:] not in str(row)
    assert key_sha256(text).hex() in str(row)
    assert json.loads(str(row))["created_by"].startswith("cli:")


def test_keys_are_listed_with_their_state_for_programs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "client", "key", "list", "--json")[1] == "[]\n"
    code, out, _ = create(capsys, "--json", "--expires", "90d")
    made = json.loads(out)
    assert code == 0
    assert KEY.fullmatch(made.pop("key") + "\n")
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(lasts - timedelta(days=90)) < timedelta(minutes=1)
    (listed,) = json.loads(ask(capsys, "client", "key", "list", "--json")[1])
    assert listed == made
    assert (listed["state"], listed["scopes"], listed["last_used_at"]) == ("active", ["read:live"], None)


def test_a_revoked_key_says_who_did_it_and_is_not_revoked_twice(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = create(capsys)[1].strip()
    code, out, _ = ask(capsys, "client", "key", "revoke", key_id(text), "--json")
    assert (code, json.loads(out)["state"]) == (0, "revoked")
    assert json.loads(out)["revoked_by"].startswith("cli:")
    code, out, err = ask(capsys, "client", "key", "revoke", key_id(text))
    assert (code, out) == (3, "")
    assert "was revoked before" in err


def test_a_key_that_is_given_whole_is_revoked_and_not_repeated(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = create(capsys)[1].strip()
    code, out, err = ask(capsys, "client", "key", "revoke", text)
    assert (code, text[14:] in out + err) == (0, False)
    cut = text[:-3]
    code, out, err = ask(capsys, "client", "key", "revoke", cut)
    assert (code, cut[14:] in out + err) == (2, False)


def test_a_mistyped_id_is_told_the_one_meant(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_id(create(capsys)[1].strip())
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    code, _, err = ask(capsys, "client", "key", "revoke", wrong)
    assert (code, f"Did you mean {key!r}?" in err) == (2, True)
    code, _, err = ask(capsys, "client", "key", "revoke", "bot 1")
    assert (code, f"ssmd client key revoke {key}" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scope", "read:liv"), "Did you mean 'read:live'?"),
        (("--scope", "everything"), "'everything' is not a scope"),
        (("--scope", "read:live", "--expires", "yesterday"), "is no day and no time"),
        (("--scope", "read:live", "--expires", "2020-01-01"), "would have expired"),
        (("--scope", "read:live", "--expires", "0d"), "would have expired"),
        (("--scope", "read:live", "--name", " "), "the name of a key"),
        (("--scope", "read:live", "--name", "x" * 65), "the name of a key"),
        (("--scope", "read:live", "--name", "a\x1b[2Jb"), "the name of a key"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    url: str, postgres: Server, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    name = () if "--name" in arguments else ("--name", "bot")
    code, out, err = ask(capsys, "client", "key", "create", *name, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) <= 2
    assert postgres.run("SELECT count(*) FROM client_keys", url.rpartition("/")[2]) == [(0,)]


def test_a_day_means_its_end(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    today = datetime.now(UTC).date()
    made = json.loads(create(capsys, "--json", "--expires", f"{today}")[1])
    assert made["expires_at"] == f"{today}T23:59:59Z"


@pytest.mark.parametrize(
    "values",
    [
        "'0000000G', decode(repeat('00', 32), 'hex'), 'a', '{admin}', 'x'",
        "'00000000', decode(repeat('00', 31), 'hex'), 'a', '{admin}', 'x'",
        "'00000000', decode(repeat('00', 32), 'hex'), '', '{admin}', 'x'",
        "'00000000', decode(repeat('00', 32), 'hex'), 'a', '{}', 'x'",
        "'00000000', decode(repeat('00', 32), 'hex'), 'a', '{admin,root}', 'x'",
    ],
)
def test_the_database_itself_refuses_what_is_no_key(postgres: Server, url: str, values: str) -> None:
    with pytest.raises(psycopg2.IntegrityError):
        postgres.run(
            f"INSERT INTO client_keys (id, key_sha256, name, scopes, created_by) VALUES ({values})",
            url.rpartition("/")[2],
        )


def test_uses_are_noted_in_any_order(url: str) -> None:
    database = Database(url)
    keys = ClientKeys(database)
    _, key = keys.create("bot", SCOPES, None, "test")
    late, early = datetime(2026, 11, 22, 12, tzinfo=UTC), datetime(2026, 11, 22, 11, tzinfo=UTC)
    for at in (late, early):
        keys.touch({key.id: at, "ffffffff": at})
    (found,) = keys.list()
    assert found.last_used_at == late
    assert keys.find("ffffffff") is None
    with pytest.raises(RefusedError):
        keys.revoke(keys.revoke(key.id, "test").id, "test")
    with pytest.raises(ConfigError):
        keys.revoke("\x00' OR true --", "test")
    database.close()


def test_no_two_keys_are_alike(url: str) -> None:
    database = Database(url)
    keys = ClientKeys(database)
    made = [keys.create("bot", ["admin"], None, "test")[0] for _ in range(50)]
    assert len(set(made)) == len({text[5:13] for text in made}) == len({text[14:] for text in made}) == 50
    database.close()


def test_a_bug_report_does_not_hold_the_key_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ssmd_0123abcd_" + "A" * 43
    assert text[14:] not in without_secrets(f"failed on {text}", ["client", "key", "revoke", text])
    assert without_keys(f"a {text} b") == "a ssmd_0123abcd_*** b"


def test_each_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("client",), ("client", "key"), ("client", "key", "create")):
        assert main([*words, "--help"]) == 0
    assert "--scope" in capsys.readouterr().out
