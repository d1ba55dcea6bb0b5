"""The progress of a market sync on stderr: a bar for each list on a terminal, nothing in a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sync_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Gives the function to call with a list's name, the objects of it that came so far, and how many are expected."""
    if not sys.stderr.isatty():
        yield lambda _what, _count, _expected: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(what: str, count: int, expected: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=expected)
            bars.update(tasks[what], completed=count, total=max(expected, count) if expected else None)

        yield show
