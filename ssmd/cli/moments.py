"""Points in time on the command line: a day, or a moment of it."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from cyclopts import Parameter

from ssmd.errors import ConfigError

AsOf = Annotated[
    str | None, Parameter(name="--as-of", help="As it was then: a day (UTC, its end) or a time like 2026-11-22T18:00Z.")
]
KnownAt = Annotated[
    str | None, Parameter(name="--known-at", help="As ssmd knew it then: a day (UTC, its end) or a time.")
]


def moment(option: str, text: str | None, now: datetime) -> datetime:
    """The time that `text` means: `now` when it is None, the end of the day when it is a date (today: `now`).

    A time without zone is UTC. ConfigError when it is neither; `option` names it there.
    """
    if text is None:
        return now
    try:
        if len(text) == len("2026-11-22"):
            end = datetime.combine(date.fromisoformat(text), time.min, UTC) + timedelta(days=1, microseconds=-1)
            return min(end, now) if end.date() == now.date() else end
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        message = f"{option} {text[:40]!r} is no day and no time"
        raise ConfigError(message, "Write 2026-11-22, or 2026-11-22T18:00:00Z.") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
