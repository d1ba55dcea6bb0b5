"""`ssmd data verify` finds what was planted in a real archive, by its rule, with exit code 6, and says what it did."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ssmd.archive.frames import Decompressor
from ssmd.archive.writer import store_gap
from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.market.events import Gap
from ssmd.registry.checks import CheckRuns
from ssmd.registry.database import Database
from ssmd.registry.day_locks import DayLocks
from tests.databases import Database as Server
from tests.integration.test_quality_run import Installation as Place
from tests.integration.test_quality_run import Rest
from tests.kalshi_day import NORMALIZED, TICKERS
from tests.quality_day import CleanTalk
from tests.raw_archive import FEED, RAW
from tests.servers import free_port

pytestmark = pytest.mark.integration

TODAY = day_of(now_ns())
DAY = TODAY - timedelta(days=2)
START = day_start_ns(DAY) + 9 * 3_600 * NS_PER_S
Output = pytest.CaptureFixture[str]


class Installation(Place):
    """A healthy day, archived by the real archiver and compacted by the real command."""

    def live(self, talk: CleanTalk) -> None:
        asyncio.run(self.world.archive(talk, compacted=False, day=DAY))
        self.run("data", "compact", "--date", str(DAY), code=0)

    def verify(self, *options: str, code: int = 0) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            self.run("data", "verify", "--date", str(DAY), "--json", *options, code=code)[0]
        )
        return said

    def record_gap(self, gap: Gap) -> None:
        """The gap's object, without its row."""
        asyncio.run(store_gap(self.world.storage, RAW, gap))

    def rules(self, *options: str) -> set[str]:
        return {finding["rule"] for finding in self.verify(*options, code=6)["findings"]}

    @property
    def raw(self) -> Path:
        return self.folder / "storage" / RAW / FEED / f"{DAY:%Y/%m/%d}"

    @property
    def trades(self) -> Path:
        return self.raw / "trades-00.jsonl.zst"

    def compacted(self, ticker: str = TICKERS[0], kind: str = "trade") -> Path:
        found = self.folder / "storage" / NORMALIZED / FEED / "v1" / kind / f"{DAY:%Y/%m/%d}"
        [file] = [each for each in found.rglob("data.capnp.zst") if each.parent.name.startswith(ticker[:12])]
        return file

    def statuses(self) -> set[str]:
        return {row.status for row in self.registry.inventory(FEED, DAY, DAY)}

    def last_check(self) -> Any:
        database = Database(self.url)
        try:
            return CheckRuns(database).of_days(FEED, DAY, DAY)[-1]
        finally:
            database.close()


@pytest.fixture
def rest() -> Iterator[Rest]:
    serving = Rest()
    yield serving
    serving.close()


@pytest.fixture
def talk() -> CleanTalk:
    return CleanTalk(start_ns=START).clean(240)


@pytest.fixture
def made(
    tmp_path: Path, postgres: Server, capsys: Output, monkeypatch: pytest.MonkeyPatch, rest: Rest, talk: CleanTalk
) -> Iterator[Installation]:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)
    installation = Installation(tmp_path, postgres, capsys, rest.url)
    installation.live(talk)
    yield installation
    installation.registry.close()


def test_a_sound_day_is_complete_and_the_run_is_noted(made: Installation) -> None:
    said = made.verify()

    assert said["findings"] == []
    assert set(said["checks"].values()) == {"ran"}
    assert made.statuses() == {"complete"}
    run = made.last_check()
    assert (run.check, run.state, run.exit_code, run.findings) == ("verify", "passed", 0, 0)
    assert run.detail["counts"]["raw_records"] == said["counts"]["raw_records"]


def flip_a_byte(made: Installation) -> None:
    data = bytearray(made.trades.read_bytes())
    data[len(data) // 2] ^= 0x01
    made.trades.write_bytes(data)


def flip_a_compacted_byte(made: Installation) -> None:
    file = made.compacted()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x01
    file.write_bytes(data)


def lose_an_object(made: Installation) -> None:
    made.trades.unlink()


def lose_a_compacted_object(made: Installation) -> None:
    made.compacted().unlink()


def truncate_a_frame(made: Installation) -> None:
    made.trades.write_bytes(made.trades.read_bytes()[:-7])


def add_a_frame(made: Installation) -> None:
    [line] = Decompressor("").feed(made.trades.read_bytes())[:1]
    again = zstandard.ZstdCompressor(write_checksum=True).compress(line[: line.index(b"\n") + 1])
    made.trades.write_bytes(made.trades.read_bytes() + again)


def add_an_object(made: Installation) -> None:
    (made.raw / "trades-77.jsonl.zst").write_bytes(made.trades.read_bytes())


def add_a_stranger(made: Installation) -> None:
    (made.raw / "trades-00.jsonl.zst.bak").write_bytes(b"old")


def alter_a_row(made: Installation) -> None:
    made.sql("UPDATE data_objects SET records = records + 1 WHERE key LIKE '%trades-00%'")


def drop_a_row(made: Installation) -> None:
    made.sql("DELETE FROM data_objects WHERE key LIKE '%trades-00%'")


def leave_a_gap_without_row(made: Installation) -> None:
    made.record_gap(Gap(FEED, "c-1", None, START, START + NS_PER_S, "silence"))


@pytest.mark.parametrize(
    ("plant", "expected", "about"),
    [
        (flip_a_byte, {"sha256", "frame"}, "trades-00"),
        (flip_a_compacted_byte, {"sha256", "frame", "renormalize"}, "data.capnp.zst"),
        (lose_an_object, {"no_object", "row_without_object", "hole"}, "trades-00"),
        (lose_a_compacted_object, {"no_object", "row_without_object", "renormalize"}, "data.capnp.zst"),
        (truncate_a_frame, {"sha256", "frame"}, "trades-00"),
        (add_a_frame, {"sha256", "repeat"}, "trades-00"),
        (add_an_object, {"no_manifest", "no_row", "repeat"}, "trades-77"),
        (add_a_stranger, {"stray"}, "trades-00.jsonl.zst.bak"),
        (alter_a_row, {"row"}, "trades-00"),
        (drop_a_row, {"no_row"}, "trades-00"),
        (leave_a_gap_without_row, {"gap_row"}, "silence"),
    ],
)
def test_what_was_planted_is_found_named_and_noted(
    made: Installation, plant: Callable[[Installation], None], expected: set[str], about: str
) -> None:
    made.verify()
    plant(made)

    said = made.verify(code=6)
    found = said["findings"]

    assert {finding["rule"] for finding in found} >= expected
    assert any(about in f"{finding['object']} {finding['message']}" for finding in found)
    assert made.statuses() == {"failed"}
    run = made.last_check()
    assert (run.state, run.exit_code) == ("findings", 6)
    assert run.findings == len(found) + said["suppressed"]
    assert run.detail["findings"]


# --- a sample ---


def test_a_sample_reads_some_tickers_and_makes_no_day_complete(made: Installation) -> None:
    said = made.verify("--sample", "1")

    assert said["findings"] == []
    assert said["checks"]["renormalize"].startswith("ran on a sample: 1 of 3 tickers (1)")
    assert said["checks"]["raw"] == "ran"
    assert made.statuses() == {"processing"}
    assert made.verify("--sample", "1")["sampled"] == said["sampled"]

    made.verify()
    made.verify("--sample", "50%")
    assert made.statuses() == {"complete"}


def test_a_sample_still_finds_a_flipped_byte_and_a_lost_object_of_any_ticker(made: Installation) -> None:
    for ticker in TICKERS:
        file = made.compacted(ticker)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert made.rules("--sample", "1") >= {"sha256"}
        file.unlink()
        assert made.rules("--sample", "1") >= {"renormalize"}
        file.write_bytes(whole)
    assert made.statuses() == {"failed"}


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-5", "five", "5 %", "", "1e3", "'; DROP", "x" * 10_000, "\udc80"])
def test_what_is_no_sample_is_refused(made: Installation, text: str) -> None:
    assert "is no share and no number" in made.run("data", "verify", f"--sample={text}", code=2)[1]


# --- the exchange's own list ---


def test_trades_that_only_the_exchange_lists_are_found(made: Installation, rest: Rest, talk: CleanTalk) -> None:
    rest.trades = list(talk.trades)
    said = made.verify("--exchange")
    assert said["findings"] == []
    assert (
        said["checks"]["exchange"]
        == f"ran: {said['counts']['exchange_trades']} trades of 3 markets that the exchange lists"
    )
    assert said["counts"]["exchange_trades"] >= len(talk.trades) - 10

    middle = talk.trades[len(talk.trades) // 2]
    rest.trades.append({**middle, "trade_id": "never-came"})
    [finding] = made.verify("--exchange", code=6)["findings"]
    assert (finding["rule"], finding["object"]) == ("exchange_trades", middle["ticker"])
    assert "never-came" in finding["message"]
    assert made.statuses() == {"failed"}


def test_a_trade_in_a_recorded_gap_and_one_before_capture_are_no_findings(
    made: Installation, rest: Rest, talk: CleanTalk
) -> None:
    middle = talk.trades[len(talk.trades) // 2]
    early = {**talk.trades[0], "trade_id": "before", "created_time": f"{DAY}T08:00:00Z"}
    rest.trades = [early, *talk.trades, {**middle, "trade_id": "in-the-gap"}]
    at = int(datetime.fromisoformat(middle["created_time"]).timestamp() * NS_PER_S)
    gap = Gap(FEED, "c-1", None, at - NS_PER_S, at + NS_PER_S, "connection_lost")
    made.record_gap(gap)
    made.registry.record_gaps([gap])
    made.run("data", "compact", "--date", str(DAY), code=0)

    said = made.verify("--exchange")
    assert said["findings"] == []
    assert made.statuses() == {"partial"}


def test_an_exchange_that_forgot_or_is_another_one_is_not_run_and_no_pass(
    made: Installation, rest: Rest, talk: CleanTalk
) -> None:
    assert made.verify("--exchange")["checks"]["exchange"].startswith("not run: the exchange lists no trade")

    rest.trades = [{**item, "trade_id": f"other-{n}"} for n, item in enumerate(talk.trades)]
    said = made.verify("--exchange")
    assert "is it the same one?" in said["checks"]["exchange"]
    assert said["findings"] == []


def test_an_exchange_that_is_away_is_seven_and_the_archive_is_verified_all_the_same(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssmd.feeds.kalshi.throttle.Backoff.wait_s", lambda *_: None)
    away = f"http://127.0.0.1:{free_port()}/trade-api/v2"

    said = made.verify("--rest", away, code=7)

    assert said["checks"]["exchange"].startswith("not run: the exchange does not answer")
    assert said["checks"]["renormalize"] == "ran"
    assert made.statuses() == {"complete"}
    assert (made.last_check().state, made.last_check().exit_code) == ("failed", 7)


# --- exported files ---


def test_parquet_is_no_stranger_damage_is_found_and_old_files_are_a_note(made: Installation) -> None:
    made.run("data", "export", "--date", str(DAY), code=0)
    said = made.verify()
    assert said["findings"] == []
    assert said["counts"]["parquet_objects"] >= 4
    assert not [note for note in said["notes"] if "_parquet" in note]

    part = next((made.folder / "storage" / NORMALIZED / FEED / "v1" / "_parquet" / "trade").rglob("*.parquet"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"\x00")
    assert made.rules() == {"parquet"}
    assert made.statuses() == {"complete"}, "the archive itself is whole"
    part.unlink()
    assert made.rules() == {"parquet"}
    part.write_bytes(whole)

    file = made.compacted()
    file.unlink()
    notes = made.verify(code=6)["notes"]
    assert [note for note in notes if "_parquet/trade" in note and "made of other objects" in note]


def test_rows_that_a_parquet_manifest_invents_are_found(made: Installation) -> None:
    made.run("data", "export", "--date", str(DAY), code=0)
    folder = made.folder / "storage" / NORMALIZED / FEED / "v1" / "_parquet" / "trade"
    [file] = folder.rglob("_manifest.json")
    told = json.loads(file.read_bytes())

    file.write_text(json.dumps({**told, "rows": told["rows"] + 7}))
    messages = [finding["message"] for finding in made.verify(code=6)["findings"]]
    assert len(messages) == 2
    assert any("the objects that it was made of have" in message for message in messages)

    [part] = told["parts"]
    file.write_text(json.dumps({**told, "rows": told["rows"] + 7, "parts": [{**part, "rows": part["rows"] + 7}]}))
    [finding] = made.verify(code=6)["findings"]
    assert (finding["rule"], finding["object"].endswith("_manifest.json")) == ("parquet", True)

    made.run("data", "export", "--date", str(DAY), "--force", code=0)
    assert made.verify()["findings"] == []


# --- bad input ---


def test_days_that_cannot_be_verified_are_refused_with_what_there_is(made: Installation) -> None:
    future = TODAY + timedelta(days=1)
    assert "is in the future" in made.run("data", "verify", "--date", str(future), code=2)[1]
    said = made.run("data", "verify", "--date", str(DAY - timedelta(days=30)), code=2)[1]
    assert f"Latest available: {DAY}" in said
    assert "Did you mean 'kalshi'?" in made.run("data", "verify", "--feed", "kalsi", "--date", str(DAY), code=2)[1]
    assert "--rest" in made.run("data", "verify", "--date", str(DAY), "--rest", "ftp://x", code=2)[1]


def test_a_day_that_is_being_made_again_is_not_verified(made: Installation) -> None:
    database = Database(made.url)
    try:
        with DayLocks(database).hold(FEED, DAY, "backfill"):
            assert "is being worked on" in made.run("data", "verify", "--date", str(DAY), code=7)[1]
    finally:
        database.close()
