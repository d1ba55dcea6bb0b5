"""What a verification found, and what it looked at."""

from collections import Counter
from datetime import date

import msgspec

RAN = "ran"
"""What `checks` says of a check that ran on everything; on a part: `ran on a sample: …`."""

CAUSES = ("frame", "sha256", "count", "no_object", "no_manifest", "bad_manifest", "line")
"""Rules about an object itself, told first; most others may only follow from them."""

MAX_PER_OBJECT = 5
"""More findings of one rule about one object say nothing new; they are counted."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """Something that is not as it must be: which rule, about which object (a key, or what names a row)."""

    rule: str
    object: str
    message: str


class VerifyReport(msgspec.Struct, frozen=True):
    """The result of a verification.

    `checks` says for each check `ran`, or why it did not run: a check that did not run proves nothing. `notes` are
    for information (recorded gaps, a day that is not compacted). `suppressed` counts findings that repeat others.
    `sampled` says of which part the messages were read, "" when all were. `exchange_away`: it was to be asked, and may
    answer later.
    """

    feed: str
    day: date
    findings: list[Finding]
    notes: list[str]
    checks: dict[str, str]
    counts: dict[str, int]
    suppressed: int
    sampled: str = ""
    exchange_away: bool = False

    @property
    def clean(self) -> bool:
        """Nothing was found."""
        return not self.findings


class Findings:
    """Collects while a verification runs."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self.found: list[Finding] = []
        self.notes: list[str] = []
        self.checks: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.sampled = ""

    @property
    def ran(self) -> str:
        """What a check says that read the sample, or everything."""
        return f"{RAN} on a sample: {self.sampled}" if self.sampled else RAN

    def add(self, rule: str, what: str, message: str) -> None:
        """One finding."""
        self._seen[rule, what] += 1
        if self._seen[rule, what] <= MAX_PER_OBJECT:
            self.found.append(Finding(rule, what, message))

    def report(self, feed: str, day: date, *, exchange_away: bool = False) -> VerifyReport:
        """Everything collected."""
        suppressed = self._seen.total() - len(self.found)
        found = sorted(self.found, key=_rank)
        return VerifyReport(
            feed, day, found, self.notes, self.checks, dict(sorted(self.counts.items())), suppressed,
            self.sampled, exchange_away,
        )  # fmt: skip


def _rank(finding: Finding) -> tuple[int, Finding]:
    """Causes before what follows from them."""
    return CAUSES.index(finding.rule) if finding.rule in CAUSES else len(CAUSES), finding
