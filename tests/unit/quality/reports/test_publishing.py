"""Reports in storage: whole, linked, idempotent, of one run even when two are published at once."""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from ssmd.errors import DataError
from ssmd.middleware.storage.interface import ObjectMissing
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.outcome import QualityRun
from ssmd.quality.reports import completed, publish, rebuild, stored_days
from ssmd.quality.reports.publishing import INDEX_DAYS
from tests.fakes.faulty_storage import FaultyStorage, Killed
from tests.quality_runs import BUCKET, DAY, GAP_KEY, HOSTILE, RAW_KEY, bad, calm, expectation, run, silent, suite

OF_DAY = "kalshi/2026/11/22/"


def without_documents(made: QualityRun) -> QualityRun:
    """Pages that need no Great Expectations."""
    suites = [msgspec.structs.replace(suite, document=None) for suite in made.suites]
    return msgspec.structs.replace(made, suites=suites)


class Overtaken(MemoryStorage):
    """Just before a publisher writes (or after it has read) an object for the first time, another publishes."""

    def __init__(self, doing: str, key: str, other: QualityRun) -> None:
        super().__init__()
        self._at = (doing, key)
        self._other: QualityRun | None = other

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        await self._overtake("write", key)
        await super().replace(bucket, key, data)

    async def get(self, bucket: str, key: str) -> bytes:
        found = await super().get(bucket, key)
        await self._overtake("read", key)
        return found

    async def _overtake(self, doing: str, key: str) -> None:
        if (doing, key) == self._at and self._other is not None:
            other, self._other = self._other, None
            await publish(other, self, BUCKET)

    @property
    def overtook(self) -> bool:
        return self._other is None


class Page(HTMLParser):
    """Elements, addresses and words of a page."""

    VOID = frozenset(("meta", "link", "input", "br", "hr", "path"))

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[tuple[str, bool]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(content.decode())
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, named))
        served = "served" in (named.get("class") or "") or any("served" in of for of in self._open)
        self.addresses += [(named[name] or "", served) for name in ("href", "src", "srcset", "action") if name in named]
        if tag not in self.VOID:
            self._open.append(f"{tag} {named.get('class') or ''}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().split(" ")[0] == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


async def everything(storage: MemoryStorage) -> dict[str, bytes]:
    return {entry.key: await storage.get(BUCKET, entry.key) for entry in await storage.list(BUCKET, "")}


async def page(storage: MemoryStorage, key: str) -> Page:
    return Page(await storage.get(BUCKET, key))


def broken_links(stored: dict[str, bytes]) -> Iterator[str]:
    """Addresses that do not lead to a stored object, without those that only a gateway has; and foreign ones."""
    for key, content in stored.items():
        if key.endswith(".css"):
            for address in re.findall(rb"url\(([^)]*)\)|@import|//", content):
                if address and not address.strip(b"\"' ").startswith(b"data:"):
                    yield f"{key}: {address!r}"
        if not key.endswith(".html"):
            continue
        its = Page(content)
        assert not [tag for tag, _ in its.elements if tag in ("script", "style", "iframe", "object", "base", "img")]
        assert not [name for _, attrs in its.elements for name in attrs if name.startswith("on") or name == "style"]
        for address, served in its.addresses:
            parts = urlsplit(address)
            target = normpath(join(dirname(key), unquote(parts.path))) if parts.path else key
            if parts.scheme or parts.netloc or address.startswith("/"):
                yield f"{key}: {address}"
            elif not served and target not in stored:
                yield f"{key}: {address} leads to {target}"
            elif parts.fragment and target in stored:
                ids = {attrs.get("id") for _, attrs in Page(stored[target]).elements}
                if parts.fragment not in ids:
                    yield f"{key}: {address} has no place there"


async def test_a_run_becomes_pages_and_every_link_leads_somewhere_in_the_bucket() -> None:
    storage = MemoryStorage()
    for day in (DAY, DAY - timedelta(days=1), DAY - timedelta(days=40)):
        made = without_documents(bad(day, HOSTILE)) if day == DAY else calm(day)
        keys = await publish(made, storage, BUCKET)
        assert keys[0] == f"kalshi/{day:%Y/%m/%d}/index.html"
        assert {"kalshi/index.html", "index.html", f"kalshi/{day:%Y/%m}/index.html"} <= set(keys)
    stored = await everything(storage)
    assert {
        OF_DAY + name for name in ("index.html", "trades.html", "quotes.html", "orderbook.html", "run.json")
    } <= set(stored)
    assert list(broken_links(stored)) == []
    assert msgspec.json.decode(stored[OF_DAY + "run.json"], type=QualityRun).suites[2].suite == "orderbook"


async def test_a_page_of_a_day_has_every_expectation_and_what_did_not_run() -> None:
    storage = MemoryStorage()
    await publish(without_documents(bad()), storage, BUCKET)
    text = (await page(storage, OF_DAY + "index.html")).text
    for part in (
        "Prices lie between 0 and 1", "Ids are unique", "Trades are young", "12 of 48,211 rows fail", "KeyError:",
        "raised an error", "This suite did not run: compaction has not run", "2 of 12 failing rows", "0.995",
        "KXETH-26NOV22-T3000", RAW_KEY, GAP_KEY, "ssmd data gaps --feed kalshi --date 2026-11-22",
        "there are no rows", "expectations and 1 suite", "2 failed, 1 not run",
    ):  # fmt: skip
        assert part in text, part


async def test_rows_link_to_their_raw_object_and_gap() -> None:
    storage = MemoryStorage()
    await publish(without_documents(bad()), storage, BUCKET)
    found = [address for address, served in (await page(storage, OF_DAY + "index.html")).addresses if served]
    assert f"../../../../_raw/{RAW_KEY}" in found
    assert f"../../../../_raw/{GAP_KEY}" in found


async def test_hostile_texts_are_only_texts() -> None:
    storage = MemoryStorage()
    await publish(without_documents(bad(DAY, HOSTILE)), storage, BUCKET)
    its = await page(storage, OF_DAY + "index.html")
    for text in HOSTILE[:9]:
        assert " ".join(text.split()) in its.text
    assert "\\u202egnp.exe\\u001b[31m\\u0000\\u2066" in its.text
    assert not any(address.startswith("javascript") for address, _ in its.addresses)


async def test_publishing_again_changes_no_byte() -> None:
    storage = MemoryStorage()
    await publish(without_documents(bad()), storage, BUCKET)
    before = await everything(storage)
    await publish(without_documents(bad()), storage, BUCKET)
    assert await everything(storage) == before
    await rebuild(storage, BUCKET, "kalshi", DAY)
    assert await everything(storage) == before


async def test_a_second_run_of_a_day_takes_the_place_of_the_first() -> None:
    storage, alone = MemoryStorage(), MemoryStorage()
    await publish(run(DAY, suite("trades", expectation()), suite("gone", expectation())), storage, BUCKET)
    assert OF_DAY + "gone.html" in await everything(storage)
    for place in (storage, alone):
        await publish(calm(), place, BUCKET)
    assert await everything(storage) == await everything(alone)


PLACES = [
    *(("write", OF_DAY + name) for name in ("run.json", "index.html", "trades.html", "orderbook.html", "summary.json")),
    *(("write", name) for name in ("kalshi/2026/11/index.html", "kalshi/index.html", "index.html")),
    *(("read", OF_DAY + name) for name in ("run.json", "summary.json")),
]
OTHERS = [
    calm(score=1.0),
    calm(DAY - timedelta(days=1)),
    calm(DAY + timedelta(days=1)),
    calm(DAY - timedelta(days=30)),
    calm(feed="other"),
]


async def test_a_run_of_one_suite_keeps_what_the_others_last_said() -> None:
    storage = MemoryStorage()
    titles = {"trades": "Trades", "gaps": "Gaps", "quotes": "Quotes"}
    await publish(run(DAY, suite("trades", expectation()), suite("gaps", expectation())), storage, BUCKET)

    made = await completed(run(DAY, suite("trades", expectation(state="failed"))), titles, storage, BUCKET)
    fresh = await completed(run(DAY, suite("trades", expectation())), titles, MemoryStorage(), BUCKET)

    assert [(one.suite, one.ran, one.colour) for one in made.suites] == [
        ("trades", True, "red"), ("gaps", True, "green"), ("quotes", False, "grey"),
    ]  # fmt: skip
    assert [one.ran for one in fresh.suites] == [True, False, False]


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
@pytest.mark.parametrize("other", OTHERS, ids=lambda other: f"{other.feed} {other.day}")
async def test_publishers_at_the_same_time_end_with_the_pages_of_one_run_each(
    place: tuple[str, str], other: QualityRun
) -> None:
    storage, alone = Overtaken(*place, other), MemoryStorage()
    await publish(without_documents(bad()), storage, BUCKET)
    assert storage.overtook
    stored = await everything(storage)
    for key, content in stored.items():
        if key.endswith("run.json"):
            await publish(msgspec.json.decode(content, type=QualityRun), alone, BUCKET)
    assert stored == await everything(alone)


@pytest.mark.parametrize("after", [False, True])
async def test_a_publisher_that_is_killed_anywhere_is_repaired_by_the_next(after: bool) -> None:
    alone = MemoryStorage()
    for made in (calm(DAY - timedelta(days=1)), without_documents(bad())):
        await publish(made, alone, BUCKET)
    wanted, killed = await everything(alone), 0
    for n in range(200):
        storage = MemoryStorage()
        await publish(calm(DAY - timedelta(days=1)), storage, BUCKET)
        await publish(run(DAY, suite("gone", expectation())), storage, BUCKET)
        try:
            await publish(without_documents(bad()), FaultyStorage(storage, n, after), BUCKET)
        except* Killed:
            killed += 1
        else:
            break
        await publish(without_documents(bad()), storage, BUCKET)
        assert await everything(storage) == wanted, n
    assert killed > 20


async def test_days_know_their_neighbours_also_those_that_came_later() -> None:
    storage = MemoryStorage()
    for day in (DAY, DAY - timedelta(days=9), DAY - timedelta(days=2)):
        await publish(calm(day), storage, BUCKET)
    near = {}
    for days in (0, 2, 9):
        its = await page(storage, f"kalshi/{DAY - timedelta(days=days):%Y/%m/%d}/index.html")
        near[days] = {
            str(attrs["rel"]): attrs["href"] for tag, attrs in its.elements if attrs.get("rel") in ("prev", "next")
        }
    root = "../../../../kalshi/2026/11/"
    assert near == {
        0: {"prev": f"{root}20/index.html"},
        2: {"prev": f"{root}13/index.html", "next": f"{root}22/index.html"},
        9: {"next": f"{root}20/index.html"},
    }


async def test_the_index_says_up_to_which_day_it_knows_anything() -> None:
    """A page that nobody writes any more stays green: it must not look like news."""
    storage = MemoryStorage()
    await publish(calm(), storage, BUCKET)

    index = await page(storage, "kalshi/index.html")

    assert f"Nothing is known here of days after {DAY}" in index.text
    assert "between the first and the newest report" in index.text


async def test_the_index_stays_bounded_and_older_days_are_on_the_pages_of_their_months() -> None:
    storage = MemoryStorage()
    for n in range(INDEX_DAYS + 8):
        day = DAY - timedelta(days=n)
        await storage.replace(BUCKET, f"kalshi/{day:%Y/%m/%d}/run.json", msgspec.json.encode(calm(day)))
    oldest = DAY - timedelta(days=INDEX_DAYS + 7)
    for day in await stored_days(storage, BUCKET, "kalshi"):
        await rebuild(storage, BUCKET, "kalshi", day)
    index = await page(storage, "kalshi/index.html")
    assert sum(tag == "time" for tag, _ in index.elements) == INDEX_DAYS
    assert f"{oldest}" not in index.text
    assert f"{oldest}" in (await page(storage, f"kalshi/{oldest:%Y/%m}/index.html")).text
    assert list(broken_links(await everything(storage))) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"feed":"kalshi"}', msgspec.json.encode(calm(date(2026, 1, 1)))]
)
async def test_a_damaged_run_is_said_in_the_table_and_stops_no_other_day(content: bytes) -> None:
    storage = MemoryStorage()
    await publish(calm(DAY - timedelta(days=1)), storage, BUCKET)
    await storage.replace(BUCKET, "kalshi/2026/11/21/run.json", content)
    await storage.delete(BUCKET, "kalshi/2026/11/21/summary.json")
    await publish(calm(), storage, BUCKET)
    assert "what is stored of this day cannot be read" in (await page(storage, "kalshi/index.html")).text
    with pytest.raises(DataError, match=r"run\.json"):
        await rebuild(storage, BUCKET, "kalshi", DAY - timedelta(days=1))


async def test_a_summary_that_is_damaged_or_outdated_is_not_believed() -> None:
    storage = MemoryStorage()
    await publish(calm(), storage, BUCKET)
    good = await everything(storage)
    for content in (b"", b"{}", good[OF_DAY + "summary.json"].replace(b'"green"', b'"red"').replace(b"995", b"994")):
        outdated = content.replace(b'"run_bytes":', b'"run_bytes":9')
        await storage.replace(BUCKET, OF_DAY + "summary.json", outdated)
        await publish(calm(DAY + timedelta(days=1)), storage, BUCKET)
        assert "0.994" not in (await page(storage, "kalshi/index.html")).text
        await rebuild(storage, BUCKET, "kalshi", DAY)


async def test_a_run_that_is_not_there_is_missing() -> None:
    with pytest.raises(ObjectMissing):
        await rebuild(MemoryStorage(), BUCKET, "kalshi", DAY)


@pytest.mark.parametrize("name", ["index", "run", "../x", "a/b", "", "A b", "x" * 80, "<b>"])
async def test_a_suite_whose_name_can_be_no_page_is_refused_before_anything_is_written(name: str) -> None:
    storage = MemoryStorage()
    with pytest.raises(DataError, match="not a suite's name"):
        await publish(run(DAY, suite("trades", expectation()), silent(name)), storage, BUCKET)
    assert await everything(storage) == {}


async def test_a_run_that_cannot_be_stored_leaves_the_report_of_the_run_before() -> None:
    storage = MemoryStorage()
    await publish(calm(), storage, BUCKET)
    before = await everything(storage)
    broken = msgspec.structs.replace(suite("trades", expectation()), document={"value": object()})

    with pytest.raises(TypeError):
        await publish(run(DAY, broken), storage, BUCKET)

    assert await everything(storage) == before


async def test_objects_that_are_no_reports_are_left_alone() -> None:
    storage = MemoryStorage()
    strange = [
        "kalshi/2026/13/45/run.json",
        "kalshi/notes.txt",
        "Kalshi/2026/11/22/run.json",
        "x/2026/11/22/run.json.bak",
    ]
    for key in strange:
        await storage.replace(BUCKET, key, b"mine")
    await publish(calm(), storage, BUCKET)
    assert [await storage.get(BUCKET, key) for key in strange] == [b"mine"] * 4
    assert await stored_days(storage, BUCKET, "kalshi") == [DAY]
