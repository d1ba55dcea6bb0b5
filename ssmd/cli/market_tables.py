"""Changes of markets and the book of syncs as tables: every column where they fit, words in the last one where not."""

from collections.abc import Mapping
from typing import Any

from ssmd.cli.output import OnTerminal

Row = Mapping[str, Any]

HISTORY = {
    "changed_at": "CHANGED", "field": "FIELD", "old": "OLD", "new": "NEW", "known_from": "KNOWN_FROM",
    "known_to": "KNOWN_TO", "evidence": "EVIDENCE",
}  # fmt: skip
SYNCS = {
    "started_at": "STARTED", "kind": "KIND", "status": "STATUS", "series": "SERIES", "events": "EVENTS",
    "markets": "MARKETS", "open_markets": "OPEN", "inserted": "NEW", "changed": "CHANGED", "accepted": "ACCEPTED",
    "error": "ERROR",
}  # fmt: skip
_SHOWN = 80  # characters of a long value
_TIMES = ("changed_at", "known_from", "known_to", "started_at")


def _short(row: Row) -> dict[str, Any]:
    """Times without fractions of a second, long values cut."""
    return {key: _seconds(value) if key in _TIMES else _cut(value) for key, value in row.items()}


def _seconds(time: str | None) -> str | None:
    return f"{time.partition('.')[0]}Z" if time and "." in time else time


def _cut(value: Any) -> Any:
    return f"{value[:_SHOWN]}…" if isinstance(value, str) and len(value) > _SHOWN else value


def _change(row: Row) -> Row:
    short = _short(row)
    old, new = ("none" if short[key] is None else short[key] for key in ("old", "new"))
    said = [f"{short['field']}: {old} → {new}"]
    said += [f"by {short['evidence']}"] if short["evidence"] else []
    said += [f"known until {short['known_to']}"] if short["known_to"] else []
    return {**short, "said": ", ".join(said)}


def _sync(row: Row) -> Row:
    found = (
        f"{row['markets']:,} markets ({row['open_markets']:,} open), {row['events']:,} events, {row['series']:,} series"
        f"; {row['inserted']:,} new, {row['changed']:,} changed{', accepted' if row['accepted'] else ''}"
    )
    has_counts = row["status"] == "completed" or row["markets"]
    said = [text for text in (row["error"], found if has_counts else "") if text]
    return {**_short(row), "said": "; ".join(said)}


CHANGES = OnTerminal(_change, {"changed_at": "CHANGED", "known_from": "KNOWN_FROM", "said": "CHANGE"})
BOOK = OnTerminal(_sync, {"started_at": "STARTED", "kind": "KIND", "status": "STATUS", "said": "WHAT"})
