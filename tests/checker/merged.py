"""Whose events are the day's while two connections overlap: what the handover records say, read independently."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.checker.model import NS_PER_S, Archive, Finding, Gap, Handover, Record

MS = 1_000_000
LAG_NS = 2 * NS_PER_S
"""What the exchange said so long before or after the end of the old one is not at its end any more."""

TRANSIT_NS = NS_PER_S // 20
"""A hole is longer than a frame is under way, and longer than the exchange was silent in the minute around it."""
AROUND_NS = 60 * NS_PER_S


class Published:
    """Which raw frames' events are part of the normalized archive."""

    def __init__(self, handovers: Iterable[Handover]) -> None:
        ordered = sorted(handovers, key=lambda each: each.at_ns)
        self._standing_by = {each.to for each in ordered if each.first_n is None}
        self._taking_over = {each.to: each for each in ordered if each.first_n is not None}
        self._ends = {each.before: each.last_n for each in ordered if each.first_n is not None}

    def only_stood_by(self, connection: str) -> bool:
        """It stood by, and never took over."""
        return connection in self._standing_by and connection not in self._taking_over

    def has(self, record: Record) -> bool:
        """True for every frame of a connection that no record speaks of."""
        last_n = self._ends.get(record.connection)
        if last_n is not None and record.n > last_n:
            return False
        takeover = self._taking_over.get(record.connection)
        if takeover is None or takeover.first_n is None:
            return record.connection not in self._standing_by
        return record.n >= takeover.first_n or any(first <= record.n <= last for first, last in takeover.also)


def in_gap(gaps: Sequence[Gap], at_ns: int, ticker: str) -> bool:
    """Is what was received then covered by a gap?"""
    return any(
        gap.from_ns <= at_ns <= gap.to_ns and gap.sid is None and (gap.tickers is None or ticker in gap.tickers)
        for gap in gaps
    )


class ExchangeTimes:
    """When the exchange said what a connection brought: a connection that lags is compared by it, not by our clock."""

    def __init__(self, archive: Archive) -> None:
        self._times: dict[str, list[tuple[int, int]]] = {}
        for record, frame in [*archive.raw_trades, *archive.raw_quotes]:
            try:
                said_ns = json.loads(frame)["msg"]["ts_ms"] * MS
            except (ValueError, KeyError, TypeError):
                continue
            if isinstance(said_ns, int):
                self._times.setdefault(record.connection, []).append((record.n, said_ns))
        for times in self._times.values():
            times.sort()

    def of(self, record: Record) -> int:
        """The time in the last trade or quote up to this frame of its connection; ours where there is none."""
        times = self._times.get(record.connection, [])
        place = bisect_right(times, (record.n, 1 << 80))
        return times[place - 1][1] if place else record.recv_ns


def check_handovers(archive: Archive) -> list[Finding]:
    """M: one connection publishes at a time; where one ends the other goes on, or a gap says what is missing."""
    findings = []
    published, times = Published(archive.handovers), ExchangeTimes(archive)
    for handover in archive.handovers:
        if handover.first_n is None:
            continue
        new, old = archive.records.get(handover.to, []), archive.records.get(handover.before, [])
        later = [record for record in new if record.n >= handover.first_n]
        ours = [times.of(record) for record in old if published.has(record)]
        if not new:
            findings.append(Finding("M", handover.object, f"{handover.to} has no frames"))
        findings += [Finding("M", handover.object, message) for message in _old_one(handover, old, published)]
        hole = _hole(archive, published, handover)
        if hole is not None:
            message = f"{hole / NS_PER_S:.3f} s between {handover.before} and {handover.to} are in no gap"
            findings.append(Finding("M", handover.object, message))
        if not ours or not later:
            continue
        end_ns, start_ns = max(ours), min(times.of(record) for record in later)
        if start_ns < end_ns - LAG_NS:
            message = f"{handover.to} goes on {(end_ns - start_ns) / NS_PER_S:.3f} s before {handover.before} ends"
            findings.append(Finding("M", handover.object, message))
        left_out = [record for record in new if end_ns + LAG_NS < times.of(record) and not published.has(record)]
        lost = [record for record in left_out if not in_gap(archive.gaps, record.recv_ns, "")]
        if lost:
            message = f"{len(lost)} frames of {handover.to} after the end of {handover.before} were left out"
            findings.append(Finding("M", handover.object, message))
    return findings


def _old_one(handover: Handover, old: Sequence[Record], published: Published) -> Iterable[str]:
    """What is wrong with the connection that a takeover ends."""
    if not handover.before:
        return
    if published.only_stood_by(handover.before):
        yield f"{handover.before} only stood by: it is not the one that published"
    if not old:
        yield f"no frame of {handover.before} is there, which published until then"
    elif handover.ended_n is not None and old[-1].n < handover.ended_n:
        yield f"{handover.before} ends with frame {old[-1].n}, it captured {handover.ended_n}"


def _hole(archive: Archive, published: Published, handover: Handover) -> int | None:
    """How long no connection was there between the two of a takeover, without a gap that says so."""
    old = [record.recv_ns for record in archive.records.get(handover.before, []) if published.has(record)]
    new = [record.recv_ns for record in archive.records.get(handover.to, []) if published.has(record)]
    if not old or not new:
        return None
    reached, begins = max(old), min(new)
    silence = max(_silence([at for at in old if at >= reached - AROUND_NS]),
                  _silence([at for at in new if at <= begins + AROUND_NS]), TRANSIT_NS)  # fmt: skip
    there = [(gap.from_ns, gap.to_ns) for gap in archive.gaps if gap.sid is None and gap.tickers is None]
    for name in {each.to for each in archive.handovers if each.first_n is None}:
        times = [record.recv_ns for record in archive.records.get(name, [])]
        if times:
            there.append((min(times), max(times)))
    longest = 0
    for start, end in [*sorted(there), (begins, begins)]:
        longest = max(longest, min(start, begins) - reached)
        reached = max(reached, end)
    return longest if longest > silence else None


def _silence(times: Sequence[int]) -> int:
    """The longest pause between two of these times."""
    ordered = sorted(times)
    return max((later - at for at, later in pairwise(ordered)), default=0)
