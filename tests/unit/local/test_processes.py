"""Processes are known by number and start time."""

import os
import signal
import subprocess
import sys
import time

from ssmd.local.processes import ProcessId, command_of, identify, marked


def runs(process: ProcessId | None) -> bool:
    return process is not None and process.alive


def test_a_process_is_alive_until_it_ends() -> None:
    child = subprocess.Popen(["sleep", "600"])
    process = identify(child.pid)
    assert runs(process)
    assert process is not None

    process.end(5.0)

    assert not runs(process)
    child.returncode = -signal.SIGTERM  # it was collected behind the back of Popen


def test_a_reused_number_is_another_process() -> None:
    own = identify(os.getpid())
    assert own is not None
    impostor = ProcessId(own.pid, own.started + 1)

    assert own.alive
    assert not impostor.alive
    impostor.send(signal.SIGKILL)  # must not hit us


def test_a_dead_child_that_nobody_waited_for_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    process = identify(child.pid)
    deadline = time.monotonic() + 30
    while process is not None and process.alive:
        assert time.monotonic() < deadline
        time.sleep(0.005)

    assert identify(child.pid) is not None  # still in the table, as a zombie
    child.wait()


def test_one_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = identify(child.pid)
        assert process is not None

        process.end(0.1)

        assert not process.alive
        child.returncode = -signal.SIGKILL


def test_processes_are_found_by_the_mark_in_their_environment() -> None:
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    variables = {"SSMD_TEST_MARK": mark, "SUPERVISOR_PROCESS_NAME": "nats", "PATH": os.environ["PATH"]}
    child = subprocess.Popen(["sleep", "600"], env=variables)
    try:
        found: list[tuple[ProcessId, str]] = []
        deadline = time.monotonic() + 30
        while not found and time.monotonic() < deadline:  # the child becomes `sleep` a moment later
            found = marked("SSMD_TEST_MARK", mark)

        assert [(process.pid, name) for process, name in found] == [(child.pid, "nats")]
        assert marked("SSMD_TEST_MARK", mark + "x") == []
    finally:
        child.kill()
        child.wait()


def test_the_command_line_is_cut_to_a_readable_length() -> None:
    assert 0 < len(command_of(os.getpid())) <= 100
    assert command_of(2**22 + 1) == ""
    assert identify(2**22 + 1) is None
