"""I1 to I5: the ledger of what was sent against the records that are archived."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.checker.model import NS_PER_S, Archive, Entry, Fault, Finding, Gap, Record

SLACK_NS = 1_000_000
TRANSIT_NS = 50_000_000  # a gap may begin this much before the last frame: the lost one was sent while it was under way
FAULT_ALLOWANCE_NS = 5 * NS_PER_S
TWIN_NS = NS_PER_S  # the exchange sends the same thing to two connections at about the same time
DATA_TYPES = ("trade", "ticker", "orderbook_delta", "orderbook_snapshot", "market_lifecycle_v2")


@dataclass(slots=True)
class Match:
    """Which ledger entry each archived record is, and what is left over on both sides."""

    pairs: dict[str, str] = field(default_factory=dict)  # ledger connection → archive connection
    entries: dict[str, dict[int, Entry]] = field(default_factory=dict)  # archive connection → n → entry
    received: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # ledger connection → (index, recv_ns)
    missing: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def match(ledger: Mapping[str, Sequence[Entry]], archive: Archive) -> Match:
    """Pair connections by the frames they share, then frames by content and order."""
    result = Match()
    result.pairs = _pair_connections(ledger, archive.records)
    sent_by = {archived: sent for sent, archived in result.pairs.items()}
    known = {entry.sha256 for entries in ledger.values() for entry in entries}
    for connection, records in archive.records.items():
        result.findings += _numbering(connection, records)
        entries = ledger.get(sent_by.get(connection, ""), ())
        _match_connection(result, connection, records, entries, archive.gaps, known)
    for connection, entries in ledger.items():
        archived = result.pairs.get(connection, "")
        found = {entry.index for entry in result.entries.get(archived, {}).values()}
        result.missing += [entry for entry in entries if entry.index not in found]
    return result


def _pair_connections(ledger: Mapping[str, Sequence[Entry]], records: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """One to one, best overlap first; a frame that was sent often says little about where it belongs."""
    rarity = Counter(entry.sha256 for entries in ledger.values() for entry in entries)
    where: dict[str, Counter[str]] = defaultdict(Counter)
    for connection, entries in ledger.items():
        for entry in entries:
            where[entry.sha256][connection] += 1
    scores: Counter[tuple[str, str]] = Counter()
    for archived, lines in records.items():
        for digest, count in Counter(record.sha256 for record in lines).items():
            for connection, sent in where.get(digest, {}).items():
                scores[connection, archived] += 1000 * min(count, sent) // rarity[digest]
    pairs: dict[str, str] = {}
    for (connection, archived), _ in scores.most_common():
        if connection not in pairs and archived not in pairs.values():
            pairs[connection] = archived
    return pairs


def _numbering(connection: str, records: Sequence[Record]) -> list[Finding]:
    findings = []
    expected = 0
    for record in records:
        if record.n < expected:
            findings.append(Finding("I2", connection, f"n {record.n} is archived twice ({record.object})"))
        elif record.n > expected:
            findings.append(Finding("N", connection, f"n {expected}…{record.n - 1} are not there"))
        expected = max(expected, record.n + 1)
    return findings


def _match_connection(
    result: Match,
    connection: str,
    records: Sequence[Record],
    entries: Sequence[Entry],
    gaps: Sequence[Gap],
    known: set[str],
) -> None:
    sent: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        sent[entry.sha256].append(entry)
    archived: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        archived[record.sha256].append(record)
    chosen: dict[int, Entry] = {}  # n → entry
    ambiguous = []
    for digest, copies in archived.items():
        candidates = sent.get(digest, [])
        if not candidates:
            for record in copies:
                result.findings.append(_invented(record, digest in known))
            continue
        for record in copies[len(candidates) :]:
            result.findings.append(Finding("I2", connection, f"n {record.n}: frame archived more often than sent"))
        if len(copies) < len(candidates):
            ambiguous.append((copies, candidates))
        else:
            chosen.update({record.n: entry for record, entry in zip(copies, candidates, strict=False)})
    for copies, candidates in ambiguous:
        chosen.update(_choose(copies, candidates, chosen, gaps))
    result.findings += _order(connection, chosen)
    recv = {record.n: record.recv_ns for record in records}
    result.entries[connection] = chosen
    if entries:
        result.received[entries[0].connection] = sorted((entry.index, recv[n]) for n, entry in chosen.items())


def _invented(record: Record, sent_elsewhere: bool) -> Finding:
    what = "was sent on another connection" if sent_elsewhere else "was never sent"
    return Finding("I4", record.connection, f"n {record.n} ({record.type}) {what} ({record.object})")


def _choose(
    copies: Sequence[Record], candidates: Sequence[Entry], anchors: Mapping[int, Entry], gaps: Sequence[Gap]
) -> dict[int, Entry]:
    """Identical frames, fewer archived than sent: between their neighbours; the lost ones rather dropped or in gaps."""
    numbers = sorted(anchors)
    chosen: dict[int, Entry] = {}
    last = -1
    for place, record in enumerate(copies):
        at = bisect_right(numbers, record.n)
        low = max(last, anchors[numbers[at - 1]].index if at else -1)
        high = anchors[numbers[at]].index if at < len(numbers) else float("inf")
        left = len(copies) - place - 1
        possible = [entry for entry in candidates if entry.index > last][: len(candidates) - left or None]
        between = [entry for entry in possible if low < entry.index < high] or possible
        if not between:
            break
        entry = min(between, key=lambda each: (each.dropped, _in_gap(each, gaps), each.index))
        chosen[record.n] = entry
        last = entry.index
    return chosen


def _in_gap(entry: Entry, gaps: Sequence[Gap]) -> bool:
    return any(gap.from_ns <= entry.t_ns <= gap.to_ns for gap in gaps)


def _order(connection: str, chosen: Mapping[int, Entry]) -> list[Finding]:
    """Per subscription, what was sent earlier is archived earlier."""
    findings = []
    last: dict[int | None, Entry] = {}
    for n in sorted(chosen):
        entry = chosen[n]
        before = last.get(entry.sid)
        if before is not None and before.index > entry.index:
            message = f"n {n} (sid {entry.sid}, seq {entry.seq}) was sent before its predecessor (seq {before.seq})"
            findings.append(Finding("I3", connection, message))
        last[entry.sid] = entry
    return findings


def check_missing(
    found: Match, gaps: Sequence[Gap], ignore_after_ns: int | None = None, slack_ns: int = SLACK_NS
) -> tuple[list[Finding], set[str]]:
    """I1, and which gaps cover a really missing frame. One that came over another connection is not missing."""
    findings = []
    useful: set[str] = set()
    twins = _Twins(found)
    for entry in found.missing:
        if ignore_after_ns is not None and entry.t_ns > ignore_after_ns:
            continue
        if twins.has(entry):
            continue
        covering = [gap for gap in gaps if _covers(gap, entry, found, slack_ns)]
        useful.update(gap.object for gap in covering)
        if not covering:
            what = f"{entry.type} n {entry.index} (sid {entry.sid}, seq {entry.seq}) sent at {entry.t_ns}"
            findings.append(Finding("I1", entry.connection, f"{what} is neither archived nor in a gap"))
    return findings, useful


class _Twins:
    """Archived frames by type and market: when the exchange sent them, and to which connection. Each is a twin once."""

    def __init__(self, found: Match) -> None:
        self._sent: dict[tuple[str, str | None], list[tuple[int, str]]] = defaultdict(list)
        if found.missing:
            for entries in found.entries.values():
                for entry in entries.values():
                    self._sent[entry.type, entry.ticker].append((entry.t_ns, entry.connection))
            for times in self._sent.values():
                times.sort()

    def has(self, entry: Entry) -> bool:
        """Was a frame of this type and market sent to another connection at that time, and archived?"""
        if entry.type not in DATA_TYPES:
            return False
        times = self._sent.get((entry.type, entry.ticker), [])
        start = bisect_right(times, (entry.t_ns - TWIN_NS, ""))
        end = bisect_right(times, (entry.t_ns + TWIN_NS, ""))
        others = [its for its in times[start:end] if its[1] != entry.connection]
        if others:
            times.remove(min(others, key=lambda its: abs(its[0] - entry.t_ns)))
        return bool(others)


def _covers(gap: Gap, entry: Entry, found: Match, slack_ns: int) -> bool:
    """The gap begins no later than the receipt of the last archived frame before the lost one, and ends after it."""
    archived = found.pairs.get(entry.connection)
    if gap.sid is not None and (gap.sid != entry.sid or (gap.connection is not None and gap.connection != archived)):
        return False
    if gap.tickers is not None and entry.ticker is not None and entry.ticker not in gap.tickers:
        return False
    start = entry.t_ns
    received = found.received.get(entry.connection, [])
    at = bisect_right(received, (entry.index, 0))
    if at:
        start = max(start, received[at - 1][1])
    return gap.from_ns <= start and entry.t_ns <= gap.to_ns + slack_ns


def check_gaps(
    found: Match,
    archive: Archive,
    ledger: Mapping[str, Sequence[Entry]],
    faults: Sequence[Fault] | None,
    useful: set[str],
) -> list[Finding]:
    """I5: gaps hold no archived frames, have a cause, and are together not longer than the faults allow."""
    findings = []
    for gap in archive.gaps:
        inside = _frames_inside(gap, archive, found)
        if inside:
            findings.append(Finding("I5", gap.object, f"{inside} archived frames lie inside the gap"))
    if faults is None:
        return findings
    causes = [*faults, *_between_connections(ledger)]
    for gap in archive.gaps:
        caused = any(
            gap.from_ns <= cause.end_ns + FAULT_ALLOWANCE_NS and cause.start_ns <= gap.to_ns + SLACK_NS
            for cause in causes
        )
        if gap.object not in useful and not caused:
            findings.append(Finding("I5", gap.object, f"covers no missing frame and no fault ({gap.reason})"))
    total = _union_ns([(gap.from_ns, gap.to_ns) for gap in archive.gaps])
    allowed = sum(fault.end_ns - fault.start_ns for fault in faults) + FAULT_ALLOWANCE_NS * len(faults)
    if total > allowed:
        message = f"{total / NS_PER_S:.3f} s of gaps, {allowed / NS_PER_S:.3f} s are explained by faults"
        findings.append(Finding("I5", "all gaps", message))
    return findings


def _frames_inside(gap: Gap, archive: Archive, found: Match) -> int:
    """Archived frames of the gap's connection and subscription, received strictly between its ends."""
    connections = archive.records if gap.connection is None else [gap.connection]
    count = 0
    for connection in connections:
        for record in archive.records.get(connection, ()):
            if not gap.from_ns + TRANSIT_NS < record.recv_ns < gap.to_ns:
                continue
            entry = found.entries.get(connection, {}).get(record.n)
            if gap.sid is not None and (entry is None or entry.sid != gap.sid):
                continue
            if gap.tickers is not None and (entry is None or entry.ticker not in gap.tickers):
                continue
            count += 1
    return count


def _between_connections(ledger: Mapping[str, Sequence[Entry]]) -> list[Fault]:
    """From the last frame of a connection to the first of the next: nobody was subscribed."""
    spans = sorted((entries[0].t_ns, entries[-1].t_ns) for entries in ledger.values() if entries)
    return [Fault(min(end, start), max(end, start)) for (_, end), (start, _) in pairwise(spans)]


def _union_ns(spans: Iterable[tuple[int, int]]) -> int:
    total = 0
    end = 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total
