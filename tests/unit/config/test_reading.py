"""YAML that not everyone reads alike is a problem with a line; no file makes the reader fail in another way."""

import itertools

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.config.reading import MAX_BYTES, MAX_VALUES, Document, read


def only(document: Document) -> tuple[str, int | None, str]:
    assert len(document.problems) == 1, document.problems
    return tuple(document.problems[0])  # type: ignore[return-value]


def test_plain_values_keep_their_lines() -> None:
    document = read(b"a: 1\nb:\n  c: [x, 2.5, true, null]\n")
    assert document.data == {"a": 1, "b": {"c": ["x", 2.5, True, None]}}
    assert document.problems == []
    assert document.line_of(("b", "c", 1)) == 3
    assert document.line_of(("b", "unknown")) == 2


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("a: on", "a", 'reads as true; write true, or "on"'),
        ("a: No", "a", 'reads as false; write false, or "No"'),
        ("a: 0777", "a", "not everyone reads alike"),
        ("a: 0x1F", "a", "not everyone reads alike"),
        ("a: 1_000", "a", "not everyone reads alike"),
        ("a: 10:30", "a", 'base 60; write "10:30" in quotes'),
        ("a: 1:10.5", "a", "base 60"),
        ("a: 2026-11-22", "a", "as a date"),
        ("a: .inf", "a", "not everyone reads alike"),
        ("a: &x 1", "a", "has an anchor (&x)"),
        ("a: *x", "a", "is an alias (*x)"),
        ("a: !!python/object/apply:os.system [id]", "a", "has a tag"),
        ("a: !secret x", "a", "has a tag (!secret)"),
        ("a: {<<: {b: 1}}", "a", "merge key"),
        ("a: {? [x, y] : 1}", "a", "a key that is not a word"),
        ("a: {on: 1}", "a.on", '"on" in quotes'),
        ("a: {8080: 1}", "a.8080", '"8080" in quotes'),
        ("a: {b: 1, c: 2, b: 3}", "a.b", "stands twice (first on line 1)"),
    ],
)
def test_what_yaml_would_change_is_a_problem(text: str, path: str, says: str) -> None:
    where, line, problem = only(read(text.encode()))
    assert where == path
    assert line == 1
    assert says in problem


@pytest.mark.parametrize(
    ("raw", "line", "says"),
    [
        (b"", None, "the file is empty"),
        (b"# only a comment\n", None, "the file is empty"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"a: \xff", 1, "not UTF-8"),
        (b"a: 1\nb: \x01", 2, "U+0001"),
        (b"a: 1\n\tb: 2", 2, "indent with spaces, not tabs"),
        (b"a: [1, 2", 1, "not plain YAML"),
        (b"a: b: c", 1, "not plain YAML"),
        (b"a: " + b"[" * 100_000, 1, "nested deeper"),
        (b"a: [" + b"1," * (MAX_VALUES + 1) + b"]", 1, "more than"),
        (b"a" * (MAX_BYTES + 1), None, "at most"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_problem(raw: bytes, line: int | None, says: str) -> None:
    document = read(raw)
    assert document.data is None
    where, found_line, problem = only(document)
    assert where == ""
    assert found_line == line
    assert says in problem


def test_quoted_words_and_times_are_text() -> None:
    document = read(b'a: ["on", "00:10", \'0777\', "2026-11-22"]\nb: 00:10\n')
    assert document.data == {"a": ["on", "00:10", "0777", "2026-11-22"], "b": "00:10"}
    assert document.problems == []


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read("\ufeffa: 1\n".encode()).data == {"a": 1}


def test_an_alias_bomb_costs_nothing() -> None:
    letters = "abcdefghijklmnopqrstu"
    pairs = itertools.pairwise(letters)
    bomb = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairs)
    document = read(bomb.encode())
    assert len(document.problems) == 61


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?, \n\t~0189._<\\xe\u20ac", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    document = read(text.encode())
    assert document.problems or document.data == yaml.safe_load(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    read(raw)
