"""What a quality run found: per suite and expectation, with rows that show it; what did not run says so."""

from datetime import date
from typing import Any, Literal, TypeAlias

import msgspec

Severity: TypeAlias = Literal["critical", "warning", "info"]
"""`critical` fails the day, `warning` is for a person to look at, `info` never lowers anything."""

State: TypeAlias = Literal["passed", "failed", "error", "not_run"]
"""`error`: the expectation itself raised; `not_run`: there was nothing to ask, or nobody to ask. Neither is a pass."""

Colour: TypeAlias = Literal["green", "yellow", "red", "grey"]
"""How people see it: grey did not run, red has failed, yellow has warnings only."""

MAX_SAMPLES = 20
"""Failing rows kept of one expectation."""

NOTES = "notes"
"""The attribute of a batch's frame that says, by column, of which of its rows something is not asked, and why."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A row that fails: its columns as text, the raw object its frame lies in, and the gap that touches its time.

    `raw_key` and `gap_key` are keys in the raw bucket; "" where there is none, or it is not known.
    """

    values: dict[str, str]
    raw_key: str = ""
    gap_key: str = ""


class ExpectationOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation: `type` and `kwargs` as the suite says them, and what came of it.

    `meaning` is the sentence of the suite's author. `observed` and `message` are for people; `unexpected` of `rows`
    rows fail it (0 of 0 where rows are not what is looked at), and stand for `records` of the archive (0: one each).
    """

    type: str
    meaning: str
    severity: Severity
    state: State
    kwargs: dict[str, Any] = {}
    column: str = ""
    rows: int = 0
    unexpected: int = 0
    records: int = 0
    observed: str = ""
    message: str = ""
    samples: list[Sample] = []


class SuiteOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One suite. `ran` False: `why_not` says why, and there are no outcomes.

    `document` is Great Expectations' own validation result as JSON (`ExpectationSuiteValidationResult`), from which its
    Data Docs page is made; None when the suite did not run.
    """

    suite: str
    title: str
    ran: bool
    rows: int = 0
    why_not: str = ""
    duration_s: float = 0.0
    outcomes: list[ExpectationOutcome] = []
    document: dict[str, Any] | None = None

    @property
    def colour(self) -> Colour:
        """The worst of its expectations."""
        if not self.ran:
            return "grey"
        bad = [outcome for outcome in self.outcomes if outcome.state in ("failed", "error")]
        if any(outcome.state == "error" or outcome.severity == "critical" for outcome in bad):
            return "red"
        if any(outcome.severity == "warning" for outcome in bad):
            return "yellow"
        return "green" if any(outcome.state == "passed" for outcome in self.outcomes) else "grey"


class QualityRun(msgspec.Struct, frozen=True, kw_only=True):
    """All suites of a feed's day. Times are UTC, ISO 8601; `score` is the day's quality score, None when unknown."""

    feed: str
    day: date
    started: str
    finished: str
    suites: list[SuiteOutcome]
    score: float | None = None

    @property
    def findings(self) -> int:
        """Expectations that failed or could not be asked because they raised; those for information are left out."""
        return sum(
            outcome.state in ("failed", "error") and (outcome.severity != "info" or outcome.state == "error")
            for suite in self.suites
            for outcome in suite.outcomes
        )

    @property
    def ran(self) -> bool:
        """Did every suite run?"""
        return all(suite.ran for suite in self.suites)
