"""The recorded handovers of a day against the frames that are there."""

from collections.abc import Mapping
from datetime import date

from ssmd.archive import layout
from ssmd.archive.handover import Handover, read_handovers
from ssmd.errors import DataError
from ssmd.middleware.storage.interface import Storage
from ssmd.quality.findings import Findings
from ssmd.quality.recount import Numbers


async def verify_handovers(
    storage: Storage, bucket: str, feed: str, day: date, numbers: Mapping[str, Numbers], findings: Findings
) -> int:
    """Findings about a day's handovers, whose frames are `numbers`; how many takeovers there are."""
    try:
        found = await read_handovers(storage, bucket, feed, day)
    except DataError as error:
        findings.add("handover", layout.handovers_prefix(feed, day), error.message)
        return 0
    takeovers = 0
    taken: set[str] = set()
    for its in sorted(found, key=lambda record: (record.at_ns, record.connection)):
        handover = found[its]
        if handover.first_n is None:
            continue
        takeovers += 1
        for problem in _problems(handover, numbers):
            findings.add("handover", its.key, problem)
        if handover.to in taken:
            findings.add("handover", its.key, f"{handover.to} takes over twice")
        taken.add(handover.to)
        findings.notes.append(
            f"{handover.to} took over from {handover.from_ or 'nobody'} with frame {handover.first_n}"
        )
    return takeovers


def _problems(handover: Handover, numbers: Mapping[str, Numbers]) -> list[str]:
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
    return problems
