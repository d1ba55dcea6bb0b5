"""Run all tests: those that may share the machine side by side, then the rest one by one; leave no process behind.

    python -m tests.run [PYTEST OPTIONS]

Both passes are measured for `coverage combine`. What tests write lies in memory when there is plenty of it: dozens of
servers that sync to one disk wait for it more than for anything else. Exit code: 0 when all is well, else that of the
first pass that failed.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
# Most integration tests wait for others: one worker more than processors.
WORKERS = min(len(os.sched_getaffinity(0)) + 1, 8)
SIDE_BY_SIDE = ["-m", "pytest", "-p", "tests.scheduling", "-n", str(WORKERS), "--dist", "loadscope", "-m", "not alone"]
ONE_BY_ONE = ["-m", "coverage", "run", "-m", "pytest", "-m", "alone"]
# An interrupted pytest ends its servers itself; then the rest is killed.
INTERRUPTED_S = 30.0
ENDING_S = 10.0
LEFT_BEHIND = 9
MEMORY = Path("/dev/shm")
PLENTY_BYTES = 14 << 30
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every process below that loses its own, so that none can hide."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants() -> dict[int, str]:
    """Command lines of all living processes below this one, by number."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
            except OSError:
                continue  # it has just ended
            if state != "Z":
                children.setdefault(int(parent), []).append((int(folder.name), command))
    found: dict[int, str] = {}
    below = [os.getpid()]
    while below:
        of_one = children.get(below.pop(), [])
        found.update(of_one)
        below += [pid for pid, _ in of_one]
    return found


def collect() -> None:
    """Bury the orphans that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def sweep(grace_s: float) -> list[str]:
    """Kill what still runs after `grace_s`; the command lines of what had to be killed."""
    deadline, killed = time.monotonic() + grace_s, dict[int, str]()
    while left := descendants():
        if time.monotonic() >= deadline:
            killed |= left
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        time.sleep(0.05)
        collect()
    return [f"{pid} {command}" for pid, command in killed.items()]


def available_bytes() -> int:
    """Memory that is free or soon given back; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def workplace(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """`environ` with a folder for temporary files, in memory if that is plenty; it is removed at the end."""
    room = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    if "TMPDIR" in environ or min(room, available_bytes()) < PLENTY_BYTES:
        yield environ
        return
    folder = tempfile.mkdtemp(prefix="ssmd-tests-", dir=MEMORY)
    Path(folder).chmod(0o755)  # a server of another user must get in
    try:
        yield {**environ, "TMPDIR": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Interrupted(Exception):
    """A signal asked for the end of the run."""


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for asked in SIGNALS:
        signal.signal(asked, signal.SIG_IGN)  # once is enough: the end is on its way
    raise Interrupted(number)


def run(arguments: list[str], environ: dict[str, str]) -> int:
    """One pass to its end; its exit code, or LEFT_BEHIND when it is green and left processes running."""
    # In a process group of its own: a Ctrl-C at the terminal reaches it once, from here, and not every server at once.
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environ, process_group=0)
    try:
        code = process.wait()
    except Interrupted as asked:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPTED_S)
        sweep(0)
        sys.stderr.write(f"interrupted by signal {asked.args[0]}\n")
        sys.exit(128 + int(asked.args[0]))
    left = sweep(ENDING_S)
    for line in left:
        sys.stderr.write(f"left running by the tests, and killed: {line}\n")
    return code or (LEFT_BEHIND if left else 0)


def main(options: list[str]) -> int:
    """Both passes, whatever the first one says."""
    adopt_orphans()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    with workplace(dict(os.environ)) as environ:
        # Coverage's own .pth file measures a worker from its start; tests/conftest.py keeps this from its children.
        measured = {**environ, "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml")}
        first = run([*SIDE_BY_SIDE, *options], measured)
        second = run([*ONE_BY_ONE, *options], environ)
    return first or second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
