"""How much memory the programs of the stack take, with all their children, shared pages counted once."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ssmd.local.processes import MARK, marked

_PROC = Path("/proc")


def memory_of(mark: str, pids: Mapping[str, int]) -> dict[str, int]:
    """Bytes by program: proportional set size, in which a page shared by n processes counts 1/n for each.

    `pids` are the main processes. To a program belongs what descends from it, and what it has started and lost (known
    by the environment of the stack `mark`). What we may not look at counts as nothing.
    """
    owners = {pid: name for name, pid in pids.items() if pid}
    parents = _parents()
    lost = {process.pid: name for process, name in marked(MARK, mark) if name}
    found = dict.fromkeys(pids, 0)
    for pid in parents:
        name = _owner(pid, owners, parents) or lost.get(pid)
        if name in found:
            found[name] += _bytes(pid)
    return found


def _owner(pid: int, owners: Mapping[int, str], parents: Mapping[int, int]) -> str | None:
    """The nearest program above a process, itself included."""
    seen = 0
    while pid > 1 and seen < len(parents):
        if pid in owners:
            return owners[pid]
        pid = parents.get(pid, 0)
        seen += 1
    return None


def _parents() -> dict[int, int]:
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):  # gone meanwhile
                text = (entry / "stat").read_text(errors="replace")
                found[int(entry.name)] = int(text[text.rindex(")") + 2 :].split()[1])
    return found


def _bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or another user's
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
