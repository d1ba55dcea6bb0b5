"""The registry as running services use it: whatever keeps it from answering passes, and one bad value costs itself."""

import threading
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TypeVar
from uuid import UUID, uuid5

import structlog

from ssmd import telemetry as metrics
from ssmd.errors import DataError, SsmdError
from ssmd.market.events import Gap
from ssmd.registry.interface import (
    FeedVersion,
    HeardMarket,
    InventoryRow,
    Issue,
    Market,
    MarketFilter,
    MarketWords,
    ObjectRecord,
    Registry,
    RegistryUnavailable,
)
from ssmd.registry.values import printable

_SHOWN = 300

T = TypeVar("T")

_log = structlog.get_logger()


class PatientRegistry:
    """A Registry that never ends a service.

    Every failure but DataError is RegistryUnavailable: a refused login, tables that are not ours yet, a key that cannot
    be read and even a bug can be put right while the service goes on. It is logged when it begins and when it ends.
    A write that holds values which the database refuses writes the others; what is left out is logged and counted.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._troubles: dict[str, tuple[type[BaseException], str]] = {}

    @property
    def problem(self) -> str:
        """What the database last answered to what it does not do now; "" while it does everything."""
        with self._lock:
            return next((message for _, message in self._troubles.values()), "")

    # -- writing ------------------------------------------------------------------------------------------------

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        """See `Registry.record_objects`."""
        self._write("record_objects", lambda part, _: self._registry.record_objects(feed, part), objects)

    def replace_objects(self, feed: str, remove_keys: Sequence[tuple[str, str]], add: Sequence[ObjectRecord]) -> None:
        """See `Registry.replace_objects`: all or nothing."""
        self._ask("replace_objects", lambda: self._registry.replace_objects(feed, remove_keys, add))

    def record_gaps(self, gaps: Sequence[Gap]) -> None:
        """See `Registry.record_gaps`."""
        self._write("record_gaps", lambda part, _: self._registry.record_gaps(part), gaps)

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        """See `Registry.record_issues`; the parts of a batch that is not taken whole are batches of their own."""

        def write(part: Sequence[Issue], place: str) -> None:
            whole = batch is None or len(part) == len(issues)
            self._registry.record_issues(part, batch if whole else str(uuid5(UUID(batch), place)))

        self._write("record_issues", write, issues)

    def replace_issues(self, feed: str, day: date, data_type: str, issues: Sequence[Issue]) -> None:
        """See `Registry.replace_issues`: all or nothing."""
        self._ask("replace_issues", lambda: self._registry.replace_issues(feed, day, data_type, issues))

    def set_day_score(self, feed: str, day: date, data_type: str, quality_score: float | None) -> None:
        """See `Registry.set_day_score`."""
        self._ask("set_day_score", lambda: self._registry.set_day_score(feed, day, data_type, quality_score))

    def upsert_markets(self, feed: str, markets: Sequence[Market], volatile: frozenset[str] = frozenset()) -> int:
        """See `Registry.upsert_markets`."""
        return self._write(
            "upsert_markets", lambda part, _: self._registry.upsert_markets(feed, part, volatile), markets
        )

    def record_heard(self, feed: str, tickers: Sequence[str], at: datetime) -> None:
        """See `Registry.record_heard`."""
        self._write("record_heard", lambda part, _: self._registry.record_heard(feed, part, at), tickers)

    def set_day_condition(
        self, feed: str, day: date, data_type: str, status: str, quality_score: float | None = None
    ) -> None:
        """See `Registry.set_day_condition`."""
        self._ask(
            "set_day_condition",
            lambda: self._registry.set_day_condition(feed, day, data_type, status, quality_score),
        )

    # -- reading ------------------------------------------------------------------------------------------------

    def feed_version(self, feed: str, on: date) -> FeedVersion:
        """See `Registry.feed_version`."""
        return self._ask("feed_version", lambda: self._registry.feed_version(feed, on))

    def objects(self, feed: str, day: date, data_type: str | None = None) -> list[ObjectRecord]:
        """See `Registry.objects`."""
        return self._ask("objects", lambda: self._registry.objects(feed, day, data_type))

    def inventory(self, feed: str, first: date, last: date) -> list[InventoryRow]:
        """See `Registry.inventory`."""
        return self._ask("inventory", lambda: self._registry.inventory(feed, first, last))

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        """See `Registry.gaps`."""
        return self._ask("gaps", lambda: self._registry.gaps(feed, day, last))

    def issues(self, feed: str, day: date) -> list[Issue]:
        """See `Registry.issues`."""
        return self._ask("issues", lambda: self._registry.issues(feed, day))

    def markets(self, feed: str, status: str | None = None, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.markets`."""
        return self._ask("markets", lambda: self._registry.markets(feed, status, limit, after))

    def market(self, feed: str, ticker: str) -> Market | None:
        """See `Registry.market`."""
        return self._ask("market", lambda: self._registry.market(feed, ticker))

    def unknown_tickers(self, feed: str, tickers: Sequence[str]) -> list[str]:
        """See `Registry.unknown_tickers`."""
        return self._ask("unknown_tickers", lambda: self._registry.unknown_tickers(feed, tickers))

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.find_markets`."""
        return self._ask("find_markets", lambda: self._registry.find_markets(feed, wanted, limit, after))

    def market_words(self, feed: str) -> MarketWords:
        """See `Registry.market_words`."""
        return self._ask("market_words", lambda: self._registry.market_words(feed))

    def never_heard(self, feed: str, limit: int = 1000) -> list[Market]:
        """See `Registry.never_heard`."""
        return self._ask("never_heard", lambda: self._registry.never_heard(feed, limit))

    def heard_markets(self, feed: str, limit: int = 1000, after: str = "") -> list[HeardMarket]:
        """See `Registry.heard_markets`."""
        return self._ask("heard_markets", lambda: self._registry.heard_markets(feed, limit, after))

    def ping(self) -> None:
        """See `Registry.ping`."""
        self._ask("ping", self._registry.ping)

    def close(self) -> None:
        """See `Registry.close`."""
        self._registry.close()

    # -- patience -----------------------------------------------------------------------------------------------

    def _write(self, doing: str, write: Callable[[Sequence[T], str], int | None], items: Sequence[T]) -> int:
        """Write `items`, and when they are refused together, all but the refused ones; the sum of the answers."""
        refused: list[tuple[T, DataError]] = []

        def write_part(start: int, end: int) -> int:
            part = items[start:end]
            try:
                return self._ask(doing, lambda: write(part, f"{start}-{end}")) or 0
            except DataError as error:
                if len(part) <= 1:
                    refused.extend((item, error) for item in part)
                    return 0
            middle = (start + end) // 2
            return write_part(start, middle) + write_part(middle, end)

        written = write_part(0, len(items))
        if refused:
            first, error = refused[0]
            metrics.REGISTRY_LEFT_OUT.labels(doing).inc(len(refused))
            _log.error(
                "left out of the registry", doing=doing, count=len(refused), error=error.message,
                first=printable(repr(first))[:_SHOWN],
            )  # fmt: skip
        return written

    def _ask(self, doing: str, question: Callable[[], T]) -> T:
        try:
            answer = question()
        except DataError:
            self._well(doing)  # it answers
            raise
        except RegistryUnavailable as error:
            self._away(doing, error, error.message)
            raise
        except Exception as error:  # a bug here must not cost what the exchange sends meanwhile: logged whole
            message = error.message if isinstance(error, SsmdError) else f"{type(error).__name__}: {error}"
            self._away(doing, error, message)
            raise RegistryUnavailable(message, getattr(error, "hint", "")) from error
        self._well(doing)
        return answer

    def _away(self, doing: str, error: Exception, message: str) -> None:
        with self._lock:
            before, _ = self._troubles.get(doing, (None, ""))
            self._troubles[doing] = type(error), message
        if before is not type(error):
            bug = None if isinstance(error, SsmdError) else error
            hint = getattr(error, "hint", "")
            _log.error("registry away, trying on", doing=doing, error=message, hint=hint, exc_info=bug)

    def _well(self, doing: str) -> None:
        with self._lock:
            trouble = self._troubles.pop(doing, None)
        if trouble is not None:
            _log.info("registry back", doing=doing)
