"""How the checks stand, asked every 15 s in a thread of its own: for `/metrics`, and for people on `/status`."""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any, get_args

import structlog

from ssmd.clock import NS_PER_S, day_of, now_ns
from ssmd.errors import SsmdError
from ssmd.registry.check_board import Board, read_board
from ssmd.registry.checks import RAN, WANTED, CheckName, CheckRun
from ssmd.registry.database import Database
from ssmd.telemetry import CHECK_GAUGES, AlertReading, CheckReading, ChecksReading

EVERY_S = 15.0
KNOWN_FOR_S = 3 * EVERY_S
"""What is older is no knowledge: a database that is silent says nothing, and neither do we."""
MOST_OPERATIONS = 30
OTHER = "other"
ALERTS_SHOWN = 10

log = structlog.get_logger()


class CheckWatch:
    """The last look at the database of a feed and environment; one that never answers holds up nobody but this."""

    def __init__(
        self, feed: str, environment: str, database: Database | None, clock: Callable[[], int] = now_ns
    ) -> None:
        self._feed = feed
        self._environment = environment
        self._database = database
        self._clock = clock
        self._stopped = threading.Event()
        self._seen: tuple[int, Board] | None = None
        self._error = ""

    def start(self) -> None:
        """Begin to look; nothing where the environment has no database."""
        if self._database is not None:
            CHECK_GAUGES.follow(self.reading)
            threading.Thread(target=self._follow, name="gateway-checks", daemon=True).start()

    def stop(self) -> None:
        """Look no more. A look that is under way may go on, and nobody waits for it."""
        self._stopped.set()
        CHECK_GAUGES.forget(self.reading)

    def look(self) -> None:
        """Look once."""
        if self._database is None:
            return
        try:
            board = read_board(self._database, self._feed, self._environment, day_of(self._clock()))
        except SsmdError as error:
            if error.message != self._error:
                log.warning("checks not known", feed=self._feed, error=error.message)
            self._error = error.message
            return
        self._error = ""
        self._seen = self._clock(), board

    @property
    def board(self) -> Board | None:
        """What is known now; None when the database has not answered lately."""
        seen = self._seen
        if seen is None or self._error or self._clock() - seen[0] > KNOWN_FOR_S * NS_PER_S:
            return None
        return seen[1]

    def reading(self) -> ChecksReading:
        """What `/metrics` says. Ages go on growing while the database is away; the rest is unknown, then."""
        seen, current = self._seen, self.board
        if seen is None:
            return ChecksReading(False, [], [], None, None)
        board, now = seen[1], datetime.fromtimestamp(self._clock() / NS_PER_S, UTC)
        names = [name for name in get_args(CheckName) if name in WANTED or board.last(name) is not None]
        checks = [_reading(board, name, now, known=current is not None) for name in names]
        if current is None:
            return ChecksReading(False, checks, [], None, None)
        return ChecksReading(True, checks, _alerts(board), board.status, board.score)

    def view(self, *, reasons: bool) -> dict[str, Any] | None:
        """What the page shows, None when it is not known, {} where no database is there to say it.

        What was said about a run or an alert only with `reasons`.
        """
        if self._database is None:
            return {}
        board = self.board
        if board is None:
            return None
        alerts = [alert for alert in board.alerts if alert.resolved_at is None]
        return {
            "day": board.day.isoformat(),
            "begun": board.begins is not None,
            "checks": [_shown(board, name, reasons=reasons) for name in WANTED],
            "alert_count": len(alerts),
            "alerts": [
                {
                    "operation": alert.operation,
                    "task": alert.task,
                    "day": alert.day.isoformat() if alert.day else "",
                    "state": alert.state,
                    "since": f"{alert.raised_at:%m-%d %H:%M}",
                    "summary": alert.summary if reasons else "",
                }
                for alert in alerts[:ALERTS_SHOWN]
            ],
        }

    def _follow(self) -> None:
        while not self._stopped.is_set():
            self.look()
            self._stopped.wait(EVERY_S)


def _reading(board: Board, name: str, now: datetime, *, known: bool) -> CheckReading:
    last, ran, reached = board.last(name), board.ran_last(name), board.day_reached(name)
    ended = None if reached is None else datetime.combine(reached + timedelta(days=1), time(), UTC)
    # What never ran is as old as the archive: the first day should have been looked at when it was over.
    never = now if board.begun is None else datetime.combine(board.begun, time(), UTC)
    # Before a day is over there is nothing to check: a new installation is neither well nor ill.
    judged = known and (name not in WANTED or board.begins is not None)
    return CheckReading(
        check=name,
        ok=(last is not None and last.state == "passed") if judged else None,
        findings=(last.findings if last is not None else 0) if judged else None,
        days_failing=board.days_failing(name) if known else None,
        age_s=max(0.0, (now - (ran or never)).total_seconds()),
        day_age_s=max(0.0, (now - (ended or never)).total_seconds()) if name in WANTED else None,
    )


def _alerts(board: Board) -> list[AlertReading]:
    """Open ones by operation and state; 0 for an operation that had some lately."""
    counts: Counter[tuple[str, str]] = Counter()
    names = list(dict.fromkeys(alert.operation for alert in board.alerts))
    named = set(names[:MOST_OPERATIONS])
    for alert in board.alerts:
        key = (alert.operation if alert.operation in named else OTHER, alert.state)
        counts[key] += alert.resolved_at is None
    return [AlertReading(operation, state, count) for (operation, state), count in sorted(counts.items())]


def _shown(board: Board, name: str, *, reasons: bool) -> dict[str, Any]:
    run: CheckRun | None = next((run for run in board.runs if run.check == name and run.day == board.day), None)
    if run is None:
        return {"name": name, "state": "did not run", "level": "bad", "at": "", "findings": 0, "note": ""}
    level = "ok" if run.state == "passed" else "warn" if run.state in RAN else "bad"
    return {
        "name": name, "state": run.state.replace("_", " "), "level": level, "findings": run.findings,
        "at": f"{run.completed_at:%m-%d %H:%M}" if run.completed_at else "", "note": run.summary if reasons else "",
    }  # fmt: skip
