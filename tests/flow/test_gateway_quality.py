"""/quality/: reports out of storage, behind their doors, and honest when they are absent or cannot be read."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import msgspec
import pytest
from yarl import URL

from ssmd.gateway import quality_pages
from ssmd.middleware.storage.interface import StorageUnavailable
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.outcome import QualityRun
from ssmd.quality.reports import publish
from tests.flow.gateway_stage import Stage, running
from tests.quality_runs import BUCKET, DAY, GAP_KEY, RAW_KEY, bad, calm

OF_DAY = "/quality/kalshi/2026/11/22/"


class Storage(MemoryStorage):
    """One that can be away, or slow."""

    away = False
    hangs = False

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        if self.away:
            raise StorageUnavailable("the storage does not answer", "Wait.")
        if self.hangs:
            await asyncio.Event().wait()
        async for chunk in super().stream(bucket, key):
            yield chunk


def small(made: QualityRun) -> QualityRun:
    return msgspec.structs.replace(
        made, suites=[msgspec.structs.replace(suite, document=None) for suite in made.suites]
    )


@pytest.fixture
async def storage() -> Storage:
    storage = Storage()
    await publish(calm(DAY - timedelta(days=1)), storage, BUCKET)
    await publish(small(bad()), storage, BUCKET)
    await storage.replace("ssmd-raw", RAW_KEY, b"zstd" * 600_000)
    await storage.replace("ssmd-raw", GAP_KEY, b'{"feed":"kalshi"}')
    await storage.replace(BUCKET, "secret.txt", b"no page")
    return storage


@pytest.fixture
async def stage(storage: Storage) -> AsyncIterator[Stage]:
    async with running(storage=storage) as stage:
        yield stage


class Answer:
    """A response that was read whole."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


async def get(stage: Stage, path: str, **headers: str) -> Answer:
    url = URL(stage.url + path, encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, allow_redirects=False) as response:
        return Answer(response, await response.read())


async def test_what_is_stored_is_what_is_served_with_its_type_and_nothing_may_run(
    stage: Stage, storage: Storage
) -> None:
    media = {"html": "text/html", "json": "application/json", "css": "text/css", "svg": "image/svg+xml"}
    served = 0
    for entry in await storage.list(BUCKET, ""):
        kind = entry.key.rpartition(".")[2]
        if kind not in media or entry.key == quality_pages.HERE:
            continue
        answer = await get(stage, f"/quality/{entry.key}")
        assert (answer.status, answer.body) == (200, await storage.get(BUCKET, entry.key)), entry.key
        assert answer.headers["Content-Type"].split(";")[0] == media[kind]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        again = await get(stage, f"/quality/{entry.key}", **{"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        served += 1
    assert served > 12


async def test_folders_are_their_index_and_get_the_slash_that_relative_links_need(
    stage: Stage, storage: Storage
) -> None:
    for path, location in (
        ("/quality", "/quality/"),
        ("/quality/kalshi", "/quality/kalshi/"),
        ("/quality/kalshi/2026/11/22", OF_DAY),
    ):
        answer = await get(stage, path)
        assert (answer.status, answer.headers["Location"]) == (308, location)
    for folder in ("", "kalshi/", "kalshi/2026/11/", "kalshi/2026/11/22/"):
        assert (await get(stage, f"/quality/{folder}")).body == await storage.get(BUCKET, f"{folder}index.html")


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd", "..%2f..%2fetc%2fpasswd.html", "%2e%2e/%2e%2e/ssmd-raw/kalshi/index.html",
        "kalshi//index.html", "/evil.example/", "//evil.example", "kalshi/.hidden.html",
        "kalshi/2026/11/22/index.html%00.css",
        "kalshi%5c2026.html", "secret.txt", "kalshi/2026/11/22/run.json/", "%f0%9f%a6%86.html", "a%0d%0aX-Evil:1/",
        "a/b/c/d/e/f/g/h/i.html", "x" * 300 + ".html", "kalshi/index.html~", "kalshi/2026/11/23/", "none/index.html",
        "%ff%fe.html", "kalshi/2026/11/22/%3Cscript%3E.html",
    ],
)  # fmt: skip
async def test_odd_addresses_lead_nowhere(stage: Stage, path: str) -> None:
    answer = await get(stage, f"/quality/{path}")
    assert answer.status == 404
    assert "X-Evil" not in answer.headers
    assert "<script>" not in answer.text
    assert "Location" not in answer.headers


async def test_a_report_that_is_not_there_says_what_makes_it(stage: Stage) -> None:
    answer = await get(stage, "/quality/kalshi/2026/11/23/index.html")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "ssmd quality run --feed kalshi --date 2026-11-23" in answer.text
    assert "--date YYYY-MM-DD" in (await get(stage, "/quality/kalshi/2026/13/45/")).text


async def test_without_reports_a_friendly_page_names_the_command() -> None:
    async with running(storage=MemoryStorage()) as stage:
        answer = await get(stage, "/quality/")
        assert answer.status == 200
        assert "No quality reports yet" in answer.text
        assert "ssmd quality run --feed kalshi --date" in answer.text
    async with running() as stage:
        assert "no storage" in (await get(stage, "/quality/")).text
        assert (await get(stage, OF_DAY)).status == 404


async def test_a_storage_that_is_away_is_a_page_of_its_own_and_the_gateway_goes_on(
    stage: Stage, storage: Storage
) -> None:
    storage.away = True
    answer = await get(stage, OF_DAY)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "The reports cannot be read now" in answer.text
    raw = await get(stage, f"/quality/_raw/{RAW_KEY}")
    assert (raw.status, raw.headers["Content-Type"]) == (503, "application/problem+json")
    storage.away = False
    assert (await get(stage, OF_DAY)).status == 200


async def test_a_storage_that_hangs_costs_a_page_and_not_the_gateway(
    stage: Stage, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_pages, "ANSWER_S", 0.2)
    storage.hangs = True
    many = [asyncio.create_task(get(stage, OF_DAY)) for _ in range(3 * quality_pages.PAGES_AT_ONCE)]
    assert (await get(stage, "/openapi.json")).status == 200
    assert {answer.status for answer in await asyncio.gather(*many)} == {503}
    assert (await get(stage, f"/quality/_raw/{RAW_KEY}")).status == 503
    storage.hangs = False
    assert (await get(stage, OF_DAY)).status == 200


async def test_a_page_of_any_size_is_not_read_into_memory(
    stage: Stage, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_pages, "MOST_BYTES", 1 << 20)
    await storage.replace(BUCKET, "kalshi/huge.json", b"1" * (3 << 20))
    answer = await get(stage, "/quality/kalshi/huge.json")
    assert answer.status == 413
    assert b'"too_large"' in answer.body


async def test_raw_objects_and_gaps_are_downloads_and_nothing_else_of_the_bucket_is(
    stage: Stage, storage: Storage
) -> None:
    raw = await get(stage, f"/quality/_raw/{RAW_KEY}")
    assert (raw.status, raw.body) == (200, await storage.get("ssmd-raw", RAW_KEY))
    assert raw.headers["Content-Disposition"] == 'attachment; filename="trades-00.jsonl.zst"'
    assert raw.headers["Content-Type"] == "application/zstd"
    gap = await get(stage, f"/quality/_raw/{GAP_KEY}")
    assert (gap.status, gap.body, gap.headers["Content-Type"]) == (200, b'{"feed":"kalshi"}', "application/json")
    await storage.replace("ssmd-raw", "kalshi/notes.txt", b"mine")
    for key in (
        "kalshi/notes.txt", "kalshi/2026/11/22/trades-01.jsonl.zst", "other/2026/11/22/trades-00.jsonl.zst", "..%2fx",
        "kalshi/2026/11/22/../22/trades-00.jsonl.zst", "kalshi/2026/11/22/_gaps/x.json", "kalshi/2026/11/22/", "%00",
    ):  # fmt: skip
        assert (await get(stage, f"/quality/_raw/{key}")).status == 404, key


async def test_links_into_the_archive_show_only_where_they_lead_somewhere(stage: Stage, storage: Storage) -> None:
    here, copied = await get(stage, "/quality/_assets/here.css"), await storage.get(BUCKET, "_assets/here.css")
    assert "a.served" in here.text
    assert b"served" not in copied.replace(b"Served by", b"")


async def test_the_pages_of_the_gateway_lead_to_the_reports(stage: Stage) -> None:
    for path in ("/", "/status", "/docs"):
        assert 'href="/quality/"' in (await get(stage, path)).text, path


async def test_reports_come_out_of_a_folder_as_well(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await publish(calm(), storage, BUCKET)
    async with running(storage=storage) as stage:
        assert (await get(stage, OF_DAY)).status == 200
        assert (await get(stage, "/quality/kalshi/2026.html")).status == 404
        assert (await get(stage, "/quality/kalshi/2026/11/22/index.html/x.html")).status == 404
