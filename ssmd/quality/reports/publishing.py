"""Write the pages of a quality run into storage, in the place of those of an earlier run of the same day.

Every page is a function of the stored runs. Whoever has written pages looks whether what they were made from is still
what is stored, and otherwise makes them again: so publishers at the same time end with pages of one and the same run.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from ssmd.errors import ConfigError, DataError
from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing, Storage
from ssmd.quality.outcome import QualityRun, SuiteOutcome
from ssmd.quality.reports import pages
from ssmd.quality.reports.assets import assets
from ssmd.quality.reports.layout import (
    ROOT_INDEX,
    day_of_run,
    day_prefix,
    feed_prefix,
    month_key,
    suite_page,
)
from ssmd.quality.reports.pages import FeedCard, Neighbours
from ssmd.quality.reports.summary import DaySummary, summarize, unreadable
from ssmd.quality.reports.texts import storable

INDEX_DAYS = 62
"""Days on a feed's first page; all others are on the pages of their months."""
ATTEMPTS = 5
AT_ONCE = 16
RUN, SUMMARY, INDEX = "run.json", "summary.json", "index.html"

T = TypeVar("T")

log = structlog.get_logger()


async def publish(run: QualityRun, storage: Storage, bucket: str) -> list[str]:
    """Store the run and all pages that show it; the keys written, the day's own page first.

    DataError for a suite whose name cannot be a page's; StorageUnavailable when the storage is away: then the next
    publication of the day does it all.
    """
    for suite in run.suites:
        suite_page(suite.suite)
    prefix = day_prefix(run.feed, run.day)
    content = msgspec.json.encode(storable(msgspec.to_builtins(run)))  # first: what cannot be stored replaces nothing
    await storage.delete(bucket, prefix + SUMMARY)  # of an earlier run: without it, the tables look at the run itself
    await storage.replace(bucket, prefix + RUN, content)
    return [*await rebuild(storage, bucket, run.feed, run.day), prefix + RUN]


async def rebuild(storage: Storage, bucket: str, feed: str, day: date) -> list[str]:
    """Make all pages of a day again from its stored run; the keys written, the day's own page first.

    ObjectMissing when no run of that day is stored, DataError when it cannot be read.
    """
    return await _Press(storage, bucket, feed).day(day)


async def completed(run: QualityRun, titles: Mapping[str, str], storage: Storage, bucket: str) -> QualityRun:
    """A run of some suites, and the others of `titles` (by name) as the day's stored run has them, or as not asked."""
    try:
        stored = _read(await storage.get(bucket, day_prefix(run.feed, run.day) + RUN), run.feed, run.day).suites
    except (ObjectMissing, DataError):
        stored = []
    known = {suite.suite: suite for suite in (*stored, *run.suites)}
    suites = [
        known.get(name) or SuiteOutcome(suite=name, title=title, ran=False, why_not="it was not asked yet")
        for name, title in titles.items()
    ]
    return msgspec.structs.replace(run, suites=suites)


async def stored_days(storage: Storage, bucket: str, feed: str) -> list[date]:
    """The days of a feed of which a run is stored, oldest first."""
    return sorted(_runs(await storage.list(bucket, feed_prefix(feed))).get(feed, ()))


class _Known(NamedTuple):
    """What the tables are made from: all days, newest first, and what is told of some of them."""

    days: list[date]
    newest: list[DaySummary]
    month: list[DaySummary]


class _Press:
    """Prints the pages of one feed."""

    def __init__(self, storage: Storage, bucket: str, feed: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._feed = feed
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def day(self, day: date) -> list[str]:
        """A day's pages, its neighbours' pages (they name each other), and the tables that it stands in."""
        for asset in assets().values():
            await self._storage.replace(self._bucket, asset.key, asset.content)
        written = await self._while_changing(
            lambda: self._stored(day), lambda found: self._day(day, *found, whole=True)
        )
        for near in _neighbours(await self._days(), day):
            if near is not None:
                await self._neighbour(near)
        written += await self._while_changing(lambda: self._known(day), lambda known: self._tables(known, day))
        return written + await self._while_changing(self._feeds, self._root)

    # --- one day ------------------------------------------------------------------------------------------------------

    async def _stored(self, day: date) -> tuple[bytes, Neighbours]:
        """What a day's page is made from."""
        near = _neighbours(await self._days(), day)
        return await self._storage.get(self._bucket, day_prefix(self._feed, day) + RUN), near

    async def _neighbour(self, day: date) -> None:
        try:
            await self._while_changing(lambda: self._stored(day), lambda found: self._day(day, *found, whole=False))
        except DataError as error:  # it is another day's trouble
            log.warning("report of another day not readable", feed=self._feed, day=day, error=error.message)

    async def _day(self, day: date, content: bytes, near: Neighbours, *, whole: bool) -> list[str]:
        """Its page; when `whole`, also those of its suites and its summary."""
        run, prefix = _read(content, self._feed, day), day_prefix(self._feed, day)
        await self._write(prefix + INDEX, await asyncio.to_thread(pages.day_page, run, near))
        if not whole:
            return [prefix + INDEX]
        written = [prefix + INDEX]
        for suite in run.suites:
            key = prefix + suite_page(suite.suite)
            await self._write(key, await asyncio.to_thread(_suite_document, run, suite))
            written.append(key)
        await self._write(prefix + SUMMARY, msgspec.json.encode(summarize(run, len(content))))
        await self._remove_stale(prefix, {*written})
        return written

    async def _remove_stale(self, prefix: str, current: set[str]) -> None:
        """The pages of suites that an earlier run of the day had."""
        for entry in await self._storage.list(self._bucket, prefix):
            if entry.key.endswith(".html") and entry.key not in current:
                await self._storage.delete(self._bucket, entry.key)

    # --- all days -----------------------------------------------------------------------------------------------------

    async def _sizes(self) -> dict[date, int]:
        """The days with a stored run, and the size of each."""
        return _runs(await self._storage.list(self._bucket, feed_prefix(self._feed))).get(self._feed, {})

    async def _days(self) -> list[date]:
        return await stored_days(self._storage, self._bucket, self._feed)

    async def _known(self, day: date) -> _Known:
        """The newest days and those of the month of `day`."""
        sizes = await self._sizes()
        days = sorted(sizes, reverse=True)
        month = [other for other in days if (other.year, other.month) == (day.year, day.month)]
        wanted = sorted({*days[:INDEX_DAYS], *month})
        summaries = await asyncio.gather(*(self._summary(of, sizes[of]) for of in wanted))
        of_day = dict(zip(wanted, summaries, strict=True))
        return _Known(days, [of_day[of] for of in days[:INDEX_DAYS]], [of_day[of] for of in month])

    async def _tables(self, known: _Known, day: date) -> list[str]:
        """The feed's first page, and that of the month of `day`."""
        index, its_month = feed_prefix(self._feed) + INDEX, month_key(self._feed, day)
        await self._write(its_month, pages.month_page(self._feed, day.replace(day=1), known.month))
        await self._write(index, pages.index_page(self._feed, known.newest, _months(known.days)))
        return [index, its_month]

    async def _feeds(self) -> dict[str, dict[date, int]]:
        return _runs(await self._storage.list(self._bucket, ""))

    async def _root(self, feeds: Mapping[str, dict[date, int]]) -> list[str]:
        cards = []
        for feed, sizes in sorted(feeds.items()):
            newest = max(sizes)
            found = await _Press(self._storage, self._bucket, feed)._summary(newest, sizes[newest])
            cards.append(FeedCard(feed, len(sizes), found))
        await self._write(ROOT_INDEX, pages.root_page(cards))
        return [ROOT_INDEX]

    async def _summary(self, day: date, run_bytes: int) -> DaySummary:
        """What is told of a day; made from the run itself where the summary is absent or of an earlier run."""
        prefix = day_prefix(self._feed, day)
        async with self._asking:
            try:
                found = msgspec.json.decode(await self._storage.get(self._bucket, prefix + SUMMARY), type=DaySummary)
                if (found.run_bytes, found.feed, found.day) == (run_bytes, self._feed, day):
                    return found
            except (ObjectMissing, msgspec.MsgspecError, UnicodeError):
                log.info("summary of a day is made again", feed=self._feed, day=day)
            try:
                content = await self._storage.get(self._bucket, prefix + RUN)
                return summarize(_read(content, self._feed, day), len(content))
            except DataError as error:
                log.warning("report of a day not readable", feed=self._feed, day=day, error=error.message)
                return unreadable(self._feed, day)

    # --- writing ------------------------------------------------------------------------------------------------------

    async def _write(self, key: str, content: bytes) -> None:
        await self._storage.replace(self._bucket, key, content)

    @staticmethod
    async def _while_changing(
        read: Callable[[], Awaitable[T]], write: Callable[[T], Awaitable[list[str]]]
    ) -> list[str]:
        """Write what `read` leads to, until it is still the same afterwards."""
        source = await read()
        for _ in range(ATTEMPTS):
            written = await write(source)
            now = await read()
            if now == source:
                return written
            source = now
        return await write(source)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(content: bytes, feed: str, day: date) -> QualityRun:
    """A stored run; DataError when it is none, or that of another day."""
    place = day_prefix(feed, day) + RUN
    try:
        run = msgspec.json.decode(content, type=QualityRun)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise DataError(f"{place} is not a stored quality run: {error}", "Run the checks of that day again.") from error
    if (run.feed, run.day) != (feed, day):
        raise DataError(f"{place} holds the run of {run.feed[:40]!r} of {run.day}", "Run the checks of that day again.")
    return run


def _runs(listing: Iterable[ObjectInfo]) -> dict[str, dict[date, int]]:
    """The stored runs of a listing: feed, day, size."""
    found: dict[str, dict[date, int]] = {}
    for entry in listing:
        if (its := day_of_run(entry.key)) is not None:
            found.setdefault(its[0], {})[its[1]] = entry.bytes
    return found


def _neighbours(days: Sequence[date], day: date) -> Neighbours:
    return Neighbours(
        max((other for other in days if other < day), default=None),
        min((other for other in days if other > day), default=None),
    )


def _months(days: Iterable[date]) -> list[tuple[date, int]]:
    """The months of these days with the number of their days, newest first."""
    return sorted(Counter(day.replace(day=1) for day in days).items(), reverse=True)


def _suite_document(run: QualityRun, suite: SuiteOutcome) -> bytes:
    """A suite's own page. What Great Expectations cannot render is said on the page; the report is worth more."""
    if suite.document is None:
        return pages.suite_document(run, suite, "", suite.why_not or "The suite left no result of its own.")
    from ssmd.quality.reports.data_docs import data_docs

    try:
        docs = data_docs(suite.document)
        left_out = f"Great Expectations cannot show these results: {', '.join(docs.left_out)}" if docs.left_out else ""
        return pages.suite_document(run, suite, docs.content, left_out)
    except ConfigError:
        raise
    except Exception as error:  # a renderer may raise anything about a result that it does not know
        log.exception("data docs not rendered", feed=run.feed, day=run.day, suite=suite.suite)
        problem = f"Great Expectations could not render its result: {type(error).__name__}: {error}"
        return pages.suite_document(run, suite, "", problem)
