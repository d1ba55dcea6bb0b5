"""What people write as a time, and what it means."""

from datetime import UTC, datetime

import pytest

from ssmd.cli.moments import moment
from ssmd.errors import ConfigError

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, NOW),
        ("2026-11-22", NOW),
        ("2026-11-21", datetime(2026, 11, 21, 23, 59, 59, 999_999, UTC)),
        ("2026-11-23", datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC)),
        ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T12:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T12:00:00.25+02:00", datetime(2026, 11, 22, 10, 0, 0, 250_000, UTC)),
    ],
)
def test_a_day_means_its_end_and_a_time_means_itself(text: str | None, meant: datetime) -> None:
    assert moment("--as-of", text, NOW) == meant


@pytest.mark.parametrize("text", ["", " ", "yesterday", "2026-13-01", "2026-11-22; DROP", "x" * 10_000])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        moment("--as-of", text, NOW)
    assert "--as-of" in caught.value.message
    assert len(caught.value.message) < 100
