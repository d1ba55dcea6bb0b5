"""Write starts and stops into the deployment log; a database that is away never keeps a service from starting."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, TypeVar

from ssmd.cli.checking import in_time, triggered
from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen
from ssmd.cli.output import show_rows
from ssmd.errors import EXIT_DONE, SsmdError

if TYPE_CHECKING:
    from ssmd.registry.operations import Action, Operation, OperationLog

T = TypeVar("T")

_COLUMNS = {
    "started_at": "STARTED", "action": "ACTION", "service": "SERVICE", "day": "DAY", "status": "STATUS",
    "completed_at": "ENDED", "trigger": "TRIGGER", "triggered_by": "BY", "error": "ERROR",
}  # fmt: skip


class Line:
    """The line of one operation; `problem` says why it is not whole in the log, "" when it is."""

    def __init__(self, chosen: Chosen, action: "Action", service: str | None, day: date) -> None:
        self.problem = ""
        self._chosen = chosen
        self._action: Action = action
        self._service = service
        self._day = day
        self._failure: str | None = None
        self._began = datetime.now(UTC)
        self._number: int | None = None

    def begin(self) -> None:
        """The operation begins."""
        self._number = self._write(self._insert)

    def fail(self, error: str) -> None:
        """It fails, without an exception."""
        self._failure = error

    def end(self, error: str | None) -> None:
        """It is done, or failed. A line that could not be begun is written now, as of its beginning."""
        self.problem = ""
        error = error or self._failure
        if self._number is None:
            self._number = self._write(lambda log: self._insert(log, self._began))
        if (number := self._number) is not None:
            self._write(lambda log: log.finish(number, error))

    def _insert(self, log: "OperationLog", began: datetime | None = None) -> int:
        from ssmd.local.process_name import own_name

        abort_dead(log)
        trigger, by = triggered()
        return log.start(
            self._action, self._service, self._day, trigger=trigger, by=by, process=own_name(), started_at=began
        )

    def _write(self, work: "Callable[[OperationLog], T]") -> T | None:
        from ssmd.registry.operations import OperationLog

        def ask() -> T:
            with database_of(self._chosen) as database:
                return work(OperationLog(database, self._chosen.environment.name))

        try:
            return in_time(ask)
        except SsmdError as error:
            self.problem = " ".join(error.message.split())
        return None


@contextmanager
def logged(chosen: Chosen, action: "Action", service: str | None, day: date) -> Iterator[Line]:
    """A line in the deployment log from the start to the end of what is done inside; an error makes it `failed`.

    An environment without a database has no log.
    """
    line = Line(chosen, action, service, day)
    if chosen.environment.spec.database_url is None:
        yield line
        return
    line.begin()
    try:
        yield line
    except BaseException as error:
        line.end(error.message if isinstance(error, SsmdError) else f"{type(error).__name__}: {error}".strip(": "))
        raise
    line.end(None)


def abort_dead(log: "OperationLog") -> None:
    """Note which operations are over without having told their end: their process is gone.

    Where nobody here can tell, a later operation of the service that has completed says so: one works at a time.
    """
    from ssmd.local.process_name import has_ended

    for one in log.unended():
        ended = has_ended(one.process)
        if ended:
            log.abort(one.id)
        elif ended is None and one.overtaken_at is not None:
            log.abort(one.id, one.overtaken_at)


def trigger_of(one: "Operation") -> str:
    """`first_start`: the run with which `ssmd up` begins a new Airflow; that is asked for as a person would."""
    from ssmd.local.airflow_start import FIRST_RUN

    scheduler, _, run = (one.triggered_by or "").partition("/")
    first = scheduler.startswith("airflow:") and run.partition("/")[0] == FIRST_RUN
    return FIRST_RUN if first else one.trigger


def show_history(chosen: Chosen, limit: int, *, json: bool) -> int:
    """The lines of the log, the latest first."""
    import msgspec

    from ssmd.registry.operations import OperationLog

    with database_of(chosen) as database:
        log = OperationLog(database, chosen.environment.name)
        abort_dead(log)
        lines = log.latest(limit)
    rows = [msgspec.to_builtins(line) | {"trigger": trigger_of(line)} for line in lines]
    if not json:
        for row in rows:
            row["service"] = row["service"] or "whole day"
            if row["ended_by"]:
                row["completed_at"] = f"before {row['ended_by']}"
    show_rows(rows, _COLUMNS, as_json=json, empty="nothing was started or stopped here yet")
    return EXIT_DONE
