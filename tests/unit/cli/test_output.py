"""Answers on stdout: plain in pipes, JSON for programs, and nothing that controls a terminal."""

import json

import pytest

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
