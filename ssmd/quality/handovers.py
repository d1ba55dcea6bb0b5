"""The recorded handovers of a day against the frames that are there."""

from collections.abc import Mapping
from datetime import date

from ssmd.archive import layout
from ssmd.archive.handover import Handover, Part, read_handovers, read_parts
from ssmd.errors import DataError
from ssmd.middleware.storage.interface import Storage
from ssmd.quality.findings import Findings
from ssmd.quality.overlap import Frames, Overlap
from ssmd.quality.recount import Numbers
from ssmd.registry.values import day_bounds


async def verify_handovers(
    storage: Storage, bucket: str, feed: str, day: date, frames: Frames, findings: Findings, *, closed: bool
) -> Overlap | None:
    """Findings about a day's handovers; what to look at in its events, None where no connection stands by.

    Of a day that is not `closed`, frames that are not archived yet are a note.
    """
    try:
        parts = await read_parts(storage, bucket, feed, day)
        found = await read_handovers(storage, bucket, feed, day)
    except DataError as error:
        findings.add("handover", layout.handovers_prefix(feed, day), error.message)
        return None
    records = sorted(found.values(), key=lambda record: (record.at_ns, record.to))
    takeovers = [record for record in records if record.first_n is not None]
    taken: set[str] = set()
    for handover in takeovers:
        key = handover.object.key
        for problem in _problems(handover, frames.numbers, parts):
            findings.add("handover", key, problem)
        missing = _missing(handover, frames, day)
        if missing and closed:
            findings.add("handover", key, missing)
        elif missing:
            findings.notes.append(f"{missing}: the day is not over")
        if handover.to in taken:
            findings.add("handover", key, f"{handover.to} takes over twice")
        taken.add(handover.to)
        findings.notes.append(
            f"{handover.to} took over from {handover.from_ or 'nobody'} with frame {handover.first_n}"
        )
    findings.counts["handovers"] = len(takeovers)
    return Overlap(day, parts, takeovers, frames, closed=closed) if parts else None


def _problems(handover: Handover, numbers: Mapping[str, Numbers], parts: Mapping[str, Part]) -> list[str]:
    """What is wrong with a takeover; connections without a frame on the day cannot be judged by it."""
    problems = []
    first_n = handover.first_n or 0
    new, old = numbers.get(handover.to), numbers.get(handover.from_)
    if new is not None and first_n > new.last + 1:
        problems.append(f"begins with frame {first_n} of {handover.to}, whose last one is {new.last}")
    if any(last >= first_n for _, last in handover.also):
        problems.append(f"names frames of {handover.to} twice, from {first_n} on and before it")
    if old is not None and handover.last_n is not None and handover.last_n > old.last:
        problems.append(f"ends with frame {handover.last_n} of {handover.from_}, whose last one is {old.last}")
    if handover.from_ in parts and parts[handover.from_].first_n is None:
        problems.append(f"ends {handover.from_}, which only stood by: it is not the one that published")
    return problems


def _missing(handover: Handover, frames: Frames, day: date) -> str:
    """Which frames of the old connection are not in the archive, "" when none are known to be."""
    name, last = handover.from_, frames.last(handover.from_)
    if not name:
        return ""
    if last is None:
        start_ns = day_bounds(day)[0]
        if any(gap.connection == name and gap.from_ns < start_ns for gap in frames.gaps):
            return ""  # it was lost on an earlier day
        return f"no frame of {name}, which published until then, is in the archive"
    if handover.ended_n is not None and handover.ended_n > last:
        return f"frames {last + 1} to {handover.ended_n} of {name} are not in the archive: its connector has them"
    return ""
