"""Log files whose writers outlive supervisord's pipes: kept small by copying and emptying them in place."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 50_000_000
BACKUPS = 3
_LOOK_S = 60.0


def rotate(path: Path, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> bool:
    """Move what a file holds to `.1` (that to `.2`, ...) once it is larger; its writers must append (O_APPEND).

    What is written between the copy and the emptying is lost: a few lines of many megabytes.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        for number in range(backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(_numbered(path, number), _numbered(path, number + 1))
        shutil.copyfile(path, _numbered(path, 1))
        os.truncate(path, 0)
    except OSError:  # a full disk, or the file is not there yet: tried again a minute later
        return False
    return True


def watch(paths: Sequence[Path]) -> None:
    """Look at the files once a minute, in a thread, for as long as the process lives."""

    def run() -> None:
        while True:
            for path in paths:
                rotate(path)
            time.sleep(_LOOK_S)

    threading.Thread(target=run, name="log rotation", daemon=True).start()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
