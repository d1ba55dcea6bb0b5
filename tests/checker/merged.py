"""Whose events are the day's while two connections overlap: what the handover records say, read independently."""

from collections.abc import Iterable, Sequence

from tests.checker.model import NS_PER_S, Archive, Finding, Gap, Handover, Record

LAG_NS = 2 * NS_PER_S
"""Two connections may lag behind each other for so long; longer, and the old one's end was not where it is said."""


class Published:
    """Which raw frames' events are part of the normalized archive."""

    def __init__(self, handovers: Iterable[Handover]) -> None:
        ordered = sorted(handovers, key=lambda each: each.at_ns)
        self._standing_by = {each.to for each in ordered if each.first_n is None}
        self._taking_over = {each.to: each for each in ordered if each.first_n is not None}
        self._ends = {each.before: each.last_n for each in ordered if each.first_n is not None}

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


def check_handovers(archive: Archive) -> list[Finding]:
    """M: one connection publishes at a time; where one ends the other goes on, or a gap says what is missing."""
    findings = []
    published = Published(archive.handovers)
    for handover in archive.handovers:
        if handover.first_n is None:
            continue
        new, old = archive.records.get(handover.to, []), archive.records.get(handover.before, [])
        later = [record for record in new if record.n >= handover.first_n]
        ours = [record.recv_ns for record in old if published.has(record)]
        if not new:
            findings.append(Finding("M", handover.object, f"{handover.to} has no frames"))
        if not ours or not later:
            continue
        end_ns, start_ns = max(ours), min(record.recv_ns for record in later)
        if start_ns < end_ns - LAG_NS:
            message = f"{handover.to} goes on {(end_ns - start_ns) / NS_PER_S:.3f} s before {handover.before} ends"
            findings.append(Finding("M", handover.object, message))
        left_out = [record for record in new if end_ns + LAG_NS < record.recv_ns and not published.has(record)]
        lost = [record for record in left_out if not in_gap(archive.gaps, record.recv_ns, "")]
        if lost:
            message = f"{len(lost)} frames of {handover.to} after the end of {handover.before} were left out"
            findings.append(Finding("M", handover.object, message))
    return findings
