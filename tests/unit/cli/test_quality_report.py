"""`ssmd quality report`: pages again from stored runs, and one clear line when there are none."""

import asyncio
import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from ssmd.cli.main import main
from ssmd.middleware.storage.local import LocalStorage
from ssmd.quality.reports import publish
from tests.quality_runs import BUCKET, DAY, FEED, calm


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose archive is a folder."""
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    file = tmp_path / "test.yaml"
    file.write_text(
        f"""apiVersion: ssmd/v1
kind: Environment
metadata: {{name: reports}}
spec:
  feed: {FEED}
  keys: {{kalshi: {{type: api_key, required: true, fields: [api_key, api_secret]}}}}
  middleware:
    transport: {{type: memory}}
    storage: {{type: local, path: {tmp_path / "storage"}}}
    cache: {{type: memory}}
    journal: {{type: memory}}
"""
    )
    return file


def report(environment: Path, *arguments: str) -> int:
    return main(["quality", "report", "--env", str(environment), *arguments])


@pytest.fixture
def storage(environment: Path) -> LocalStorage:
    return LocalStorage(environment.parent / "storage")


def stored(storage: LocalStorage, *days: date) -> None:
    for day in days:
        asyncio.run(publish(calm(day), storage, BUCKET))


def test_lost_pages_are_made_again_without_running_checks(
    environment: Path, storage: LocalStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = DAY - timedelta(days=1)
    stored(storage, DAY, before)
    pages = [asyncio.run(storage.get(BUCKET, f"{FEED}/{day:%Y/%m/%d}/index.html")) for day in (before, DAY)]
    for key in (f"{FEED}/index.html", "index.html", *(f"{FEED}/{day:%Y/%m/%d}/index.html" for day in (before, DAY))):
        asyncio.run(storage.delete(BUCKET, key))
    assert report(environment, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["date"] for line in told] == [str(before), str(DAY)]
    assert told[1]["pages"][0] == f"{FEED}/2026/11/22/index.html"
    assert pages == [asyncio.run(storage.get(BUCKET, line["pages"][0])) for line in told]
    assert report(environment, "--date", str(DAY)) == 0
    assert "2026-11-22" in capsys.readouterr().out


@pytest.mark.parametrize("days", [[], [DAY - timedelta(days=3)]])
def test_a_day_without_a_stored_run_is_refused_with_the_command_that_makes_one(
    environment: Path, storage: LocalStorage, days: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    stored(storage, *days)
    assert report(environment, "--date", str(DAY)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no quality run of kalshi is stored on 2026-11-22" in said.err
    assert f"the newest is of {days[0]}" in said.err if days else "none is stored" in said.err
    assert "ssmd quality run --feed kalshi --date 2026-11-22 -f " in said.err


@pytest.mark.parametrize("feed", ["../x", "A", "", "x" * 10_000, "\udcff"])
def test_an_odd_feed_is_one_short_line(environment: Path, feed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(environment, f"--feed={feed}") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err) < 400
    assert "Traceback" not in said.err


def test_a_damaged_run_is_named(environment: Path, storage: LocalStorage, capsys: pytest.CaptureFixture[str]) -> None:
    stored(storage, DAY)
    asyncio.run(storage.replace(BUCKET, f"{FEED}/2026/11/22/run.json", b"{"))
    assert report(environment, "--date", str(DAY)) == 1
    assert "kalshi/2026/11/22/run.json" in capsys.readouterr().err
