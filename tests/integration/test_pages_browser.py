"""The pages in real Chromium: light and dark, on phones and desks, live, with hostile texts, and for the keyboard."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from ssmd.clock import now_ns
from ssmd.market.events import SCALE, Gap
from ssmd.registry.alerts import Alerts
from ssmd.registry.client_keys import ClientKeys
from ssmd.registry.database import Database
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.postgres import PostgresRegistry
from tests.conftest import missing
from tests.databases import Database as Server
from tests.flow.gateway_stage import FEED, Stage, running, until
from tests.flow.page_scene import TICKER, TITLE, Chatter, a_day, chatting, listed

pytestmark = [pytest.mark.integration, pytest.mark.alone]

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # continuous integration often runs as root, in a container
Scheme = Literal["light", "dark"]

HOSTILE = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '"><svg onload="window.ran = 1">',
    "javascript:window.ran=1",
    '</title></ul><iframe srcdoc="<script>parent.ran=1</script>">',
    "{{constructor.constructor('window.ran=1')()}}",
    "<a href='javascript:window.ran=1' autofocus onfocus='window.ran=1'>x</a>",
    "<b style='position:fixed;inset:0;background:red'>&lt;script&gt;window.ran=1&lt;/script&gt;</b>",
    "\u202e<object data='data:text/html,<script>parent.ran=1</script>'></object>",
    "<style>@import 'http://127.0.0.2/x.css';</style><link rel=stylesheet href=//127.0.0.2/y>",
]

CONTRAST = """() => {
  const lum = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colours) => {  // painted on one another, the lowest first
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".sr, .skip, script, noscript")) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const ground = over(behind);
    const [a, b] = [lum(ground), lum(over([...behind, getComputedStyle(element).color]))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([walker.currentNode.data.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}"""


class Watched:
    """A page whose requests, errors and complaints are kept."""

    def __init__(self, page: Page, host: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.strangers: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url, host))
        page.on("websocket", lambda socket: self._asked(socket.url, host))
        page.on("console", lambda line: self._said(line.type, line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _asked(self, url: str, host: str) -> None:
        self.requests.append(url)
        if url.split("://", 1)[1].split("/", 1)[0] != host:
            self.strangers.append(url)

    def check(self) -> None:
        """No error, and nothing asked of anybody else."""
        assert self.requests
        assert (self.strangers, self.complaints) == ([], [])


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's own browser."""
    path = shutil.which("chromium") or missing("Chromium", "install the Debian package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


BROKEN = """() => {
  const broken = [];
  const walker = document.createTreeWalker(document.querySelector("#checks .alerts"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(/[A-Za-z]+/g)) {
    const range = document.createRange();
    range.setStart(walker.currentNode, word.index);
    range.setEnd(walker.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) broken.push(word[0]);
  }
  return broken;
}"""
CUT = """() => [...document.querySelectorAll("#archive .scroll")]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => `${box.scrollWidth} of ${box.clientWidth}`)"""


@contextlib.asynccontextmanager
async def opened(
    browser: Browser, stage: Stage, path: str = "/status", scheme: Scheme = "light", width: int = 1280, **context: Any
) -> AsyncIterator[Watched]:
    """A page in a browser of its own; at the end it must not have complained."""
    own = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, **context)
    watched = Watched(await own.new_page(), f"127.0.0.1:{stage.gateway.port}")
    try:
        await watched.page.goto(stage.url + path)
        yield watched
        watched.check()
    finally:
        await own.close()


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    a_day(registry)
    return registry


@pytest.fixture
async def stage(registry: MemoryRegistry) -> AsyncIterator[Stage]:
    async with running(registry) as stage:
        yield stage


def shown(title: str) -> str:
    """The registry keeps no sign that turns the direction of what follows."""
    return title.replace("\u202e", "\ufffd")


async def choose(page: Page, words: str, *, arrows: int = 1) -> None:
    """By the keyboard alone."""
    await page.get_by_role("combobox").fill(words)
    await page.locator("#m-list [role=option] b").first.wait_for()
    for _ in range(arrows):
        await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")


async def test_pages_are_readable_light_and_dark_on_phones_and_desks(stage: Stage, tmp_path: Path) -> None:
    async with chromium() as browser, chatting(stage):
        pictures = []
        for scheme in ("light", "dark"):
            for width in (390, 1280):
                async with opened(browser, stage, "/status", scheme, width) as watched:
                    page = watched.page
                    await choose(page, "bitcoin")
                    await expect(page.locator("#m-state")).to_have_text("live")
                    for path in ("/status", "/docs", "/"):
                        if path != "/status":
                            await page.goto(stage.url + path)
                        assert await page.evaluate(CONTRAST) == [], (path, scheme)
                        wide = await page.evaluate("document.documentElement.scrollWidth")
                        assert wide <= width, (path, width)
                        assert await page.evaluate(CUT) == [], (path, width)
                        picture = tmp_path / f"{path.strip('/') or 'index'}-{scheme}-{width}.png"
                        await page.screenshot(path=picture, full_page=True)
                        pictures.append(picture.read_bytes())
        assert len(set(pictures)) == 12  # dark is not light


async def test_words_of_open_alerts_are_not_broken(postgres: Server, registry: MemoryRegistry) -> None:
    url = postgres.fresh()
    database, stored = Database(url), PostgresRegistry(url)
    try:
        day = date(2026, 11, 22)
        record = ObjectRecord("ssmd-raw", "k", "raw", "trades", day, "0" * 64, 10, 5, 1, 2)
        stored.record_objects(FEED, [record])
        alerts = Alerts(database)
        alerts.report("stage", "backfill", "failed", task="renormalize", day=day, summary="exit code 3 " * 20)
        alerts.report("stage", "backfill", "findings", task="verify", day=day, summary="1 finding")
        text, _ = ClientKeys(database).create("page", ["admin", "read:live"], None, "test")
        given: dict[str, Any] = {"http_credentials": {"username": "", "password": text}}  # summaries are for operators
        place: dict[str, Any] = {"database": database, "environment": "stage", "auth": "keys"}
        async with running(registry, **place) as stage, chromium() as browser:
            async with opened(browser, stage, **given) as watched:
                await expect(watched.page.locator("#checks .alerts tbody tr")).to_have_count(2, timeout=20_000)
            for width in (390, 768, 1280):
                async with opened(browser, stage, width=width, **given) as watched:
                    await expect(watched.page.locator("#checks .alerts")).to_contain_text("exit code 3")
                    assert await watched.page.evaluate(BROKEN) == [], width
                    assert await watched.page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        database.close()
        stored.close()


async def test_the_book_and_the_trades_of_a_market_follow_the_stream(stage: Stage) -> None:
    chatter = Chatter(stage)
    chatter.snapshot()
    async with chromium() as browser, opened(browser, stage) as watched:
        page = watched.page
        await choose(page, "95,000 bitcoin")
        await expect(page.locator("#m-title")).to_contain_text(TITLE)
        await expect(page.locator("#m-state")).to_have_text("live")
        best = page.locator("#m-book tr").first
        await expect(best).to_have_text("370.440.4629")
        chatter.change(price=450_000, size=123 * SCALE)
        await expect(best).to_have_text("1230.450.4629")
        chatter.change(price=450_000, size=0)
        chatter.change(price=440_000, size=2_500_000)
        await expect(best).to_have_text("2.50.440.4629")
        chatter.trade(price=455_500, size=7 * SCALE)
        await expect(page.locator("#m-trades tr").first).to_contain_text("0.45557")
        await expect(page.locator("#m-trades tr")).to_have_count(1)
        await page.reload()  # the address knows the market
        await expect(best).to_have_text("2.50.440.4629")
        await expect(page.locator("#m-title")).to_have_text(TITLE + TICKER)
        assert any(url.startswith("ws://") for url in watched.requests)


async def test_the_numbers_of_the_page_follow_without_a_reload(stage: Stage) -> None:
    async with chromium() as browser, opened(browser, stage) as watched:
        await expect(watched.page.locator("#tiles")).to_contain_text("nobody connected")
        await choose(watched.page, "bitcoin")
        await expect(watched.page.locator("#tiles")).to_contain_text("1 healthy", timeout=15_000)
        assert len([url for url in watched.requests if url.endswith("/status")]) >= 2
        await expect(watched.page.get_by_role("combobox")).to_have_value(TICKER)  # what people typed stays


async def test_a_gap_makes_the_book_stale_and_its_snapshot_live_again(stage: Stage) -> None:
    chatter = Chatter(stage)
    chatter.snapshot()
    async with chromium() as browser, opened(browser, stage) as watched:
        page = watched.page
        await choose(page, "bitcoin")
        state, notices = page.locator("#m-state"), page.locator("#m-notices")
        await expect(state).to_have_text("live")
        now = now_ns()
        stage.publish(Gap(FEED, "c-1", 1, now - 2 * 10**9, now, "sequence_gap", 1, 5, (TICKER,)))
        await expect(state).to_have_text("stale")
        await expect(notices).to_contain_text("Gap of 2.0 s")
        await expect(page.locator("#m-view")).to_have_class("stale-data")
        chatter.change()
        await asyncio.sleep(0.2)
        await expect(state).to_have_text("stale")  # a change does not repair it
        chatter.snapshot()
        await expect(state).to_have_text("live")
        await expect(page.locator("#m-view")).not_to_have_class("stale-data")


async def test_a_lost_connection_is_said_and_comes_back(stage: Stage) -> None:
    Chatter(stage).snapshot()
    async with chromium() as browser, opened(browser, stage) as watched:
        page = watched.page
        await choose(page, "bitcoin")
        await expect(page.locator("#m-state")).to_have_text("live")
        for connection in list(stage.gateway._stream._connections.values()):
            connection.transport.abort()
        await expect(page.locator("#m-notices")).to_contain_text("Disconnected")
        await expect(page.locator("#m-state")).to_have_text("live")
        await expect(page.locator("#m-notices")).to_contain_text("Connected again")
        await expect(page.locator("#m-book tr")).to_have_count(12)


async def test_a_stopped_gateway_does_not_look_alive(registry: MemoryRegistry) -> None:
    async with chromium() as browser:
        async with running(registry) as stage:
            own = await browser.new_context()
            page = await own.new_page()
            await page.goto(stage.url + "/status")
            await expect(page.locator("h1")).to_have_text("Everything flows")
        await expect(page.locator("h1")).to_have_text("Out of reach", timeout=20_000)
        await expect(page.locator("#headline")).to_contain_text("what follows is old")
        await own.close()


async def test_hostile_titles_and_tickers_run_nothing(registry: MemoryRegistry) -> None:
    names = {f"HX-{n} {text}"[:100]: text for n, text in enumerate(HOSTILE)}
    registry.upsert_markets(FEED, [listed(ticker, f"hostile {title}") for ticker, title in names.items()])
    async with running(registry) as stage, chromium() as browser:
        chatter = Chatter(stage)
        for ticker in names:
            chatter.snapshot(ticker)
            chatter.trade(ticker, trade_id=f"{ticker}<img src=x onerror=window.ran=1>")
        now = now_ns()
        registry.record_gaps([Gap(FEED, text, n, now - 10**9, now, "silence") for n, text in enumerate(HOSTILE)])
        await until(lambda: len(stage.gateway.hub.board.books) == len(names))
        async with opened(browser, stage) as watched:
            page = watched.page
            for n, (ticker, title) in enumerate(names.items()):
                await choose(page, f"hostile HX-{n}")
                await expect(page.locator("#m-title")).to_have_text(f"hostile {shown(title)}{ticker}")
                await expect(page.locator("#m-state")).to_have_text("live")
                await expect(page.locator("#m-trades tr")).to_have_count(1)
                stage.publish(Gap(FEED, title, None, now - 10**9, now_ns(), "silence", None, None, (ticker,)))
                await expect(page.locator("#m-notices")).to_contain_text("Gap of")
            await page.reload()
            assert await page.evaluate("window.ran") is None
            assert await page.locator("main script, main img, main iframe, main object, main style").count() == 0
            for text in HOSTILE:
                assert text.removeprefix("\u202e") in await page.locator("#gaps").inner_text()


async def test_the_keyboard_is_enough(stage: Stage) -> None:
    Chatter(stage).snapshot()
    async with chromium() as browser, opened(browser, stage) as watched:
        page = watched.page
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(12):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
        assert {"/", "/status", "/docs", "m-input"} <= reached
        box = page.get_by_role("combobox")
        await box.fill("KX")
        await page.locator("#m-list b").nth(3).wait_for()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        selected = page.locator("[role=option][aria-selected=true]")
        await expect(selected).to_have_count(1)
        await expect(box).to_have_attribute("aria-activedescendant", await selected.get_attribute("id") or "")
        await page.keyboard.press("Escape")
        await expect(page.locator("#m-list")).to_be_hidden()
        outline = await box.evaluate("(element) => getComputedStyle(element).outlineStyle")
        assert outline != "none"


async def test_a_ticker_that_nobody_knows_is_said(stage: Stage) -> None:
    async with chromium() as browser, opened(browser, stage) as watched:
        await watched.page.get_by_role("combobox").fill("NO-SUCH-THING")
        await expect(watched.page.locator("#m-list")).to_contain_text("No market has these words")
        await watched.page.keyboard.press("Enter")
        await expect(watched.page.locator("#m-notices")).to_contain_text("Nothing is known of NO-SUCH-THING")
        await expect(watched.page.locator("#m-state")).to_have_text("waiting for the book")


async def test_without_scripts_everything_but_the_live_view_is_there(stage: Stage) -> None:
    async with chromium() as browser, opened(browser, stage, java_script_enabled=False) as watched:
        await expect(watched.page.locator("#market noscript p")).to_be_visible()
        await expect(watched.page.locator("#gaps tbody tr")).to_have_count(3)


async def test_with_keys_the_page_opens_with_the_key_as_password(postgres: Server, registry: MemoryRegistry) -> None:
    database = Database(postgres.fresh())
    try:
        text, _ = ClientKeys(database).create("page", ["read:live"], None, "test")
        async with running(registry, database=database, auth="keys") as stage, chromium() as browser:
            Chatter(stage).snapshot()
            async with aiohttp.ClientSession() as session, session.get(stage.url + "/status") as refused:
                assert refused.status == 401
                assert refused.headers["WWW-Authenticate"].startswith("Basic ")
            password = {"username": "", "password": text}
            async with opened(browser, stage, http_credentials=password) as watched:
                await choose(watched.page, "bitcoin")
                await expect(watched.page.locator("#m-state")).to_have_text("live")
                await expect(watched.page.locator("#tiles")).to_contain_text("1 healthy", timeout=15_000)
    finally:
        database.close()
