"""Schemas on a real PostgreSQL: a version never changes, a breaking one is named, a day knows what it is written in."""

import hashlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import structlog

from ssmd.errors import ConfigError, RefusedError
from ssmd.registry.bootstrap import bootstrap
from ssmd.registry.database import Database
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.postgres import PostgresRegistry
from ssmd.registry.schemas import SchemaCatalogue
from ssmd.resources import resource
from tests.databases import Database as Server

pytestmark = pytest.mark.integration
DAY = date(2026, 11, 22)
TRADE = (resource("schemas") / "trade.capnp").read_text()


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.fresh()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


@pytest.fixture
def schemas(database: Database) -> SchemaCatalogue:
    return SchemaCatalogue(database)


def grown() -> str:
    """The trade schema with one more field at its end."""
    end = TRADE.index("}", TRADE.index("struct Trade {"))
    numbers = [int(word.partition(" ")[0]) for word in TRADE[TRADE.index("struct Trade {") : end].split("@")[1:]]
    return f"{TRADE[:end]}  extra @{max(numbers) + 1} :Text;\n{TRADE[end:]}"


def broken() -> str:
    """The trade schema with a field that changed its type."""
    text = TRADE.replace(":Int64", ":Float64", 1)
    assert text != TRADE
    return text


def test_the_shipped_schemas_are_registered_with_their_hashes(schemas: SchemaCatalogue) -> None:
    found = schemas.list()

    assert [(s.name, s.version, s.status) for s in found] == [
        (name, "v1", "active") for name in ("gap", "orderbook", "status", "ticker", "trade")
    ]
    for schema in found:
        raw = (resource("schemas") / f"{schema.name}.capnp").read_bytes()
        assert schema.hash == hashlib.sha256(raw).hexdigest()
        assert schema.text.encode() == raw
        assert schema.effective_from == date(2021, 1, 1)


def test_the_same_text_again_is_no_new_version(schemas: SchemaCatalogue) -> None:
    for version in (None, "v1"):
        done = schemas.register("trade", TRADE, version=version, effective_from=DAY)
        assert (done.is_new, done.schema.version) == (False, "v1")
    assert len(schemas.list("trade")) == 1


def test_another_text_under_a_known_version_is_refused(schemas: SchemaCatalogue) -> None:
    with pytest.raises(RefusedError, match="with another text"):
        schemas.register("trade", grown(), version="v1", effective_from=DAY)
    assert schemas.show("trade").text == TRADE


def test_a_schema_that_grew_reads_the_versions_before_it(schemas: SchemaCatalogue) -> None:
    done = schemas.register("trade", grown(), version=None, effective_from=DAY)

    assert (done.is_new, done.schema.version, done.schema.compatible_with) == (True, "v2", ["v1"])
    assert [(d.kind, d.breaking) for d in done.differences] == [("added", False)]
    third = schemas.register("trade", grown().replace("extra", "more"), version=None, effective_from=DAY)
    assert third.schema.compatible_with == ["v1", "v2"]
    assert schemas.show("trade").version == "v3"


def test_a_breaking_schema_is_refused_with_its_differences_until_it_is_said(
    schemas: SchemaCatalogue, postgres: Server, url: str
) -> None:
    with pytest.raises(RefusedError, match="changed its type from Int64 to Float64") as refused:
        schemas.register("trade", broken(), version=None, effective_from=DAY)
    assert "--breaking-changes" in refused.value.hint
    assert len(schemas.list("trade")) == 1

    done = schemas.register("trade", broken(), version=None, effective_from=DAY, breaking_changes="floats\x1b[31m")

    assert done.schema.compatible_with == []
    assert done.schema.breaking_changes is not None
    assert done.schema.breaking_changes.splitlines()[0] == "floats\ufffd[31m"
    assert "Float64" in done.schema.breaking_changes
    assert postgres.run("SELECT migration_type, status FROM schema_migrations", url.rpartition("/")[2]) == [
        ("reprocess", "pending")
    ]


def test_versions_come_in_order_of_number_and_day(schemas: SchemaCatalogue) -> None:
    schemas.register("trade", grown(), version="v10", effective_from=DAY)

    with pytest.raises(RefusedError, match="would come before it"):
        schemas.register("trade", grown() + "\n", version="v9", effective_from=DAY)
    with pytest.raises(RefusedError, match="would begin on 2026-11-21"):
        schemas.register("trade", grown() + "\n", version=None, effective_from=date(2026, 11, 21))
    assert [s.version for s in schemas.list("trade")] == ["v1", "v10"]


def test_a_version_is_deprecated_and_activated_by_its_own_text(schemas: SchemaCatalogue) -> None:
    done = schemas.register("trade", TRADE, version="v1", effective_from=DAY, status="deprecated")
    assert (done.is_new, done.schema.status, done.schema.deprecated_at) == (False, "deprecated", DAY)
    assert schemas.show("trade") == done.schema
    assert [s.name for s in schemas.used("kalshi", DAY)] == ["gap", "orderbook", "status", "ticker"]
    assert [s.name for s in schemas.used("kalshi", date(2026, 11, 21))][-1] == "trade"

    schemas.register("trade", TRADE, version="v1", effective_from=DAY, status="active")
    assert schemas.show("trade").deprecated_at is None


def test_a_draft_holds_on_no_day(schemas: SchemaCatalogue) -> None:
    schemas.register("trade", grown(), version=None, effective_from=DAY, status="draft")

    assert {s.version for s in schemas.used("kalshi", DAY)} == {"v1"}
    assert schemas.show("trade").version == "v1"
    assert schemas.show("trade", "v2").status == "draft"


def test_the_inventory_says_what_a_day_is_written_in(schemas: SchemaCatalogue, url: str) -> None:
    schemas.register("trade", grown(), version=None, effective_from=DAY)
    by_date = schemas.used("kalshi", DAY)
    assert {(s.name, s.version) for s in by_date} >= {("trade", "v2"), ("gap", "v1")}
    assert not any(s.recorded for s in by_date)

    registry = PostgresRegistry(url)
    record = ObjectRecord("ssmd-normalized", "k", "normalized", "trade", DAY, "a" * 64, 10, 42, 1, 2, "v1")
    registry.record_objects("kalshi", [record])
    recorded = schemas.used("kalshi", DAY)
    assert all(s.recorded and s.version == "v1" for s in recorded)
    assert {s.name: s.records for s in recorded} == {"gap": 0, "orderbook": 0, "status": 0, "ticker": 0, "trade": 42}

    next_day = date(2026, 11, 23)
    other = ObjectRecord("b", "k", "normalized", "trade", next_day, "b" * 64, 1, 1, 1, 2, "v7")
    registry.record_objects("kalshi", [other])
    with pytest.raises(ConfigError, match="v7, which is not registered"):
        schemas.used("kalshi", next_day)
    registry.close()


def test_near_misses_of_names_and_versions(schemas: SchemaCatalogue) -> None:
    with pytest.raises(ConfigError) as unknown:
        schemas.show("trad")
    assert unknown.value.hint == "Did you mean 'trade'?"
    with pytest.raises(ConfigError) as version:
        schemas.show("trade", "v3")
    assert "Its versions: v1." in version.value.hint
    with pytest.raises(ConfigError) as feed:
        schemas.used("kalshy", DAY)
    assert "'kalshi'" in feed.value.hint


@pytest.mark.parametrize(
    ("name", "version", "status", "breaking", "text"),
    [
        ("Trade", None, None, None, TRADE),
        ("x" * 65, None, None, None, TRADE),
        ("trade'; --", None, None, None, TRADE),
        ("trade", "2", None, None, TRADE),
        ("trade", "v" + "9" * 10, None, None, TRADE),
        ("trade", None, "activ", None, TRADE),
        ("trade", None, None, " ", TRADE),
        ("trade", None, None, "x" * 10_001, TRADE),
        ("trade", None, None, None, "no schema"),
        ("trade", None, None, None, TRADE + "\0"),
    ],
)
def test_what_cannot_be_a_schema_is_refused_before_anything_is_stored(
    schemas: SchemaCatalogue, name: str, version: str | None, status: str | None, breaking: str | None, text: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        schemas.register(name, text, version=version, effective_from=DAY, status=status, breaking_changes=breaking)
    assert len(str(refused.value)) < 400
    assert len(schemas.list()) == 5


def test_a_registered_text_that_is_not_the_shipped_one_is_a_warning_and_stays(
    database: Database, schemas: SchemaCatalogue, postgres: Server, url: str
) -> None:
    postgres.run(f"UPDATE schema_versions SET schema_hash = '{'0' * 64}' WHERE name = 'gap'", url.rpartition("/")[2])
    with structlog.testing.capture_logs() as logs, database.transaction("bootstrap") as connection:
        bootstrap(connection)

    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning["schema"] == "gap:v1"
    assert schemas.show("gap").hash == "0" * 64


def test_shipped_environments_are_registered_once_with_their_keys_and_undeployed(
    database: Database, postgres: Server, url: str
) -> None:
    name = url.rpartition("/")[2]
    versions = postgres.run(
        "SELECT e.name, v.version, v.deployed_at, v.valid_from FROM environments e "
        "JOIN environment_versions v ON v.environment_id = e.id ORDER BY 1",
        name,
    )
    assert versions == [(env, 1, None, None) for env in ("kalshi-prod", "local", "test")]
    keys = "SELECT k.name FROM keys k JOIN environments e ON e.id = k.environment_id WHERE e.name = 'kalshi-prod'"
    assert {row[0] for row in postgres.run(keys, name)} == {"kalshi", "postgres", "nats", "storage", "redis", "airflow"}

    postgres.run("DELETE FROM keys WHERE name = 'redis'", name)
    postgres.run("UPDATE environments SET description = 'ours'", name)
    with database.transaction("bootstrap") as connection:
        bootstrap(connection)

    assert len(postgres.run("SELECT 1 FROM environment_versions", name)) == 3
    assert ("redis",) not in postgres.run(keys, name)
    assert set(postgres.run("SELECT description FROM environments", name)) == {("ours",)}


def test_a_broken_environment_file_does_not_keep_the_rest_out(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    from ssmd.registry import shipped

    (tmp_path / "a.yaml").write_text("nonsense")
    local = (resource("environments") / "local.yaml").read_text()
    (tmp_path / "b.yaml").write_text(local.replace("name: local", "name: another"))
    monkeypatch.setattr(shipped, "resource", lambda name: tmp_path)
    with structlog.testing.capture_logs() as logs, database.transaction("bootstrap") as connection:
        shipped.add_environments(connection)
        found = connection.exec_driver_sql("SELECT name FROM environments ORDER BY 1").scalars().all()

    assert "another" in found
    assert [line["file"] for line in logs if line["log_level"] == "warning"] == [str(tmp_path / "a.yaml")]
