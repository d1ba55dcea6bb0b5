"""How answers look: tables for people, tab-separated columns in pipes, JSON for programs, and the marks ✓ ○ ✗."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

GOOD, WAITING, BAD = "✓", "○", "✗"
_COLOURS = {GOOD: "green", WAITING: "yellow", BAD: "red"}

Row = Mapping[str, Any]

if TYPE_CHECKING:
    from rich.table import Table


class OnTerminal(NamedTuple):
    """How rows look to a person: each as `row` makes it; by `columns` where the table of all columns does not fit.

    Of these columns only the last one is wrapped.
    """

    row: Callable[[Row], Row]
    columns: Mapping[str, str]


def show_json(value: object) -> None:
    """`value` as JSON on stdout, indented for a terminal."""
    text = msgspec.json.encode(value, order="deterministic")
    print(msgspec.json.format(text, indent=2 if sys.stdout.isatty() else 0).decode())


def show_rows(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    empty: str,
    terminal: OnTerminal | None = None,
) -> None:
    """Rows as a table of `columns` (key → heading), or all their keys as JSON; `empty` is said when there are none.

    With `terminal`, columns that are empty in all rows are left out on a terminal.
    """
    if as_json:
        print(msgspec.json.encode(list(rows)).decode() if not sys.stdout.isatty() else _pretty(rows))
        return
    if not rows:
        talk(empty)
        return
    if sys.stdout.isatty():
        _show_table(rows, columns, terminal)
        return
    for line in [list(columns.values()), *_cells(rows, columns)]:
        print("\t".join(line))


def show_fields(fields: Mapping[str, object]) -> None:
    """`Name: value` lines; what has no value is left out."""
    for name, value in fields.items():
        if value not in (None, ""):
            print(f"{name}: {cell(value)}")


def cell(value: object) -> str:
    """One value for people: nothing for None, digits grouped, no control characters (market text is not ours)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 and sys.stdout.isatty() else str(value)
    return "".join(letter if letter.isprintable() else "·" for letter in str(value))


def counted(number: int, one: str, many: str = "") -> str:
    """`1 gap`, `2 gaps`; `many` where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def mark_line(mark: str, name: str, detail: str, fix: str = "") -> None:
    """`✓ name  detail`, and the fix below it."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(
            Text.assemble((mark, _COLOURS.get(mark, "")), f" {name:<12} {detail}"), soft_wrap=True
        )
    else:
        print(f"{mark} {name:<12} {detail}")
    if fix:
        print(f"  {'':<12} → {fix}")


def talk(text: str) -> None:
    """Something for the person, beside the answer: stderr."""
    print(text, file=sys.stderr, flush=True)


def _pretty(rows: Sequence[Row]) -> str:
    return msgspec.json.format(msgspec.json.encode(list(rows)), indent=2).decode()


def _cells(rows: Sequence[Row], columns: Mapping[str, str]) -> list[list[str]]:
    return [[cell(row.get(key)) for key in columns] for row in rows]


def _show_table(rows: Sequence[Row], columns: Mapping[str, str], terminal: OnTerminal | None) -> None:
    from rich.console import Console

    console = Console()
    if terminal is None:
        console.print(_table(list(columns.values()), _cells(rows, columns)))
        return
    rows = [terminal.row(row) for row in rows]
    used = {key: heading for key, heading in columns.items() if any(row.get(key) not in (None, "") for row in rows)}
    table = _table(list(used.values()), _cells(rows, used))
    if console.measure(table, options=console.options.update(width=10_000)).maximum > console.width:
        table = _table(list(terminal.columns.values()), _cells(rows, terminal.columns))
        for column in table.columns[:-1]:
            column.no_wrap = True
    console.print(table)


def _table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        numeric = all(line[index].replace(",", "").replace(".", "").isdigit() for line in cells if line[index])
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        table.add_row(*(escape(text) for text in line))
    return table
