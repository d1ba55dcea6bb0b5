"""Write down which check ran for which day, and how it ended; a database that is away never stops the check."""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ssmd.cli.options import Chosen, actor
from ssmd.cli.output import talk
from ssmd.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, EXIT_FINDINGS, Busy, SsmdError, Unavailable

if TYPE_CHECKING:
    from ssmd.registry.checks import CheckName, CheckRuns, CheckState
    from ssmd.registry.environments import Trigger

TRIGGER, TRIGGERED_BY = "SSMD_TRIGGER", "SSMD_TRIGGERED_BY"
"""Environment variables in which a scheduler says that it called, and from where."""
LIMIT_S = 8.0
"""Seconds after which a database that says nothing is called away."""
EXIT_INTERRUPTED = 130

T = TypeVar("T")


class Check:
    """One run of a check, as its command tells it."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.findings = 0
        self.summary = ""
        self.detail: dict[str, Any] | None = None
        self.refused = False
        """The request was wrong (exit code 2), and nothing was looked at."""
        self.busy = False
        """Another job had the day, and nothing was looked at."""
        self._not_run = False

    def end(
        self,
        exit_code: int,
        *,
        findings: int = 0,
        summary: str = "",
        detail: Mapping[str, Any] | None = None,
        not_run: bool = False,
    ) -> None:
        """How it ended: the exit code of the command, what was found, one sentence for people, counts and parts.

        `not_run`: it could not look at what it is for; that is no pass, whatever the exit code.
        """
        self.exit_code, self.findings, self.summary = exit_code, findings, summary
        self.detail = None if detail is None else dict(detail)
        self._not_run = not_run

    @property
    def state(self) -> "CheckState":
        """In the words of the registry. Findings are findings whether the command passes on (6) or refuses (3)."""
        if self._not_run:
            return "not_run"
        if self.exit_code == EXIT_DONE:
            return "passed"
        return "findings" if self.exit_code == EXIT_FINDINGS or self.findings else "failed"


@contextmanager
def checking(chosen: Chosen, name: "CheckName", feed: str, day: date | None = None) -> Iterator[Check]:
    """Record a run of check `name` for a UTC day (default: today), from its start to its end.

    An exception is recorded as a failure and passes. Nothing is recorded of a feed that the registry does not know, of
    a person's request that is refused for what was asked (they see it, and the checks of the day stand as they stood),
    of a day that was busy, whoever asked (that says nothing of the day; `ssmd quality ran` finds the check that never
    ran), or where the environment has no database. While the database is away it is said on stderr; what ended after it
    came back is recorded then.
    """
    check = Check()
    if chosen.environment.spec.database_url is None:
        yield check
        return
    book = _Book(chosen, name, feed, day or datetime.now(UTC).date())
    book.begin()
    try:
        yield check
        if check.exit_code is None:
            check.end(EXIT_BUG, summary="ended without saying how")
    except BaseException as error:
        cause = _cause(error)
        code, sentence = _failure(cause)
        check.end(code, summary=sentence)
        check.refused, check.busy = code == EXIT_CONFIG, isinstance(cause, Busy)
        raise
    finally:
        book.finish(check)


def triggered() -> "tuple[Trigger, str]":
    """What started this command, and who: as the scheduler says it in the environment, else a person's shell."""
    from ssmd.registry.environments import Trigger

    said = os.environ.get(TRIGGER, "")
    trigger: Trigger = next((known for known in get_args(Trigger) if known == said), "manual")
    return trigger, os.environ.get(TRIGGERED_BY) or actor()


def _cause(error: BaseException) -> BaseException:
    """The one of a group that decides."""
    while isinstance(error, ExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, SsmdError)), error.exceptions[0])
    return error


def _failure(error: BaseException) -> tuple[int, str]:
    """Exit code and one sentence."""
    if isinstance(error, SsmdError):
        return error.exit_code, " ".join(error.message.split())
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, "interrupted"
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else EXIT_FAILED
        return code, f"left with exit code {code}"
    return EXIT_BUG, " ".join(f"{type(error).__name__}: {error}".split())


class _Book:
    """The rows of one run."""

    def __init__(self, chosen: Chosen, name: "CheckName", feed: str, day: date) -> None:
        self._chosen = chosen
        self._name: CheckName = name
        self._feed = feed
        self._day = day
        self._started = datetime.now(UTC)
        self._run: int | None = None
        self._trouble = ""
        self._unknown = False

    def begin(self) -> None:
        """The row of its start."""
        self._start(None)
        if self._trouble:
            talk(f"the check {self._name} of {self._day} is not noted yet: {self._trouble}")

    def finish(self, check: Check) -> None:
        """The row of its end; the whole row when its start could not be written."""
        if self._unknown:
            return
        if check.busy or (check.refused and triggered()[0] == "manual"):
            self._withdraw()
            return
        begun, self._trouble = self._run is not None, ""
        if not begun:
            self._start(self._started)
        if (run := self._run) is not None:
            code = EXIT_BUG if check.exit_code is None else check.exit_code
            self._write(
                lambda runs: runs.finish(
                    run, check.state, exit_code=code,
                    findings=check.findings, summary=check.summary, detail=check.detail,
                )
            )  # fmt: skip
        if begun and self._trouble:
            talk(f"how the check {self._name} of {self._day} ended is not noted: {self._trouble}")

    def _withdraw(self) -> None:
        """No row of what never was a run."""
        if (run := self._run) is not None:
            self._write(lambda runs: runs.withdraw(run))

    def _start(self, at: datetime | None) -> None:
        """`at` None: now, by the clock of the database."""
        trigger, by = triggered()
        self._run = self._write(
            lambda runs: runs.start(self._feed, self._name, self._day, trigger=trigger, by=by, started_at=at)
        )

    def _write(self, work: "Callable[[CheckRuns], T]") -> T | None:
        from ssmd.cli.opening import database_of
        from ssmd.registry.checks import CheckRuns
        from ssmd.registry.interface import NotKnown

        def ask() -> T:
            with database_of(self._chosen) as database:
                return work(CheckRuns(database))

        try:
            return in_time(ask)
        except NotKnown:
            self._unknown = True  # the command itself says so
        except SsmdError as error:
            self._trouble = error.message
        return None


def in_time(function: Callable[[], T]) -> T:
    """The answer of a blocking call; Unavailable when its time is over, and nobody waits for it any more."""
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((function(), None))
        except Exception as error:  # noqa: BLE001 handed to whoever waits
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=LIMIT_S)
    except queue.Empty:
        raise Unavailable(f"the database has not answered within {LIMIT_S:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]
