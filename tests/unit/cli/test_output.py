"""Answers on stdout: plain in pipes, JSON for programs, and nothing that controls a terminal."""

import json
import re
from typing import Any

import pytest

from ssmd.cli.market_tables import BOOK, CHANGES, HISTORY, SYNCS
from ssmd.cli.output import GOOD, cell, mark_line, show_json, show_rows

COLUMNS = {"name": "NAME", "count": "COUNT"}


def test_rows_in_a_pipe_are_tab_separated_below_their_headings(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "a", "count": 12345, "more": 1}], COLUMNS, as_json=False, empty="none")

    assert capsys.readouterr() == ("NAME\tCOUNT\na\t12345\n", "")


def test_no_rows_are_an_empty_list_in_json_and_a_word_on_stderr_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], COLUMNS, as_json=True, empty="none")
    assert capsys.readouterr() == ("[]\n", "")
    show_rows([], COLUMNS, as_json=False, empty="none")
    assert capsys.readouterr() == ("", "none\n")


def test_json_has_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "a", "count": 1, "more": None}], COLUMNS, as_json=True, empty="none")
    assert json.loads(capsys.readouterr().out) == [{"name": "a", "count": 1, "more": None}]
    show_json({"b": 1, "a": [2]})
    assert json.loads(capsys.readouterr().out) == {"a": [2], "b": 1}


def test_a_person_at_a_terminal_gets_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")

    show_rows([{"name": "[red]a", "count": 12345}], COLUMNS, as_json=False, empty="none")

    out = capsys.readouterr().out
    assert "NAME" in out
    assert "[red]a" in out  # market text is text, not markup
    assert "12,345" in out


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (True, "yes"), (0, "0"), ("plain", "plain"), ("\x1b[31mred\r\n", "·[31mred··"), (1.5, "1.5")],
    ids=["none", "bool", "zero", "text", "escape", "float"],
)  # fmt: skip
def test_a_cell_shows_its_value_and_nothing_else(value: object, expected: str) -> None:
    assert cell(value) == expected


def test_a_mark_is_followed_by_name_detail_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    mark_line(GOOD, "nats", "runs", "nothing to do")

    assert capsys.readouterr().out.splitlines() == ["✓ nats         runs", "               → nothing to do"]


@pytest.mark.parametrize("width", [80, 120])
def test_changes_and_syncs_are_readable_on_a_terminal_and_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    changes = [change("status", "active", "closed"), change("result", None, "yes", "finalized")]
    changes.append(change("rules_primary", "a " * 100, "b"))
    reason = "the exchange lists only 0 open markets. " * 3
    book = [sync("completed"), sync("refused", reason), sync("aborted")]
    show_rows(changes, HISTORY, as_json=False, empty="", terminal=CHANGES)
    show_rows(book, SYNCS, as_json=False, empty="", terminal=BOOK)
    piped = capsys.readouterr().out
    assert "a " * 100 in piped
    assert "2026-11-22T16:00:00.123456Z" in piped
    assert reason in piped
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    show_rows(changes, HISTORY, as_json=False, empty="", terminal=CHANGES)
    show_rows(book, SYNCS, as_json=False, empty="", terminal=BOOK)
    shown = plain(capsys.readouterr().out)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    begins = [line[1:21] for line in shown.splitlines() if line.startswith(" 2026")]
    assert begins == ["2026-11-22T16:00:00Z"] * 6
    for text in ("status: active → closed", "result: none → yes, by finalized", "refused", "12,345 markets (9"):
        assert text in shown


def test_a_table_that_fits_has_every_column_that_holds_something(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    show_rows([change("status", "active", "closed")], HISTORY, as_json=False, empty="", terminal=CHANGES)
    show_rows([sync("completed")], SYNCS, as_json=False, empty="", terminal=BOOK)
    lines = [line.split() for line in plain(capsys.readouterr().out).splitlines()]
    assert ["CHANGED", "FIELD", "OLD", "NEW", "KNOWN_FROM"] in lines
    assert ["2026-11-22T16:00:00Z", "status", "active", "closed", "2026-11-22T16:00:05Z"] in lines
    assert [*list(SYNCS.values())[:-1]] in lines


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def change(field: str, old: str | None, new: str, evidence: str | None = None) -> dict[str, Any]:
    times = {"changed_at": "2026-11-22T16:00:00.123456Z", "known_from": "2026-11-22T16:00:05.000000Z"}
    return {**times, "field": field, "old": old, "new": new, "known_to": None, "evidence": evidence}


def sync(status: str, error: str | None = None) -> dict[str, Any]:
    counts = {"series": 3, "events": 4, "markets": 12_345 if error is None else 0, "open_markets": 9}
    row = {"started_at": "2026-11-22T16:00:00.123456Z", "kind": "incremental", "status": status, "accepted": False}
    return {**row, **counts, "inserted": 1, "changed": 2, "error": error}
