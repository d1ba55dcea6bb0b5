"""`ssmd data …` on a real archive and PostgreSQL: planted differences are named, scores kept, refusals the design's."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd import archiver as archiver_module
from ssmd.cli.main import main
from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.postgres import PostgresRegistry
from ssmd.registry.values import counted_issue
from tests.databases import Database as Server
from tests.kalshi_day import TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW
from tests.servers import free_port

pytestmark = pytest.mark.integration

DAY = day_of(now_ns()) - timedelta(days=2)
NOON = day_start_ns(DAY) + 12 * 3_600 * NS_PER_S
Output = pytest.CaptureFixture[str]


class Installation:
    """A day of raw objects, segments, rows and four gaps, as connector and archiver leave it; and its environment."""

    def __init__(self, folder: Path, server: Server, output: Output) -> None:
        self.folder = folder
        self.url = server.fresh()
        self._server = server
        self._output = output
        self.storage = LocalStorage(folder / "storage")
        self.registry = PostgresRegistry(self.url)
        self.file = self.environment("archive", self.url, str(folder / "storage"))
        asyncio.run(self._live_a_day())

    def environment(self, name: str, url: str, storage: str) -> Path:
        file = self.folder / f"{name}.yaml"
        file.write_text(
            f"apiVersion: ssmd/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec:\n  feed: kalshi\n"
            "  keys: {kalshi: {type: api_key, required: true, fields: [api_key, api_secret]}}\n"
            f"  database: {{url: {json.dumps(url)}}}\n  middleware:\n    transport: {{type: memory}}\n"
            f"    storage: {{type: local, path: {json.dumps(storage)}}}\n"
            "    cache: {type: memory}\n    journal: {type: memory}\n"
        )
        return file

    async def _live_a_day(self) -> None:
        said = Talk(start_ns=NOON)
        said.start()
        for _ in range(4):
            said.chatter(60)
            said.delta(TICKERS[0], skip=2)
            said.chatter(20)
        venue = Venue(self.storage, self.registry)
        await venue.receive(self.folder, [said])
        archiver, stop = venue.archiver(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(archiver.run(stop))
            while archiver.health()["taken_seq"] != venue.transport.stream(FEED).last_seq:  # noqa: ASYNC110  polled
                await asyncio.sleep(0.005)
            stop.set()

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return self._server.run(statement, self.url.rpartition("/")[2])

    def run(self, *words: str, file: Path | None = None, code: int = 0) -> str:
        self._output.readouterr()
        assert main(["data", *words, "--env", str(file or self.file)]) == code
        said = self._output.readouterr()
        return said.out or said.err

    def gaps(self, code: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("gaps", "--date", str(DAY), "--json", code=code))
        return found

    def gap_files(self) -> list[Path]:
        return sorted((self.folder / "storage" / RAW / FEED / f"{DAY:%Y/%m/%d}" / "_gaps").iterdir())

    def row(self) -> list[str]:
        """The day's line of the inventory."""
        return self.run("inventory", "--from", str(DAY), "--to", str(DAY)).splitlines()[-1].split()


@pytest.fixture
def made(tmp_path: Path, postgres: Server, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(archiver_module, "FETCH_S", 0.002)
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)
    installation = Installation(tmp_path, postgres, capsys)
    yield installation
    installation.registry.close()


def test_deleted_and_altered_gaps_are_named(made: Installation) -> None:
    assert [line["known"] for line in made.gaps(0)] == ["object+row"] * 4

    made.gap_files()[0].unlink()
    made.sql("DELETE FROM data_gaps WHERE from_ns = (SELECT from_ns FROM data_gaps ORDER BY from_ns OFFSET 1 LIMIT 1)")
    made.sql(
        "UPDATE data_gaps SET to_ns = to_ns + 7000000000, next_seq = 999 "
        "WHERE from_ns = (SELECT max(from_ns) FROM data_gaps)"
    )

    lines = made.gaps(6)
    assert [line["known"] for line in lines] == ["row only", "object only", "object+row", "object+row"]
    assert [len(line["differences"]) for line in lines] == [1, 1, 0, 2]
    assert "to is" in lines[3]["differences"][0]
    assert "999 in the row" in lines[3]["differences"][1]
    said = made.run("gaps", "--date", str(DAY), code=6)
    assert said.count("✗ differs") == 4
    assert "✓ total" in said
    assert "sequence_gap" in said
    found = json.loads(made.run("verify", "--date", str(DAY), "--json", code=6))["findings"]
    assert {finding["rule"] for finding in found} >= {"gap_row", "gap_object"}


def test_either_place_alone_is_shown_and_neither_is_unavailable(made: Installation) -> None:
    nowhere = f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd"
    asked = ("gaps", "--date", str(DAY), "--json")

    without_rows = json.loads(
        made.run(*asked, file=made.environment("rows", nowhere, str(made.folder / "storage")), code=7)
    )
    assert [(line["known"], line["differences"]) for line in without_rows] == [("object, rows not asked", [])] * 4
    blocked = made.folder / "file"
    blocked.write_text("not a folder")
    without_objects = json.loads(made.run(*asked, file=made.environment("objects", made.url, str(blocked)), code=7))
    assert [(line["known"], line["differences"]) for line in without_objects] == [("row, objects not asked", [])] * 4
    said = made.run(*asked, file=made.environment("neither", nowhere, str(blocked)), code=7)
    assert "rows are not shown" in said
    assert "objects are not shown" in said


def test_a_day_goes_from_a_score_on_the_fly_to_a_stored_one(made: Installation) -> None:
    [known, *_] = made.registry.objects(FEED, DAY, "raw")
    today = msgspec.structs.replace(known, day=day_of(now_ns()), key="kalshi/later")
    made.registry.record_objects(FEED, [today])  # capture went on
    made.registry.record_issues([counted_issue(FEED, DAY, "normalized", "stream_gap", 50)])
    status, quality, gaps = made.row()[3:]
    assert (status, gaps) == ("processing", "4")
    assert 0.5 < float(quality) < 0.95
    assert made.sql("SELECT count(quality_score) FROM data_inventory") == [(0,)]

    made.run("compact", "--date", str(DAY))
    compacted = made.row()[3:]
    assert compacted[0] == "processing"
    assert float(compacted[1]) > float(quality)  # what the stream lost is there again
    assert made.sql(
        f"SELECT data_type, quality_score, processed_at FROM data_inventory WHERE date = '{DAY}' ORDER BY 1"
    ) == [(kind, Decimal(compacted[1]), None) for kind in ("normalized", "raw")]

    made.run("verify", "--date", str(DAY))
    assert made.row()[3:] == ["partial", compacted[1], "4"]
    report = json.loads(made.run("quality", "--date", str(DAY), "--json"))
    assert f"{report['quality_score']:.2f}" == compacted[1]
    assert all(report["verified"].values())
    assert report["gaps"]["sequence_gap"]["count"] == 4
    assert "Status: partial" in made.run("quality", "--date", str(DAY))
    assert len(json.loads(made.run("inventory", "--status", "partial", "--json"))) == 2


def test_a_day_without_data_is_refused_with_the_latest(made: Installation) -> None:
    later = DAY + timedelta(days=1)
    for command in ("verify", "compact", "quality"):
        assert made.run(command, "--feed", "kalshi", "--date", str(later), code=2) == (
            f"Error: Validation failed\n  - No data inventory for kalshi on {later}\n  - Latest available: {DAY}\n"
        )


def test_any_text_as_a_feed_is_refused_in_few_words(made: Installation) -> None:
    hostile = ("klashi", "kalshi'; DROP TABLE feeds; --", "\x1b[2J\n\udcff" + "x" * 10_000, "-")
    for command in ("inventory", "gaps", "quality", "verify", "compact"):
        for feed in hostile:
            date = [] if command == "inventory" else ["--date", str(DAY)]
            said = made.run(command, f"--feed={feed}", *date, code=2)
            assert "Error: Validation failed\n  - Feed '" in said
            assert "Available feeds:\n  kalshi (active) - " in said
            assert len(said) < 400
            assert "\x1b" not in said
    assert made.sql("SELECT count(*) FROM feeds") == [(1,)]
