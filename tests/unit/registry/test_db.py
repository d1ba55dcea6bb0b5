"""The database URL: what is unclear is refused, and nothing of a password is in any error."""

import stat
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import exc

from ssmd.errors import ConfigError, SsmdError
from ssmd.registry import db
from ssmd.registry.database import Database
from tests.servers import free_port

SECRET = "hunter2canary"
GOOD = "postgresql+psycopg2://u:{}@127.0.0.1:5432/d"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"postgresql+psycopg2://u:pa@{SECRET}@127.0.0.1:5432/d", "percent-encode it: %40"),
        (f"postgresql+psycopg2://u@x:{SECRET}@127.0.0.1/d", "percent-encode it: %40"),
        (f"postgresql+psycopg2://u:a/{SECRET}@127.0.0.1/d", "%2F"),
        (f"postgresql+psycopg2://u:1/{SECRET}@127.0.0.1/d", "%2F"),
        (f"postgresql+psycopg2://u:a?{SECRET}@127.0.0.1/d", "%3F"),
        (f"postgresql+psycopg2://u:1?{SECRET}@127.0.0.1/d", "%3F"),
        (f"postgresql+psycopg2://u:a#{SECRET}@127.0.0.1/d", "%23"),
        (f"postgresql+psycopg2://u:a {SECRET}@127.0.0.1/d", "%20"),
        (f"postgresql+psycopg2://u:a\x00{SECRET}@127.0.0.1/d", "percent-encode"),
        (f"postgresql+psycopg2://u:a%00{SECRET}@127.0.0.1/d", "NUL"),
        (f"postgresql://127.0.0.1:5432/d?user=u&password={SECRET}", "does not begin with postgresql+psycopg2://"),
        (f"postgresql+psycopg2://127.0.0.1:5432?password={SECRET}", "names no database"),
        (f"{SECRET}://u@h/d", "does not begin with"),
        (f"host=h user=u password={SECRET}", "is not a URL"),
        ("", "is not a URL"),
    ],
)
def test_a_url_that_is_unclear_is_refused_without_being_shown(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        db.parse(url)
    assert why in str(refused.value)
    assert SECRET not in str(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize("encoded", ["p%40ss%3Aw%2Frd%25", "a:b[c]", "%20x", ""])
def test_a_clear_one_is_understood(encoded: str) -> None:
    parts = db.parse(GOOD.format(encoded))
    assert (parts.host, parts.port, parts.database, parts.username) == ("127.0.0.1", 5432, "d", "u")
    assert db.parse("postgresql+psycopg2://u@[::1]/d?application_name=a%40b").host == "::1"
    assert db.parse("postgresql+psycopg2:///d?host=/tmp").database == "d"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://u:{SECRET}@127.0.0.1:PORT/d",
        f"postgresql+psycopg2://u@127.0.0.1:PORT/d?password={SECRET}",
        f"postgresql+psycopg2://u@127.0.0.1:PORT/d?passwrd={SECRET}",
        f"postgresql+psycopg2://u@127.0.0.1:PORT/d?sslkey={SECRET}&sslmode={SECRET}",
    ],
)
def test_no_error_of_the_driver_shows_a_password(url: str) -> None:
    database = Database(url.replace("PORT", str(free_port())))
    with pytest.raises(SsmdError) as refused:
        database.ping()
    database.close()
    assert SECRET not in str(refused.value)


def test_the_drivers_text_is_shown_without_the_password_in_any_spelling() -> None:
    url = db.parse(GOOD.format(f"{SECRET}%2F1"))
    driver = psycopg2.OperationalError(f"broken: {SECRET}/1, {SECRET}%2F1, postgres://u:{SECRET}@h")
    with pytest.raises(SsmdError) as refused, db.translated(url, "look"):
        raise exc.OperationalError("SELECT 1", None, driver)
    assert "broken: ***, ***" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_what_dbmate_prints_is_shown_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dbmate"
    program.write_text('#!/bin/sh\necho "Error: parse \\"$SSMD_DBMATE_URL\\": bad; $SSMD_DBMATE_URL" >&2\nexit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(db, "dbmate_program", lambda: program)
    for url in (GOOD.format(f"{SECRET}%2F%40"), f"postgresql+psycopg2://u@127.0.0.1/d?password={SECRET}"):
        with pytest.raises(SsmdError) as refused:
            db.migrate(url)
        assert SECRET not in str(refused.value)
        assert "bad" in str(refused.value)
