"""The runner of all tests: a red pass is a red run, and no process outlives it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As a server's daemon would: in a session of its own, and soon without a parent.
LEAVE_A_SERVER = """
import os, subprocess, sys
server = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
print(server.pid, flush=True)
"""
WAIT = "\nimport time\ntime.sleep(600)"


def start(first: str, second: str = "") -> "subprocess.Popen[str]":
    """The runner, with these programs for its two passes."""
    code = (
        "import sys\nfrom tests import run\n"
        f"run.SIDE_BY_SIDE, run.ONE_BY_ONE, run.ENDING_S = ['-c', {first!r}], ['-c', {second!r}], 0.2\n"
        "sys.exit(run.main([]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("first", "second", "expected"), [(0, 0, 0), (0, 3, 3), (4, 0, 4), (4, 3, 4)])
def test_a_pass_that_fails_fails_the_run_and_both_are_made(first: int, second: int, expected: int) -> None:
    with start(f"print('one', flush=True); exit({first})", f"print('two'); exit({second})") as run:
        said, errors = run.communicate(timeout=60)

    assert (run.returncode, said.split(), errors) == (expected, ["one", "two"], "")


def test_a_process_that_tests_leave_behind_is_killed_named_and_a_failure() -> None:
    with start(LEAVE_A_SERVER) as run:
        said, errors = run.communicate(timeout=60)

    assert run.returncode == 9
    assert errors == f"left running by the tests, and killed: {said.strip()} sleep 600\n"
    assert not Path(f"/proc/{said.strip()}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_no_server(number: signal.Signals) -> None:
    with start(LEAVE_A_SERVER + WAIT, "print('never')") as run:
        assert run.stdout is not None
        server = Path("/proc", run.stdout.readline().strip())
        assert server.exists()
        run.send_signal(number)
        said, errors = run.communicate(timeout=60)

    assert (run.returncode, said) == (128 + number, "")
    assert f"interrupted by signal {int(number)}" in errors
    assert not server.exists()
