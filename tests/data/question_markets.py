"""A small security master for questions in words: markets of many kinds around Sunday 2026-11-22T18:00:00Z."""

from datetime import UTC, datetime
from pathlib import Path

from ssmd.registry.interface import Market

NOW = datetime(2026, 11, 22, 18, tzinfo=UTC)

_ROWS = Path(__file__).with_suffix(".txt")


def markets() -> list[Market]:
    """All of them."""
    found = []
    for line in _ROWS.read_text().splitlines():
        ticker, series, category, title, status, opened, closes, result, settled = line.split("|")
        found.append(
            Market(
                ticker=ticker, event_ticker=ticker.rpartition("-")[0], title=title, status=status,
                open_time=f"{opened}:00Z", close_time=f"{closes}:00Z", result=result, raw={}, series_ticker=series,
                category=category, settled_at=f"{settled}:00Z" if settled else None,
            )
        )  # fmt: skip
    return found
