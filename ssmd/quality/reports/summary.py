"""A run in a few numbers: what the pages of many days show of each, stored beside the run so that they stay cheap."""

from datetime import date
from typing import Literal, TypeAlias

import msgspec

from ssmd.quality.outcome import Colour, ExpectationOutcome, QualityRun, SuiteOutcome

Level: TypeAlias = Literal["passed", "warning", "failed", "info", "not_run"]
"""How an expectation is shown: what failed by its severity, and an error always as a failure."""

MARKS: dict[Colour, str] = {"green": "✓", "yellow": "!", "red": "✗", "grey": "–"}
WORDS: dict[Colour, str] = {"green": "passed", "yellow": "warnings", "red": "failed", "grey": "did not run"}
"""Each colour also has a sign and a word: nobody needs to see colours."""


class SuiteSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One suite: `asked` expectations, of which so many ended in each way; `errors` are among the failed."""

    suite: str
    title: str
    colour: Colour
    ran: bool
    why_not: str = ""
    rows: int = 0
    asked: int = 0
    passed: int = 0
    warnings: int = 0
    failed: int = 0
    errors: int = 0
    infos: int = 0
    not_run: int = 0


class DaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One day. `run_bytes` is the size of the stored run it was made from: another size means that it is outdated.

    `problem`: why nothing more can be told.
    """

    feed: str
    day: date
    started: str
    finished: str
    suites: list[SuiteSummary]
    findings: int
    run_bytes: int
    score: float | None = None
    problem: str = ""

    @property
    def colour(self) -> Colour:
        """The worst of its suites; a suite that did not run is worse than a warning."""
        colours = {suite.colour for suite in self.suites}
        for worst in ("red", "grey", "yellow"):
            if worst in colours:
                return worst
        return "green" if colours else "grey"

    @property
    def state(self) -> str:
        """In words."""
        if self.problem:
            return self.problem
        missing = sum(suite.colour == "grey" for suite in self.suites)
        if self.colour == "grey" and missing < len(self.suites):
            return "incomplete"
        silent = sum(suite.not_run for suite in self.suites)
        return f"passed, {silent:,} not run" if self.colour == "green" and silent else WORDS[self.colour]


def level_of(outcome: ExpectationOutcome) -> Level:
    """How an expectation is shown."""
    match outcome.state:
        case "passed" | "not_run":
            return outcome.state
        case "error":
            return "failed"
        case "failed":
            return "failed" if outcome.severity == "critical" else outcome.severity


def summarize(run: QualityRun, run_bytes: int) -> DaySummary:
    """The numbers of a run that is stored in `run_bytes` bytes."""
    return DaySummary(
        feed=run.feed, day=run.day, started=run.started, finished=run.finished, score=run.score,
        findings=run.findings, suites=[summarize_suite(suite) for suite in run.suites], run_bytes=run_bytes,
    )  # fmt: skip


def summarize_suite(suite: SuiteOutcome) -> SuiteSummary:
    """The numbers of one suite."""
    levels = [level_of(outcome) for outcome in suite.outcomes]
    return SuiteSummary(
        suite=suite.suite, title=suite.title, colour=suite.colour, ran=suite.ran, why_not=suite.why_not,
        rows=suite.rows, asked=len(levels), passed=levels.count("passed"), warnings=levels.count("warning"),
        failed=levels.count("failed"), infos=levels.count("info"), not_run=levels.count("not_run"),
        errors=sum(outcome.state == "error" for outcome in suite.outcomes),
    )  # fmt: skip


def unreadable(feed: str, day: date) -> DaySummary:
    """A day of which something is stored that cannot be read."""
    return DaySummary(
        feed=feed, day=day, started="", finished="", suites=[], findings=0, run_bytes=0, problem="cannot be read"
    )
