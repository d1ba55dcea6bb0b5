"""A quality run: each suite over its batches of a day, what came of it, and what it means for the day's record.

A suite whose batches are all absent did not run, and says why. An expectation whose batch is absent is `not_run`; one
whose batch is damaged, or which raises, is `error`. Neither is ever a pass.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import date

import msgspec
import structlog

from ssmd.clock import iso, now_ns
from ssmd.errors import DataError
from ssmd.quality.batches import Batches, Day, NotThere, Sql
from ssmd.quality.judge import Judge, Judged, document_of
from ssmd.quality.linking import Linker
from ssmd.quality.outcome import ExpectationOutcome, QualityRun, State, SuiteOutcome
from ssmd.quality.suites import Expectation, Suite
from ssmd.registry.assessment import all_rows, assess, facts_of
from ssmd.registry.interface import Issue, Registry
from ssmd.registry.values import QUALITY

log = structlog.get_logger(component="quality")

Progress = Callable[[str], None]


async def run_suites(
    day: Day, suites: Sequence[Suite], judge: Judge, progress: Progress = lambda _title: None
) -> QualityRun:
    """Judge a day. Raises StorageUnavailable and RegistryUnavailable; everything else is in the outcomes."""
    batches, started, outcomes = Batches(day), iso(now_ns()), []
    for suite in suites:
        progress(suite.title)
        outcome = await _run_suite(batches, suite, judge)
        log.info(
            "suite", suite=suite.name, ran=outcome.ran, colour=outcome.colour, seconds=round(outcome.duration_s, 2)
        )
        outcomes.append(outcome)
    return QualityRun(feed=day.feed, day=day.day, started=started, finished=iso(now_ns()), suites=outcomes)


async def _run_suite(batches: Batches, suite: Suite, judge: Judge) -> SuiteOutcome:
    begun, judged, why = time.monotonic(), list[Judged](), list[str]()
    total = 0
    for name in suite.batches:
        expectations = suite.of(name)
        try:
            batch = await batches.batch(name)
            if isinstance(batch, Sql):
                found = await asyncio.to_thread(judge.sql, expectations, batch.url, batch.query)
                rows = max((its.outcome.rows for its in found), default=0)
            else:
                found, rows = await asyncio.to_thread(judge.frames, expectations, batch)
        except NotThere as absent:
            why.append(str(absent))
            found, rows = [_unjudged(asked, "not_run", str(absent)) for asked in expectations], 0
        except DataError as error:
            message = " ".join(error.message.split())
            found, rows = [_unjudged(asked, "error", message) for asked in expectations], 0
        total += rows
        judged += await _linked(batches, name, found)
    seconds = time.monotonic() - begun
    if all(its.outcome.state == "not_run" for its in judged):
        because = "; ".join(dict.fromkeys(why)) or "there was nothing to judge"
        return SuiteOutcome(suite=suite.name, title=suite.title, ran=False, why_not=because, duration_s=seconds)
    return SuiteOutcome(
        suite=suite.name,
        title=suite.title,
        ran=True,
        rows=total,
        duration_s=seconds,
        outcomes=[its.outcome for its in judged],
        document=document_of(suite.name, judge.version, judged),
    )


def _unjudged(asked: Expectation, state: State, message: str) -> Judged:
    outcome = ExpectationOutcome(
        type=asked.type, meaning=asked.meaning, severity=asked.severity, state=state, kwargs=asked.kwargs,
        column=asked.column, message=message,
    )  # fmt: skip
    return Judged(outcome, {}, [])


async def _linked(batches: Batches, name: str, judged: list[Judged]) -> list[Judged]:
    """The samples of what failed, with their evidence."""
    if not any(its.outcome.samples for its in judged):
        return judged
    linker = Linker((await batches.raw()).manifests, await batches.gaps())
    for its in judged:
        if its.outcome.samples:
            samples = [linker.sample(name, row) for row in its.rows]
            its.outcome = msgspec.structs.replace(its.outcome, samples=samples)
    return judged


# -- the record of the day ---------------------------------------------------------------------------------------------


def issues_of(run: QualityRun, suites: Sequence[Suite]) -> list[Issue]:
    """What failed, as issues: `detail` names suite and expectation, the count is of the rows that fail, or of the
    records of the archive that they stand for.

    An expectation about a whole table, or one that raised, fails for every row of its suite.
    """
    by_name = {suite.name: suite for suite in suites}
    found = []
    for outcome in run.suites:
        for its, asked in zip(outcome.outcomes, by_name[outcome.suite].in_order, strict=outcome.ran):
            if its.state not in ("failed", "error"):
                continue
            severity = {"critical": "error"}.get(its.severity, its.severity)
            count = its.records or its.unexpected or max(1, its.rows or outcome.rows)
            sample = its.message or (str(its.samples[0].values) if its.samples else its.observed)
            detail = f"{outcome.suite}: {_short(its)}"
            issue_type = "internal_error" if its.state == "error" else asked.issue
            found.append(Issue(run.feed, run.day, QUALITY, issue_type, severity, count, sample, detail=detail))
    return found


def _short(its: ExpectationOutcome) -> str:
    words = its.type.removeprefix("expect_").removeprefix("column_").removeprefix("values_to_").removeprefix("table_")
    return f"{its.column} {words}".strip()


def record(run: QualityRun, suites: Sequence[Suite], registry: Registry, today: date) -> QualityRun:
    """Write what failed in the place of what an earlier run of the day found, and the day's new score; the run with it.

    With some suites only, the issues of the others stay. The score of a day that is not over is told, not stored.
    """
    feed, day = run.feed, run.day
    names = {suite.suite for suite in run.suites}
    others = [
        issue
        for issue in registry.issues(feed, day)
        if issue.data_type == QUALITY and issue.detail.partition(":")[0] not in names
    ]
    registry.replace_issues(feed, day, QUALITY, [*others, *issues_of(run, suites)])
    facts = facts_of(registry, feed, day, today, all_rows(registry, feed))
    scores = {row.data_type: assess(facts, row.data_type) for row in facts.rows}
    if day < today:
        for data_type, score in scores.items():
            registry.set_day_score(feed, day, data_type, score.value if score else None)
    values = [score.value for score in scores.values() if score is not None]
    return msgspec.structs.replace(run, score=min(values, default=None))
