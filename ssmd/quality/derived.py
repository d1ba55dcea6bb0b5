"""Make a day's events again from raw: are compacted objects and segments what raw gives, and is raw all there was?"""

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ssmd.archive.compare import StreamComparison, digest, read_stream
from ssmd.archive.layout import SegmentObject, TickerObject
from ssmd.archive.normalize import UNRECORDED, Normalized, TickerFile, normalize_day
from ssmd.archive.spill import Spill
from ssmd.clock import iso
from ssmd.errors import DataError
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.quality.exchange_trades import Archived, Exchange, captured_spans, compare, markets_to_ask, trades_of
from ssmd.quality.findings import Findings
from ssmd.quality.overlap import Overlap
from ssmd.quality.recount import Numbers

MAX_NOT_UNDERSTOOD = 0.001
"""A greater part of a type's frames that gave nothing is a finding; the exchange sends a bad frame now and then."""


class Normal(NamedTuple):
    """What is stored: the compacted objects with the sha256 of their contents (None: not read), and the segments."""

    contents: Mapping[TickerObject, str | None]
    segments: Sequence[SegmentObject]


class Asked(NamedTuple):
    """The exchange, and the gaps of the day in which it may list more."""

    exchange: Exchange
    gaps: Sequence[Gap]


class Counted(NamedTuple):
    """What was counted of raw: frame numbers of each connection, and frames by type."""

    numbers: Mapping[str, Numbers]
    types: Mapping[str, int]


class Derived:
    """One day. `chosen` tickers are compared by content (None: all), of the others it is looked whether they exist."""

    def __init__(
        self,
        feed: str,
        day: date,
        storage: Storage,
        findings: Findings,
        counted: Counted,
        *,
        closed: bool,
        chosen: frozenset[str] | None,
    ) -> None:
        self._feed = feed
        self._day = day
        self._storage = storage
        self._findings = findings
        self._counted = counted
        self._closed = closed
        self._chosen = chosen
        self._trades: Counter[str] = Counter()

    async def verify(
        self,
        raw_bucket: str,
        normalized_bucket: str,
        stored: Normal,
        work: Path | None,
        asked: Asked | None,
        overlap: Overlap | None = None,
    ) -> bool:
        """Findings; True when the exchange was to be asked and is away. `overlap` hears all events of the day."""
        findings = self._findings
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmd-verify-", dir=work)))
            events = stack.enter_context(Spill(folder / "events"))
            stream = stack.enter_context(Spill(folder / "stream"))
            try:
                speaker_on = partial(open_feed, self._feed)
                made = await normalize_day(
                    self._storage, raw_bucket, self._feed, self._day, speaker_on, events,
                    watch=None if overlap is None else overlap.heard,
                )  # fmt: skip
                await read_stream(self._storage, normalized_bucket, stored.segments, stream)
            except DataError as error:
                findings.checks["renormalize"] = f"not run: {error.message}"
                if asked is not None:
                    findings.checks["exchange"] = "not run: raw cannot be read"
                return False
            if overlap is not None:
                overlap.findings(findings)
            self._problems(made)
            comparison = StreamComparison(stream)
            contents = await asyncio.to_thread(self._remade, events, comparison, bool(stored.segments))
            findings.checks["renormalize"] = findings.ran
            if stored.contents:
                self._compare_compacted(stored, contents)
            if stored.segments:
                self._compare_stream(comparison, bool(stored.contents))
            if not stored.contents and not stored.segments and contents:
                findings.notes.append("the day has neither segments nor compacted objects: run ssmd data compact")
            return False if asked is None else await self._ask(asked, events)

    def _problems(self, made: Normalized) -> None:
        for kind, count in sorted(made.problems.items()):
            if kind != UNRECORDED:
                self._findings.notes.append(f"{count} frames or events of raw gave nothing: {kind}")
        reasons: dict[str, Counter[str]] = {}
        for (name, kind), count in made.not_understood.items():
            reasons.setdefault(name, Counter())[kind] += count
        for name, kinds in sorted(reasons.items()):
            count, total = kinds.total(), max(self._counted.types.get(name, 0), kinds.total())
            if count > total * MAX_NOT_UNDERSTOOD:
                why = ", ".join(f"{each:,} {kind}" for kind, each in kinds.most_common())
                self._findings.add(
                    "not_understood", name,
                    f"{count:,} of {total:,} {name} frames ({count / total:.1%}) gave nothing: {why}. Has the exchange "
                    "changed them? Once the decoder reads them, run ssmd data backfill",
                )  # fmt: skip
        self._bare_gaps(made)

    def _bare_gaps(self, made: Normalized) -> None:
        """Holes in the exchange's numbers that nobody recorded; where frames of ours are missing, `hole` says so."""
        holes: dict[str, list[tuple[int, int]]] = {}
        for gap in made.bare:
            if gap.connection not in holes:
                numbers = self._counted.numbers.get(gap.connection)
                holes[gap.connection] = [] if numbers is None else list(numbers.holes())
            if any(gap.after_n < first and last < gap.n for first, last in holes[gap.connection]):
                continue
            where = f"{gap.connection} sid {gap.sid}"
            message = (
                f"the exchange's numbers go from {gap.last_seq} to {gap.next_seq} at {iso(gap.received_ns)} "
                f"(frame {gap.n}): {gap.next_seq - gap.last_seq - 1} are missing, and no recorded gap says so"
            )
            if self._closed:
                self._findings.add("unrecorded_gap", where, message)
            else:
                self._findings.notes.append(f"{where}: {message} yet: the day is not over")

    async def _ask(self, asked: Asked, events: Spill) -> bool:
        chosen = markets_to_ask(self._day, self._trades)
        trades = await asyncio.to_thread(trades_of, self._feed, self._day, events, chosen)
        spans = captured_spans(self._day, self._counted.numbers)
        word, away = await compare(asked.exchange, Archived(trades, spans, asked.gaps), self._findings)
        self._findings.checks["exchange"] = word
        return away

    def _remade(self, events: Spill, comparison: StreamComparison, streamed: bool) -> dict[TickerObject, str | None]:
        """sha256 of each ticker's content as raw gives it; its events go to `comparison` too."""
        contents: dict[TickerObject, str | None] = {}
        for kind, symbol in events.sorted_keys():
            its = TickerObject(self._feed, kind, self._day, symbol)
            if kind != "gap":
                self._trades[symbol] += 0  # heard of, with or without a trade
            if self._chosen is not None and symbol not in self._chosen and not streamed and kind != "trade":
                contents[its] = None
                continue
            identities: Counter[bytes] = Counter()
            content = hashlib.sha256()
            file = TickerFile(its, events, partial(_count, identities) if streamed else None)
            for message in file:
                content.update(message)
            if streamed:
                comparison.ticker(kind, symbol, identities)
            if kind == "trade":
                self._trades[symbol] += file.measures.records
            contents[its] = content.hexdigest()
        comparison.finish()
        return contents

    def _compare_compacted(self, stored: Normal, contents: Mapping[TickerObject, str | None]) -> None:
        if not self._closed:
            self._findings.notes.append("compacted before the day was over: not compared with raw")
            return
        for its in sorted(stored.contents.keys() | contents.keys()):
            if its not in stored.contents:
                self._findings.add("renormalize", its.key, "is missing (or damaged): raw has events of it")
            elif its not in contents:
                self._findings.add("renormalize", its.key, "is there, but raw gives no event of it")
            elif None not in (said := (stored.contents[its], contents[its])) and said[0] != said[1]:
                self._findings.add("renormalize", its.key, "does not hold what raw gives")
        for segment in stored.segments:
            self._findings.add("segments_left", segment.key, "stands beside compacted objects: run ssmd data compact")

    def _compare_stream(self, comparison: StreamComparison, compacted: bool) -> None:
        for kind, count in sorted((+comparison.only).items()):
            message = f"segments hold {count} {kind} events that raw does not give"
            if self._closed:
                self._findings.add("only_in_stream", kind, message)
            else:
                self._findings.notes.append(f"{message} yet: the day is not over")
        if compacted and self._closed:
            return  # the compacted objects hold them
        for kind, count in sorted((+comparison.missing).items()):
            message = f"segments lack {count} {kind} events that raw gives: run ssmd data compact"
            if self._closed:
                self._findings.add("missing_in_stream", kind, message)
            else:
                self._findings.notes.append(message)


def _count(seen: Counter[bytes], identity: bytes) -> None:
    seen[digest(identity)] += 1
