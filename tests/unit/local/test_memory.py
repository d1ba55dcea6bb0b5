"""Memory by program: its children count, also those it has lost, and nobody else's do."""

import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

from ssmd.local.memory import memory_of
from ssmd.local.processes import MARK

HOLD = "import sys; data = bytearray(b'x' * 40_000_000); print('ready', flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"


def test_a_program_and_its_children_are_added_up() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", PARENT], stdin=PIPE, stdout=PIPE) as parent,
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=PIPE, stdout=PIPE) as other,
    ):
        assert parent.stdout is not None
        assert other.stdout is not None
        assert parent.stdout.readline() == other.stdout.readline() == b"ready\n"

        found = memory_of("no such mark", {"parent": parent.pid, "gone": 0})

        parent.communicate()
        other.communicate()
    assert 40_000_000 < found["parent"] < 80_000_000
    assert found["gone"] == 0


def test_what_a_program_has_lost_is_still_its_own() -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    environment = {**os.environ, MARK: mark, "SUPERVISOR_PROCESS_NAME": "scheduler"}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=PIPE, stdout=PIPE, env=environment) as lost:
        assert lost.stdout is not None
        assert lost.stdout.readline() == b"ready\n"
        found = memory_of(mark, {"scheduler": 0, "connector": 0})
        lost.communicate()
    assert found["scheduler"] > 40_000_000
    assert found["connector"] == 0


def test_its_own_process_is_measured() -> None:
    assert memory_of("", {"me": os.getpid()})["me"] > 5_000_000
    assert Path("/proc/self/smaps_rollup").exists()
