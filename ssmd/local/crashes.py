"""Programs of the stack that ended by themselves and were started again, as supervisord's log has them."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import NamedTuple

from ssmd.local.home import Home

_MOST_BYTES = 1_000_000
_EXITED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ \w+ exited: (\S+) \((.+); not expected\)")


class Crash(NamedTuple):
    """A program's process that ended without an order, and irregularly. `at` is UTC."""

    program: str
    at: datetime
    how: str


def crashes(home: Home, since: datetime) -> list[Crash]:
    """Those since then, the earliest first, as far as the log's last million bytes reach."""
    log = home.log / "supervisord.log"
    found = []
    for line in [*_lines(log.with_name(f"{log.name}.1")), *_lines(log)]:
        if said := _EXITED.match(line):
            at = datetime.fromisoformat(said[1]).astimezone(UTC)  # supervisord writes the machine's local time
            if at >= since:
                found.append(Crash(said[2], at, _how(said[3])))
    return found


def _how(words: str) -> str:
    """supervisord's words as people say it: `killed by signal 9`, `exit code 70`."""
    if name := re.match(r"terminated by (SIG\w+)", words):
        try:
            return f"killed by signal {Signals[name[1]].value}"
        except KeyError:
            return f"killed by {name[1]}"
    return words.replace("exit status", "exit code")


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
