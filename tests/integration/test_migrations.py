"""sql/ on a real PostgreSQL: what it creates equals what the code knows, repeats do no harm, errors say what to do."""

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa

from ssmd.errors import ConfigError, DataError, FatalError
from ssmd.registry import db, tables
from ssmd.registry.interface import RegistryUnavailable
from ssmd.registry.postgres import PostgresRegistry, prepare_database
from ssmd.registry.values import issue_type_of
from ssmd.resources import resource
from tests.databases import Database, database_server
from tests.servers import free_port

pytestmark = pytest.mark.integration


def structure(metadata: sa.MetaData) -> dict[str, Any]:
    """Everything about the tables that matters to the code, comparable."""
    return {
        table.name: {
            "columns": {
                column.name: (
                    str(column.type.compile()),
                    column.nullable,
                    column.primary_key,
                    column.computed is not None,
                    column.identity is not None,
                    column.server_default is not None,
                    getattr(column.type, "collation", None),
                )
                for column in table.columns
            },
            "foreign": sorted((key.parent.name, key.target_fullname) for key in table.foreign_keys),
            "unique": sorted(
                (
                    [column.name for column in constraint.columns],
                    bool(constraint.dialect_options["postgresql"].get("nulls_not_distinct")),
                )
                for constraint in table.constraints
                if isinstance(constraint, sa.UniqueConstraint)
            ),
            "indexes": sorted(
                (str(index.name), [c.name for c in index.columns]) for index in table.indexes if not index.unique
            ),
        }
        for table in metadata.sorted_tables
        if table.name != db.MIGRATIONS_TABLE
    }


def test_the_tables_that_the_code_knows_are_those_that_the_migrations_create(postgres: Database) -> None:
    engine = db.open_engine(postgres.fresh())
    found = sa.MetaData()
    found.reflect(engine)
    engine.dispose()
    real, known = structure(found), structure(tables.metadata)
    assert sorted(real) == sorted(known)
    for name, table in real.items():
        assert table == known[name], name


def test_each_migration_says_why_goes_forward_only_and_is_applied_under_its_own_table(postgres: Database) -> None:
    files = sorted(resource("sql").glob("*.sql"))
    for file in files:
        text = file.read_text()
        assert text.startswith("-- "), file
        assert "forward only" in text.partition("-- migrate:down")[2], file
    url = postgres.fresh()
    name = url.rpartition("/")[2]
    applied = [row[0] for row in postgres.run(f"SELECT version FROM {db.MIGRATIONS_TABLE} ORDER BY 1", name)]
    assert applied == [file.name.partition("_")[0] for file in files]


def test_preparing_a_database_creates_it_once_even_when_several_do_so_at_once(postgres: Database) -> None:
    url = postgres.url("made_by_four")
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            prepare_database(url)
        except BaseException as error:  # noqa: BLE001  (reported below, in the test's own thread)
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    prepare_database(url)
    assert postgres.run("SELECT count(*) FROM feeds", "made_by_four") == [(1,)]
    assert postgres.run("SELECT count(*) FROM feed_versions", "made_by_four") == [(2,)]
    assert postgres.run("SELECT pauses -> 0 ->> 'weekday' FROM feed_calendars", "made_by_four") == [("thursday",)]


def test_bootstrap_leaves_an_operators_changes_alone(postgres: Database) -> None:
    url = postgres.fresh()
    name = url.rpartition("/")[2]
    postgres.run("UPDATE feeds SET display_name = 'Mine'", name)
    postgres.run("UPDATE feed_versions SET endpoint_template = 'wss://proxy/ws' WHERE version = 'v2'", name)
    prepare_database(url)
    assert postgres.run("SELECT display_name FROM feeds", name) == [("Mine",)]
    assert ("wss://proxy/ws",) in postgres.run("SELECT endpoint_template FROM feed_versions", name)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO feeds (name, feed_type) VALUES ('Bad Name', 'websocket')",
        "INSERT INTO feeds (name, feed_type) VALUES ('other', 'carrier-pigeon')",
        "UPDATE feeds SET status = 'sleeping'",
        "INSERT INTO data_inventory (feed_id, data_type, date, storage_path) VALUES (1, 'cooked', '2026-11-22', 'x')",
        "INSERT INTO data_inventory (feed_id, data_type, date, storage_path) VALUES (99, 'raw', '2026-11-22', 'x')",
        "INSERT INTO data_inventory (feed_id, data_type, date, storage_path) "
        "VALUES (1, 'raw', '2026-11-22', 'x'), (1, 'raw', '2026-11-22', 'y')",
        "INSERT INTO data_gaps (feed_id, connection, from_ns, to_ns, reason) VALUES (1, 'c', 2, 1, 'silence')",
        "INSERT INTO data_gaps (feed_id, connection, from_ns, to_ns, reason) VALUES (1, 'c', 1, 2, 'boredom')",
        "INSERT INTO data_gaps (feed_id, connection, from_ns, to_ns, reason) "
        "VALUES (1, 'c', 1, 2, 'silence'), (1, 'c', 1, 3, 'silence')",
        "INSERT INTO data_quality_issues (feed_id, day, data_type, issue_type, severity) "
        "VALUES (1, '2026-11-22', 'raw', 'bad_luck', 'error')",
        "INSERT INTO markets (feed_id, ticker) VALUES (1, '')",
        "INSERT INTO markets (feed_id, ticker) VALUES (1, 'A'), (1, 'A')",
        "UPDATE feed_versions SET effective_to = '2000-01-01'",
    ],
)
def test_the_database_itself_refuses_what_must_not_be(postgres: Database, postgres_url: str, statement: str) -> None:
    with pytest.raises(psycopg2.IntegrityError):
        postgres.run(statement, postgres_url.rpartition("/")[2])


def test_generated_times_follow_the_nanoseconds(postgres: Database) -> None:
    name = postgres.fresh().rpartition("/")[2]
    postgres.run(
        "INSERT INTO data_gaps (feed_id, connection, from_ns, to_ns, reason) "
        "VALUES (1, 'c', 1786410915579123000, 1786410916000000000, 'silence')",
        name,
    )
    text = "SELECT gap_start::text, gap_type FROM data_gaps"
    ((start, gap_type),) = postgres.run(f"SET timezone = 'UTC'; {text}", name)
    assert str(start).startswith("2026-08-11 01:15:15.57912")
    assert gap_type == "silence"


def test_a_database_without_tables_is_told_to_migrate(postgres: Database) -> None:
    registry = PostgresRegistry(postgres.url("postgres"))
    with pytest.raises(ConfigError, match="ssmd db migrate"):
        registry.market("kalshi", "A")
    registry.close()


def test_a_database_that_does_not_exist_is_told_to_migrate(postgres: Database) -> None:
    registry = PostgresRegistry(postgres.url("nowhere"))
    with pytest.raises(RegistryUnavailable, match="no database") as refused:
        registry.ping()
    assert "ssmd db migrate" in refused.value.hint
    registry.close()


def test_a_user_that_the_server_does_not_know_is_a_configuration_error(postgres: Database) -> None:
    url = postgres.url("postgres").replace("postgres@", "nobody-here:hunter2@")
    with pytest.raises(ConfigError, match="nobody-here") as refused:
        PostgresRegistry(url).ping()
    assert "hunter2" not in str(refused.value)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="nobody-here") as migrating:
        db.migrate(url, wait_s=30)
    assert time.monotonic() - began < 10  # at once: it waits for a server, and not for another password
    assert "hunter2" not in str(migrating.value)


def test_a_server_that_is_not_there_is_named_with_the_way_to_start_it() -> None:
    url = f"postgresql+psycopg2://postgres:hunter2@127.0.0.1:{free_port()}/ssmd"
    for attempt in (PostgresRegistry(url).ping, lambda: db.migrate(url, wait_s=1)):
        with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:\d+/ssmd") as refused:
            attempt()
        assert "ssmd up" in refused.value.hint
        assert "hunter2" not in str(refused.value)


def test_a_broken_migration_is_named_and_leaves_nothing_behind(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "20260101000000_bad.sql").write_text(
        "-- migrate:up\nCREATE TABLE good (id INT);\nCREATE TABEL bad;\n-- migrate:down\n"
    )
    monkeypatch.setattr(db, "resource", lambda name: tmp_path)
    with pytest.raises(FatalError, match="syntax error"):
        db.migrate(postgres.url("broken"))
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE tablename = 'good'", "broken") == [(0,)]


def test_issues_of_before_get_the_design_s_words_as_new_ones_do(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url("issues_of_before")
    files = sorted(resource("sql").glob("*.sql"))
    before = [file for file in files if file.name < "20261122000008"]
    for file in before:
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(db, "resource", lambda name: tmp_path)
    db.migrate(url)
    words = (
        "invalid_json", "no_type", "shape_drift", "bad_price", "sequence_repeat", "sequence_reset", "sequence_late",
        "sequence_restart", "stale_delta", "wrong_sid", "negative_size", "crossed_book", "unknown_market",
        "exchange_error", "decoder_failed", "mapper_failed", "not_published_spool_full", "spool_torn", "stream_gap",
        "stream_rewound", "malformed_message", "bad_ticker",
    )  # fmt: skip
    postgres.run("INSERT INTO feeds (name, feed_type) VALUES ('kalshi', 'websocket')", "issues_of_before")
    rows = ", ".join(f"(1, '2026-11-22', 'raw', '{word}', 'warning', {n})" for n, word in enumerate(words))
    postgres.run(
        f"INSERT INTO data_quality_issues (feed_id, day, data_type, issue_type, severity, count) VALUES {rows}",
        "issues_of_before",
    )

    shutil.copy(next(file for file in files if file.name.startswith("20261122000008")), tmp_path)
    db.migrate(url)

    found = postgres.run("SELECT detail, issue_type FROM data_quality_issues ORDER BY count", "issues_of_before")
    assert found == [(word, issue_type_of(word)) for word in words]


def test_a_value_that_the_database_refuses_is_a_data_error_without_the_value(postgres: Database) -> None:
    engine = db.open_engine(postgres.fresh())
    with (
        pytest.raises(DataError, match="refuses a value") as refused,
        db.translated(engine.url, "test"),
        engine.begin() as connection,
    ):
        connection.execute(sa.insert(tables.feeds).values(name="x" * 40, feed_type="websocket"))
    assert "x" * 40 not in str(refused.value)
    engine.dispose()


def test_the_registry_comes_back_after_the_server_was_killed() -> None:
    with database_server() as server:
        registry = PostgresRegistry(server.fresh())
        registry.ping()
        server.stop(signal.SIGINT)
        server.start()
        registry.ping()  # over a new connection: the pool noticed that the old one is dead
        server.stop(signal.SIGQUIT)
        with pytest.raises(RegistryUnavailable):
            registry.ping()
        server.start()
        registry.ping()
        assert registry.market("kalshi", "A") is None
        registry.close()
