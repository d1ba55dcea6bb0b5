"""`ssmd quality run`: what a good day looks like, asked of one day; the answers go to the record and to the reports."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from ssmd.cli.checking import Check, checking
from ssmd.cli.day_lock import day_lock
from ssmd.cli.opening import Opener, database_of
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, counted, mark_line, show_json, talk
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FINDINGS, ConfigError, TransientError

if TYPE_CHECKING:
    from datetime import datetime

    from ssmd.quality.batches import Day
    from ssmd.quality.outcome import ExpectationOutcome, QualityRun, SuiteOutcome
    from ssmd.quality.suites import Suite
    from ssmd.quality.volume import Lister

SYNCS = 100
"""So many of the last syncs are looked at for one that succeeded."""

SuiteNames = Annotated[
    list[str] | None,
    Parameter(name="--suite", negative=(), help="Only this suite (several times: these); default: all."),
]
Rest = Annotated[str | None, Parameter(help="REST address of the exchange; default: the environment's.")]


def run(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    date: date,
    suite: SuiteNames = None,
    rest: Rest = None,
    json: Json = False,
) -> int:
    """Ask every expectation of a day (UTC) and make its report. Exit code 6 when something is not as it should be.

    With --suite the report keeps what the other suites last said, and nothing counts as the day's check. Needs the
    extra `quality`. What could not be asked is said, and never passes: exit code 2 when nothing ran at all.
    """
    from ssmd.quality.judge import Judge, require

    require("great_expectations", "pyarrow")
    from ssmd.quality.suites import choose_suites, load_suites

    suites = choose_suites(load_suites(), suite or [])
    chosen = choose(env)
    name, today = chosen.feed(feed), day_of(now_ns())
    if date > today:
        raise ConfigError(f"{date} is in the future", "Give a day that has begun (UTC).")
    recorded = nullcontext(Check()) if suite else checking(chosen, "quality", name, date)
    with recorded as check, day_lock(chosen, name, date, "quality", shared=True):
        ended, pages = asyncio.run(_run(chosen, name, date, suites, rest, Judge))
        code = _exit_code(ended)
        ran = any(its.ran for its in ended.suites)
        check.end(code, findings=ended.findings, summary=_verdict(ended), detail=_detail(ended), not_run=not ran)
    if json:
        show_json(_answer(ended, pages))
    else:
        _show(ended, _page_to_open(chosen, pages[0]) if pages else "")
    return code


def _page_to_open(chosen: Chosen, page: str) -> str:
    """Where the gateway of the environment shows a page of the bucket of reports; in a cluster only its path there."""
    gateway = chosen.environment.spec.gateway
    if chosen.environment.spec.runtime.type == "kubernetes":
        return f"/quality/{quote(page)}"
    host = "127.0.0.1" if gateway.host in ("0.0.0.0", "::") else gateway.host  # noqa: S104 compared only
    place = f"[{host}]" if ":" in host else host
    return f"http{'s' if gateway.tls else ''}://{place}:{gateway.port}/quality/{quote(page)}"


async def _run(
    chosen: Chosen, feed: str, day: date, suites: "list[Suite]", rest: str | None, new_judge: "Callable[[], Any]"
) -> "tuple[QualityRun, list[str]]":
    from ssmd.quality.reports import completed, publish
    from ssmd.quality.runner import record, run_suites
    from ssmd.quality.suites import load_suites

    buckets, today = chosen.environment.spec.middleware.storage.buckets, day_of(now_ns())
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        registry, storage = opener.registry(), opener.storage()
        await asyncio.to_thread(registry.ping)
        await require_day(chosen, registry, storage, feed, day)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmd-quality-")))
        looked_at = await _day(chosen, opener, feed, day, work, rest)
        progress = stack.enter_context(_progress(len(suites)))
        ended = await run_suites(looked_at, suites, await asyncio.to_thread(new_judge), progress)
        ended = await asyncio.to_thread(record, ended, suites, registry, today)
        titles = {suite.name: suite.title for suite in load_suites()}
        whole = await completed(ended, titles, storage, buckets.reports)
        return ended, await publish(whole, storage, buckets.reports)


async def _day(chosen: Chosen, opener: Opener, feed: str, day: date, work: Path, rest: str | None) -> "Day":
    """The day with everything that is asked about it."""
    from ssmd.cli.market_sync import rest_address
    from ssmd.feeds.catalogue import open_feed
    from ssmd.quality.batches import Day

    spec, parts = chosen.environment.spec, open_feed(feed, day)
    buckets, url = spec.middleware.storage.buckets, spec.database_url
    why_not, address = "", ""
    try:
        address = await rest_address(opener, feed, rest)
    except (ConfigError, TransientError) as error:
        if rest is not None:
            raise
        why_not = f"the exchange's address is not known: {error.message}"

    @asynccontextmanager
    async def lister() -> "AsyncIterator[Lister]":
        async with parts.new_rest(address, environment=chosen.environment.name) as client:
            yield client

    return Day(
        feed=feed,
        day=day,
        today=day_of(now_ns()),
        storage=opener.storage(),
        raw_bucket=buckets.raw,
        normalized_bucket=buckets.normalized,
        parts=parts,
        work=work,
        registry=opener.registry(),
        database_url=None if url is None else lambda: opener.secrets.text(url),
        lister=lister if address else None,
        no_lister=why_not,
        selects=spec.symbols.selects,
        synced=lambda: None if url is None else _synced(chosen, feed),
    )


def _synced(chosen: Chosen, feed: str) -> "datetime | None":
    """When the last sync of the security master that succeeded had begun."""
    from ssmd.registry.security_master import SecurityMaster

    with database_of(chosen) as database:
        book = SecurityMaster(database).syncs(feed, SYNCS)
    return next((row.started_at for row in book if row.status == "completed"), None)


@contextmanager
def _progress(suites: int) -> Iterator[Callable[[str], None]]:
    """Which suite is judged, on stderr: a bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _title: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("Great Expectations", total=suites + 1)

        def show(title: str) -> None:
            bars.update(task, description=title, advance=1)

        yield show


def _exit_code(ended: "QualityRun") -> int:
    if not any(suite.ran for suite in ended.suites):
        return EXIT_CONFIG
    return EXIT_FINDINGS if ended.findings else EXIT_DONE


def _verdict(ended: "QualityRun") -> str:
    ran = sum(suite.ran for suite in ended.suites)
    if not ran:
        return f"nothing could be asked: {ended.suites[0].why_not}"
    found = f"{counted(ended.findings, 'expectation')} not met" if ended.findings else "everything as expected"
    absent = [suite.suite for suite in ended.suites if not suite.ran]
    return f"{found} in {counted(ran, 'suite')}" + (f"; did not run: {', '.join(absent)}" if absent else "")


def _detail(ended: "QualityRun") -> dict[str, Any]:
    return {
        "score": ended.score,
        "suites": {
            suite.suite: {"ran": suite.ran, "colour": suite.colour, "why_not": suite.why_not, **_states(suite)}
            for suite in ended.suites
        },
    }


def _states(suite: "SuiteOutcome") -> dict[str, int]:
    return {
        state: sum(outcome.state == state for outcome in suite.outcomes)
        for state in ("passed", "failed", "error", "not_run")
    }


def _answer(ended: "QualityRun", pages: list[str]) -> dict[str, Any]:
    """The run without Great Expectations' own documents; they are in the report."""
    answer: dict[str, Any] = msgspec.to_builtins(ended)
    for suite, its in zip(answer["suites"], ended.suites, strict=True):
        del suite["document"]
        suite["colour"] = its.colour
    return {**answer, "findings": ended.findings, "report": pages[0] if pages else ""}


def _show(ended: "QualityRun", page: str) -> None:
    for suite in ended.suites:
        if not suite.ran:
            mark_line(WAITING, suite.suite, f"did not run: {suite.why_not}")
            continue
        states = _states(suite)
        mark = BAD if suite.colour == "red" else WAITING if suite.colour != "green" else GOOD
        passed = f"{states['passed']} of {len(suite.outcomes)} expectations met"
        mark_line(mark, suite.suite, f"{passed}, {suite.rows:,} rows, {suite.duration_s:.1f} s")
        for outcome in suite.outcomes:
            _show_outcome(outcome)
    score = "-" if ended.score is None else f"{ended.score:.2f}"
    mark_line(BAD if ended.findings else GOOD, str(ended.day), f"{_verdict(ended)}; quality {score}")
    if page:
        talk(f"Report: {page}")


def _show_outcome(outcome: "ExpectationOutcome") -> None:
    """A line for what was not met, with the first row that shows it; of what was met only what is to be known of it."""
    about = f"{outcome.column}: " if outcome.column else ""
    if outcome.state == "passed":
        if outcome.message:
            mark_line(WAITING, "  note", f"{about}{outcome.message}")
        return
    if outcome.state == "not_run":
        mark_line(WAITING, "  not asked", f"{about}{outcome.meaning} ({outcome.message})")
        return
    found = outcome.message or outcome.observed
    mark = BAD if outcome.severity == "critical" or outcome.state == "error" else WAITING
    mark_line(mark, f"  {outcome.severity}", f"{about}{outcome.meaning} Found: {found}")
    if outcome.samples:
        sample = outcome.samples[0]
        where = f"  in {sample.raw_key}" if sample.raw_key else ""
        mark_line(WAITING, "  e.g.", ", ".join(f"{name}={value}" for name, value in sample.values.items()) + where)
