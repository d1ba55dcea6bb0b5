"""Recorded exchange tapes: where they lie on a developer's machine, and how they are read.

They are not part of the project (most state no licence). `SSMD_TAPES` names their folder; without it the folder
`shared/exchanges/data` beside the project is tried. Tests that need them are skipped where they are absent.
"""

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("SSMD_TAPES") or Path(__file__).parents[2] / "shared" / "exchanges" / "data")
_NUMBERS = re.compile(rb'"sid":(\d+),"seq":(\d+)')


def tape(*names: str) -> Path:
    """A recorded file or folder; skips the test where it is absent."""
    path = FOLDER.joinpath(*names)
    if not path.exists():
        pytest.skip(f"no recorded data at {path}: set SSMD_TAPES to a folder that has {'/'.join(names)}")
    return path


def gold_tapes() -> list[str]:
    """The names of the recorded gold markets; empty where there are none."""
    folder = FOLDER / "kalshi_gold15m" / "events"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def gold_tape(name: str) -> Path:
    """The file of one recorded gold market."""
    return next(tape("kalshi_gold15m", "events", name).glob("*.ndjson.gz"))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(receive time in ms, the frame's own bytes) of each line of a recording."""
    with gzip.open(path, "rb") as file:
        for line in file:
            head, _, rest = line.partition(b',"event":')
            yield int(head.rpartition(b":")[2]), rest.rstrip()[:-1]


def renumbered(frames: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The frames with `seq` counted from 1 per sid: a tape is one market cut out of a busier connection."""
    counts: dict[bytes, int] = {}
    for received_ms, frame in frames:
        match = _NUMBERS.search(frame)
        if match is None:
            yield received_ms, frame
            continue
        sid = match[1]
        counts[sid] = counts.get(sid, 0) + 1
        yield received_ms, frame[: match.start(2)] + b"%d" % counts[sid] + frame[match.end(2) :]
