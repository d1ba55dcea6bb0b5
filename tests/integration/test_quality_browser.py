"""Quality reports in real Chromium: from the gateway and from a copied folder, light, dark, narrow, printed."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from ssmd.middleware.storage.local import LocalStorage
from ssmd.quality.reports import publish
from ssmd.registry.client_keys import ClientKeys
from ssmd.registry.database import Database
from ssmd.registry.memory import MemoryRegistry
from tests.databases import Database as Server
from tests.flow.gateway_stage import Stage, running
from tests.integration.test_pages_browser import CONTRAST, chromium
from tests.quality_runs import BUCKET, DAY, HOSTILE, RAW_KEY, bad, calm

pytest.importorskip("great_expectations", reason="install ssmd[quality]")
pytestmark = [pytest.mark.integration, pytest.mark.alone]

PATHS = ("index.html", "kalshi/index.html", "kalshi/2026/11/index.html", "kalshi/2026/11/22/index.html",
         "kalshi/2026/11/22/trades.html", "kalshi/2026/11/22/orderbook.html")  # fmt: skip
DAY_PAGE, SUITE_PAGE = PATHS[3], PATHS[4]
WIDER_THAN_THE_SCREEN = "document.documentElement.scrollWidth > window.innerWidth + 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with three days, the newest of them hostile."""
    root = tmp_path_factory.mktemp("storage")

    async def fill() -> None:
        storage = LocalStorage(root)
        for day in (5, 1):
            await publish(calm(DAY - timedelta(days=day)), storage, BUCKET)
        await publish(bad(DAY, HOSTILE), storage, BUCKET)
        await storage.replace("ssmd-raw", RAW_KEY, b"zstd")

    asyncio.run(fill())
    return root


class Watched:
    """A page that asks nobody else and complains of nothing."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed {request.url}"))
        page.on("console", lambda line: self.complaints.append(line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    async def visit(self, path: str) -> Page:
        await self.page.goto(self.base + path)
        assert await self.page.evaluate("window.ran") is None
        return self.page

    def check(self) -> None:
        assert self.asked
        assert [url for url in self.asked if not url.startswith((self.base, "data:"))] == []
        assert self.complaints == []


@contextlib.asynccontextmanager
async def watching(browser: Browser, base: str, **context: Any) -> AsyncIterator[Watched]:
    own = await browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    watched = Watched(await own.new_page(), base)
    try:
        yield watched
        watched.check()
    finally:
        await own.close()


@contextlib.asynccontextmanager
async def served(folder: Path, **more: Any) -> AsyncIterator[Stage]:
    async with running(MemoryRegistry(), storage=LocalStorage(folder), **more) as stage:
        yield stage


@contextlib.asynccontextmanager
async def a_place(where: str, folder: Path, tmp_path: Path) -> AsyncIterator[str]:
    """Where the pages are read from: the gateway, or a copy of the folder somewhere else."""
    if where == "copy":
        yield f"{shutil.copytree(folder / BUCKET, tmp_path / 'copied reports').as_uri()}/"
        return
    async with served(folder) as stage:
        yield f"{stage.url}/quality/"


async def keep(page: Page, name: str) -> None:
    """A picture for people, when they name a folder for it."""
    if place := os.environ.get("SSMD_SCREENSHOTS"):
        await page.screenshot(path=Path(place) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("where", ["gateway", "copy"])
@pytest.mark.parametrize("javascript", [True, False])
async def test_hostile_texts_run_nothing_and_no_request_leaves(
    folder: Path, tmp_path: Path, where: str, javascript: bool
) -> None:
    async with (
        a_place(where, folder, tmp_path) as base,
        chromium() as browser,
        watching(browser, base, java_script_enabled=javascript) as watched,
    ):
        for path in PATHS:
            page = await watched.visit(path)
            await expect(page.locator("h1")).to_be_visible()
            assert await page.locator("script, iframe, object, embed, img, base, form").count() == 0
        page = await watched.visit(DAY_PAGE)
        shown = await page.locator("main").inner_text()
        for text in HOSTILE[:8]:
            assert " ".join(text.split()) in " ".join(shown.split()), text
        page = await watched.visit(SUITE_PAGE)
        shown = await page.locator(".data-docs").inner_text()
        for text in (*HOSTILE[:4], HOSTILE[6], HOSTILE[8], HOSTILE[10]):
            assert text in shown, text
        assert "/secret/place" not in await page.content()


@pytest.mark.parametrize("where", ["gateway", "copy"])
async def test_reviewers_walk_from_the_feeds_to_a_row_and_back(folder: Path, tmp_path: Path, where: str) -> None:
    async with a_place(where, folder, tmp_path) as base, chromium() as browser, watching(browser, base) as watched:
        page = await watched.visit("index.html")
        await page.get_by_role("link", name="kalshi").click()
        await expect(page.locator("table.matrix")).to_contain_text("no check ran on these 3 days")
        await page.locator("td.cell.red a").click()
        await expect(page).to_have_url(f"{base}{DAY_PAGE}#trades")
        await expect(page.get_by_text("11 of 12 failing rows")).to_be_visible()
        link, copied = page.locator("a.served[href*='_raw/']").first, page.locator(".copied").first
        await (expect(link) if where == "gateway" else expect(copied)).to_be_visible()
        await (expect(copied) if where == "gateway" else expect(link)).to_be_hidden()
        if where == "gateway":
            async with page.expect_download() as download:
                await link.click()
            assert Path(await (await download.value).path()).read_bytes() == b"zstd"
            watched.complaints.clear()  # a download is a navigation that does not happen
        await page.get_by_role("link", name="Data Docs").first.click()
        await expect(page).to_have_url(f"{base}{SUITE_PAGE}")
        await page.locator("h1 + p a").first.click()
        await page.locator("a[rel=prev]").click()
        await expect(page.locator("h1")).to_contain_text("2026-11-21")
        await page.locator("a[rel=next]").click()
        await expect(page.locator("h1")).to_contain_text("2026-11-22")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_can_be_read_on_every_screen(folder: Path, scheme: str) -> None:
    async with served(folder) as stage, chromium() as browser:
        for width in (1280, 768, 360):
            size = {"width": width, "height": 900}
            async with watching(browser, f"{stage.url}/quality/", color_scheme=scheme, viewport=size) as watched:
                for path in PATHS:
                    page = await watched.visit(path)
                    assert await page.evaluate(CONTRAST) == [], path
                    assert not await page.evaluate(WIDER_THAN_THE_SCREEN), (path, width)
                    await keep(page, f"{path.replace('/', '-')}-{scheme}-{width}")


async def test_only_what_did_not_pass_is_shown_when_asked_and_without_scripts(folder: Path) -> None:
    async with (
        served(folder) as stage,
        chromium() as browser,
        watching(browser, f"{stage.url}/quality/", java_script_enabled=False) as watched,
    ):
        page = await watched.visit(SUITE_PAGE)
        before = await page.locator(".data-docs tbody tr:visible").count()
        assert await page.locator(".fa-times:visible").count() > 5
        await page.get_by_label("Show only what did not pass").check()
        assert await page.locator(".fa-times:visible").count() > 5
        assert await page.locator(".fa-check-circle:visible").count() == 0
        assert await page.locator(".data-docs tbody tr:visible").count() <= before


async def test_a_printed_day_has_everything_that_is_folded_on_the_screen(folder: Path) -> None:
    async with (
        served(folder) as stage,
        chromium() as browser,
        watching(browser, f"{stage.url}/quality/") as watched,
    ):
        page = await watched.visit(DAY_PAGE)
        folded = page.get_by_text("Ids are unique")
        await expect(folded).to_be_hidden()
        await page.emulate_media(media="print")
        await expect(folded).to_be_visible()
        assert (await page.pdf()).startswith(b"%PDF")


async def test_the_keyboard_is_enough(folder: Path) -> None:
    async with (
        served(folder) as stage,
        chromium() as browser,
        watching(browser, f"{stage.url}/quality/") as watched,
    ):
        page = await watched.visit("kalshi/index.html")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(20):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.getAttribute('href')"))
        assert "../kalshi/2026/11/22/index.html#trades" in reached
        assert {"../../status", "../../docs"} <= reached


async def test_with_keys_the_reports_open_with_the_key_as_password(folder: Path, postgres: Server) -> None:
    database = Database(postgres.fresh())
    try:
        text, _ = ClientKeys(database).create("reviewer", ["read:history"], None, "test")
        async with served(folder, database=database, auth="keys") as stage, chromium() as browser:
            password = {"username": "", "password": text}
            async with watching(browser, f"{stage.url}/quality/", http_credentials=password) as watched:
                page = await watched.visit(DAY_PAGE)
                await expect(page.locator("a.served[href*='_raw/']").first).to_be_visible()
                watched.complaints.clear()  # the browser says that it was asked for the password
    finally:
        database.close()
