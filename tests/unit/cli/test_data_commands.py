"""`ssmd data inventory|gaps|quality`: the design's printed examples, and what they say when something is not there."""

import asyncio
import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from ssmd.archive.writer import store_gap
from ssmd.cli.data_gaps import total
from ssmd.cli.data_inventory import readable
from ssmd.cli.main import main
from ssmd.clock import NS_PER_DAY, NS_PER_S, day_of, day_start_ns, iso, now_ns
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import ObjectInfo, StorageUnavailable
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.registry.interface import Issue, ObjectRecord, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.values import counted_issue
from ssmd.resources import resource
from tests.kalshi_day import TICKERS, Talk, Venue

MEMORY = ["--env", str(resource("environments") / "test.yaml")]
FEED, RAW = "kalshi", "ssmd-raw"
DAY = date(2026, 11, 20)
START = day_start_ns(DAY)

INVENTORY = """\
Feed: kalshi
Date Range: 2025-12-01 to 2025-12-14

Date        Raw     Normalized  Status     Quality  Gaps
2025-12-01  523MB   312MB       complete   0.99     0
2025-12-02  518MB   308MB       complete   1.00     0
2025-12-03  531MB   319MB       partial    0.95     2
2025-12-04  -       -           missing    -        -
2025-12-13  1.2GB   640KB       failed     0.50     1
2025-12-14  -       -           processing -        -
"""


class Database(MemoryRegistry):
    """A database that can be switched off."""

    away = False

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        if self.away:
            raise RegistryUnavailable("the database is switched off")
        return super().gaps(feed, day, last)


class Archive(MemoryStorage):
    """A storage that can be switched off."""

    away = False

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        if self.away:
            raise StorageUnavailable("the storage is switched off")
        return await super().list(bucket, prefix)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Database:
    """The registry that the commands open."""
    registry = Database()
    monkeypatch.setattr("ssmd.cli.opening.open_registry", lambda *_arguments: registry)
    return registry


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The storage that the commands open."""
    storage = Archive()
    monkeypatch.setattr("ssmd.cli.opening.open_storage", lambda *_arguments: storage)
    return storage


def archived(day: date, kind: str = "raw", size: int = 100, records: int = 5, version: str = "v1") -> ObjectRecord:
    start = day_start_ns(day)
    bucket, key = f"ssmd-{kind}", f"kalshi/{version}/{day:%Y/%m/%d}/trades-00"
    schema = None if kind == "raw" else version
    return ObjectRecord(
        bucket, key, kind, "trades", day, "0" * 64, size, records, start, start + NS_PER_DAY - 1, schema, 3
    )


def fill(registry: Database, day: date, raw: int, normalized: int, status: str, score: float, gaps: int = 0) -> None:
    registry.record_objects(FEED, [archived(day, "raw", raw), archived(day, "normalized", normalized)])
    start = day_start_ns(day)
    registry.record_gaps([Gap(FEED, "c-1", None, start + n, start + n + 1, "silence") for n in range(gaps)])
    for kind in ("raw", "normalized"):
        registry.set_day_condition(FEED, day, kind, status, score)


def test_the_inventory_is_the_table_of_the_design(registry: Database, capsys: pytest.CaptureFixture[str]) -> None:
    fill(registry, date(2025, 12, 1), 523_000_000, 312_400_000, "complete", 0.99)
    fill(registry, date(2025, 12, 2), 518_400_000, 308_000_000, "complete", 1.0)
    fill(registry, date(2025, 12, 3), 530_600_000, 319_000_000, "partial", 0.95, gaps=2)
    for day in range(5, 13):
        fill(registry, date(2025, 12, day), 1, 1, "complete", 1.0)
    fill(registry, date(2025, 12, 13), 1_240_000_000, 640_000, "failed", 0.5, gaps=1)
    begun = archived(date(2025, 12, 14))
    registry.record_objects(FEED, [begun])
    registry.replace_objects(FEED, [(begun.bucket, begun.key)], [])

    asked = ["data", "inventory", "--feed", "kalshi", "--from", "2025-12-01", "--to", "2025-12-14", *MEMORY]
    assert main(asked) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[8:16] == [f"2025-12-{day:02}  1B      1B          complete   1.00     0" for day in range(5, 13)]
    assert "\n".join([*lines[:8], *lines[16:], ""]) == INVENTORY


@pytest.mark.usefixtures("registry")
def test_days_of_one_status_are_looked_for_in_the_whole_archive(
    registry: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(registry, date(2024, 1, 1), 1_000, 1_000, "partial", 0.9, gaps=1)
    fill(registry, date(2024, 1, 3), 1_000, 1_000, "complete", 1.0)
    registry.set_day_condition(FEED, date(2024, 1, 3), "normalized", "failed", 1.0)

    found = {}
    for status in ("partial", "complete", "failed", "missing", "processing"):
        assert main(["data", "inventory", "--status", status, "--to", "2024-02-01", *MEMORY]) == 0
        found[status] = [line.split()[0] for line in capsys.readouterr().out.splitlines()[4:]]

    assert found == {
        "partial": ["2024-01-01"],
        "complete": [],
        "failed": ["2024-01-03"],
        "missing": ["2024-01-02"],
        "processing": [],
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--status", "partail"], "Did you mean 'partial'?"),
        (["--status", "'; drop table\x1b[2J" * 100], "Known: complete"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--from 2026-01-02 is after --to 2026-01-01"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_wrong_options_of_the_inventory(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inventory", *options, *MEMORY]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error) < 300
    assert "\x1b" not in error


def test_a_hole_is_shown_between_days_with_data_only(registry: Database, capsys: pytest.CaptureFixture[str]) -> None:
    today = day_of(now_ns())
    days = [today - timedelta(days=n) for n in range(6)]
    registry.record_objects(FEED, [archived(days[4]), archived(days[1])])

    assert main(["data", "inventory", *MEMORY]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[4:]]
    assert [(line[0], line[3]) for line in lines] == [
        (days[4].isoformat(), "processing"),
        (days[3].isoformat(), "missing"),
        (days[2].isoformat(), "missing"),
        (days[1].isoformat(), "processing"),
        (days[0].isoformat(), "processing"),  # yesterday has data: today will
    ]
    assert main(["data", "inventory", *MEMORY, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["data", "inventory", *MEMORY, "--to", days[5].isoformat()]) == 0
    assert capsys.readouterr().out == ""


def test_json_and_long_tell_of_every_kind_and_schema_version(
    registry: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.record_objects(
        FEED, [archived(DAY), archived(DAY, "normalized", 30), archived(DAY, "normalized", 70, version="v2")]
    )
    asked = ["data", "inventory", "--from", str(DAY), "--to", str(DAY), *MEMORY]

    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["data_type"], row["schema_version"], row["byte_size"]) for row in rows] == [
        ("normalized", "v1", 30),
        ("normalized", "v2", 70),
        ("raw", None, 100),
    ]
    assert (rows[2]["day"], rows[2]["record_count"], rows[2]["first"]) == (DAY.isoformat(), 5, iso(START))
    assert {row["quality_score"] for row in rows} == {1.0}
    assert main([*asked, "--long"]) == 0
    assert [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [DAY.isoformat(), "normalized", "v1"],
        [DAY.isoformat(), "normalized", "v2"],
        [DAY.isoformat(), "raw", ""],
    ]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [str(DAY), "100B", "100B", "processing", "1.00", "0"]


def test_a_day_without_a_stored_score_shows_what_it_would_be_now(
    registry: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.record_objects(FEED, [archived(DAY)])
    registry.record_gaps([Gap(FEED, "c-1", None, START, START + NS_PER_DAY // 5, "silence")])

    assert main(["data", "inventory", "--from", str(DAY), "--to", str(DAY), *MEMORY]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["0.80", "1"]
    assert registry.inventory(FEED, DAY, DAY)[0].quality_score is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "-"), (1, "1B"), (999, "999B"), (1_000, "1.0KB"), (9_949, "9.9KB"), (9_960, "10KB"), (999_499, "999KB"),
        (999_500, "1.0MB"), (523_000_000, "523MB"), (1_234_567_890, "1.2GB"), (5 * 10**15, "5.0PB"),
    ],
)  # fmt: skip
def test_sizes_are_readable(size: int, text: str) -> None:
    assert readable(size) == text


# -- gaps -------------------------------------------------------------------------------------------------------------


def gap(from_s: float, to_s: float, reason: str = "connection_lost", **changes: object) -> Gap:
    known = Gap(FEED, "c-1", None, START + int(from_s * NS_PER_S), START + int(to_s * NS_PER_S), reason)
    return msgspec.structs.replace(known, **changes)


def plant(registry: Database, storage: Archive, objects: Sequence[Gap], rows: Sequence[Gap]) -> list[str]:
    registry.record_gaps(rows)
    return [asyncio.run(store_gap(storage, RAW, one)) for one in objects]


def asked_gaps(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, object]]]:
    code = main(["data", "gaps", *(options or ("--date", str(DAY))), "--json", *MEMORY])
    return code, json.loads(capsys.readouterr().out)


def test_gaps_known_in_both_places_are_shown_with_their_length(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    one = gap(1, 2.5, "sequence_gap", sid=7, last_seq=3, next_seq=9, tickers=("T-1",))
    [key] = plant(registry, storage, [one], [one])

    code, [line] = asked_gaps(capsys)
    assert code == 0
    assert (line["seconds"], line["reason"], line["sid"], line["tickers"]) == (1.5, "sequence_gap", 7, ["T-1"])
    assert (line["known"], line["object"], line["differences"]) == ("object+row", key, [])


def test_time_is_summed_by_reason(registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    gaps = [gap(0, 1.5), gap(10, 12), gap(20, 3_620, "planned_teardown")]
    plant(registry, storage, gaps, gaps)

    assert main(["data", "gaps", "--date", str(DAY), *MEMORY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("3,603.500 s in 3 gaps: connection_lost 3.500 s (2), planned_teardown 3,600.000 s (1)")


def test_time_in_several_gaps_is_summed_once() -> None:
    ended, started = gap(27.914, 28.915, "planned_teardown"), gap(27.915, 248, "planned_teardown")
    within, apart = gap(100, 110), gap(300, 301)

    assert total([started, within, ended, apart]) == (
        "221.086 s in 4 gaps: connection_lost 11.000 s (2), planned_teardown 220.086 s (2)"
    )
    assert total([apart]).startswith("1.000 s in 1 gap: ")


def test_each_difference_is_named_and_is_a_finding(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    same = gap(0, 1)
    plant(
        registry,
        storage,
        [same, gap(10, 11), gap(30, 31), gap(40, 41, last_seq=3), gap(50, 51, "silence")],
        [same, gap(20, 21), gap(30, 33), gap(40, 41, last_seq=4, tickers=("A", "B")), gap(50, 51, "startup")],
    )

    code, lines = asked_gaps(capsys)
    assert code == 6
    at = {line["from"]: (line["known"], line["differences"]) for line in lines}
    assert at == {
        iso(START): ("object+row", []),
        iso(START + 10 * NS_PER_S): ("object only", ["the database has no row of it"]),
        iso(START + 20 * NS_PER_S): ("row only", ["the archive has no object of it"]),
        iso(START + 30 * NS_PER_S): (
            "object+row",
            ["to is 2026-11-20T00:00:31.000000Z in the object, 2026-11-20T00:00:33.000000Z in the row"],
        ),
        iso(START + 40 * NS_PER_S): (
            "object+row",
            ["last_seq is 3 in the object, 4 in the row", "tickers is none in the object, 2 tickers (A, B) in the row"],
        ),
        iso(START + 50 * NS_PER_S): ("object+row", ["reason is silence in the object, startup in the row"]),
    }
    assert main(["data", "gaps", "--date", str(DAY), *MEMORY]) == 6
    out = capsys.readouterr().out
    assert out.count("✗ differs") == 6
    assert "silence of c-1 from 2026-11-20T00:00:50.000000Z: reason is silence in the object, startup in the row" in out


def test_hostile_names_in_a_gap_are_shown_without_harm(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07"
    plant(registry, storage, [gap(0, 1, connection=evil, tickers=(evil,))], [gap(0, 1, connection=evil)])

    assert main(["data", "gaps", "--date", str(DAY), *MEMORY]) == 6
    out = capsys.readouterr().out
    assert "tickers is 1 tickers" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_an_object_that_is_no_gap_is_a_finding(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    [key] = plant(registry, storage, [gap(0, 1)], [gap(0, 1)])
    asyncio.run(storage.replace(RAW, key, b'{"feed":'))

    code, lines = asked_gaps(capsys)

    assert code == 6
    assert [line["known"] for line in lines] == ["row only", "object only"]
    assert lines[1]["object"] == key
    assert "the object is not a gap" in str(lines[1]["differences"])
    assert main(["data", "gaps", "--date", str(DAY), *MEMORY]) == 6


def test_a_gap_of_the_last_minute_may_be_in_one_place_only(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    now = now_ns()
    plant(registry, storage, [gap(0, 1, from_ns=now - 2, to_ns=now)], [])

    code, [line] = asked_gaps(capsys, "--from", day_of(now - 2).isoformat())
    assert (code, line["known"], line["recent"]) == (0, "object only", True)
    assert main(["data", "gaps", "--from", day_of(now - 2).isoformat(), *MEMORY]) == 0
    assert "just recorded" in capsys.readouterr().out


def test_a_gap_over_several_days_is_found_from_each_of_them(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    long = gap(80_000, 80_000 + 3 * 86_400)
    plant(registry, storage, [long], [long])

    for day in range(20, 24):
        code, [line] = asked_gaps(capsys, "--date", f"2026-11-{day}")
        assert (code, line["known"]) == (0, "object+row")
    code, lines = asked_gaps(capsys, "--from", "2026-11-01", "--to", "2026-11-23")
    assert (code, len(lines)) == (0, 1)
    assert asked_gaps(capsys, "--date", "2026-11-19") == (0, [])


def test_the_other_place_is_shown_when_one_is_away(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(registry, storage, [gap(0, 1)], [gap(0, 1), gap(5, 6)])
    asked = ["data", "gaps", "--date", str(DAY), "--json", *MEMORY]

    registry.away = True
    assert main(asked) == 7
    said = capsys.readouterr()
    assert [(line["known"], line["differences"]) for line in json.loads(said.out)] == [("object, rows not asked", [])]
    assert "the database is switched off" in said.err
    registry.away, storage.away = False, True
    assert main(asked) == 7
    said = capsys.readouterr()
    assert [(line["known"], line["differences"]) for line in json.loads(said.out)] == [
        ("row, objects not asked", [])
    ] * 2
    assert "the storage is switched off" in said.err
    registry.away = True
    assert main(asked) == 7
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "options",
    [
        ["--date", "2026-11-20", "--to", "2026-11-21"],
        ["--from", "2026-11-21", "--to", "2026-11-20"],
        ["--from", "0001-01-01"],
        ["--date", "yesterday"],
        ["--feed", "klashi"],
        ["--feed", "x'; --\n" * 2_000],
    ],
)
@pytest.mark.usefixtures("registry", "storage")
def test_wrong_options_of_gaps(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "gaps", *options, *MEMORY]) == 2
    assert 0 < len(capsys.readouterr().err) < 400


# -- quality ----------------------------------------------------------------------------------------------------------


def trouble(registry: Database) -> None:
    registry.record_objects(FEED, [archived(DAY, records=1_000), archived(DAY, "normalized")])
    registry.record_gaps([gap(0, 8_640), gap(100, 200, "silence"), gap(300, 400, "sequence_gap", sid=3)])
    registry.record_issues(
        [
            counted_issue(FEED, DAY, "raw", "invalid_json", 10, "\x1b[31mnot json"),
            counted_issue(FEED, DAY, "raw", "sequence_repeat", 40),
            counted_issue(FEED, DAY, "raw", "sequence_late", 4),
            Issue(FEED, DAY, "raw", "refused", "info", 9, detail="exchange_error"),
        ]
    )


def test_the_quality_of_a_day_is_explained(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble(registry)

    assert main(["data", "quality", "--feed", FEED, "--date", str(DAY), "--json", *MEMORY]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["quality_score"] == 0.88
    assert answer["parts"] == {
            "coverage": 0.9, "errors": 0.99, "duplicates": 0.99, "order": 0.999, "expectations": 1.0,
        }  # fmt: skip
    assert (answer["error_count"], answer["duplicate_count"], answer["out_of_order_count"]) == (10, 40, 4)
    assert (answer["records"], answer["lost_seconds"], answer["meant_seconds"]) == (1_000, 8_640, 86_400)
    assert answer["gaps"]["silence"] == {"count": 1, "seconds": 100}
    assert [(one["issue_type"], one["detail"], one["count"]) for one in answer["issues"]] == [
        ("duplicate", "sequence_repeat", 40),
        ("out_of_order", "sequence_late", 4),
        ("parse_error", "invalid_json", 10),
        ("refused", "exchange_error", 9),
    ]
    assert answer["verified"] == {"raw": None, "normalized": None}
    assert "was not read back since it changed. Run: ssmd data verify" in answer["not_checked"][0]


def test_the_report_for_people_is_printable(registry: Database, capsys: pytest.CaptureFixture[str]) -> None:
    trouble(registry)
    registry.set_day_condition(FEED, DAY, "raw", "partial", 0.88)

    assert main(["data", "quality", "--date", str(DAY), *MEMORY]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.startswith(
        f"Feed: kalshi\nDate: {DAY}\nStatus: processing\nQuality: 0.88\n\nCoverage    0.9000  2 h 24 min"
    )
    assert "2 h 24 min 0.000 s lost of 24 h 0 min 0.000 s\nErrors      0.9900  10 of 1,000 records\n" in out
    assert "parse_error (invalid_json)  \ufffd[31mnot json" in out
    assert "✓ raw          verified 20" in out
    assert "○ normalized   not verified" in out


def test_a_lost_day_without_inventory_has_a_report(registry: Database, capsys: pytest.CaptureFixture[str]) -> None:
    registry.record_gaps([gap(-10, 90_000)])

    assert main(["data", "quality", "--date", str(DAY), "--json", *MEMORY]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["quality_score"]) == ("missing", 0.0)


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize("command", ["verify", "compact", "quality"])
def test_a_day_without_data_is_refused_with_the_latest_there_is(
    command: str, registry: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.record_objects(FEED, [archived(date(2025, 12, 13)), archived(date(2025, 12, 14))])

    assert main(["data", command, "--feed", FEED, "--date", "2025-12-20", *MEMORY]) == 2
    assert capsys.readouterr().err == (
        "Error: Validation failed\n  - No data inventory for kalshi on 2025-12-20\n  - Latest available: 2025-12-14\n"
    )
    assert main(["data", command, "--feed", "polymarket", "--date", "2025-12-20", *MEMORY]) == 2
    assert "polymarket" in capsys.readouterr().err


def test_objects_without_rows_are_data_to_verify(
    registry: Database, storage: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(storage.put_once(RAW, f"kalshi/{DAY:%Y/%m/%d}/trades-00.jsonl.zst", b"x"))

    assert main(["data", "verify", "--date", str(DAY), *MEMORY]) == 6
    assert "no_manifest" in capsys.readouterr().out
    assert registry.inventory(FEED, DAY, DAY) == []


# -- data compact ----------------------------------------------------------------------------------------------------


async def ahead_of_raw(registry: Database, storage: Archive, folder: Path, day: date) -> None:
    """The archiver has stored a trade whose frame the connector has not put into the raw archive."""
    said, ahead = Talk(start_ns=day_start_ns(day)), Talk("c-2", day_start_ns(day) + NS_PER_S)
    said.start()
    said.chatter(60)
    ahead.trade(TICKERS[0], "ahead")
    venue = Venue(storage, registry)
    await venue.receive(folder, [said])
    await venue.publish(ahead.events)
    await venue.archive_stream()


def test_what_raw_does_not_have_yet_is_a_note_of_compaction_and_a_finding_once_the_day_is_over(
    registry: Database, storage: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    today = day_of(now_ns())
    for day in (today, today - timedelta(days=1)):
        asyncio.run(ahead_of_raw(registry, storage, tmp_path, day))

    assert main(["data", "compact", "--date", str(today), *MEMORY]) == 0
    running, _ = capsys.readouterr()
    assert "○ note" in running
    assert "1 trade of segments are not in the raw archive yet: the day is not over" in running
    assert "✗" not in running

    assert main(["data", "compact", "--date", str(today - timedelta(days=1)), *MEMORY]) == 6
    ended, _ = capsys.readouterr()
    assert "✗ only there" in ended
    assert "1 trade stand in segments but not in the raw archive" in ended
