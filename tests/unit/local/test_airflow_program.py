"""What a killed scheduler has left is ended before the next one begins, and nothing else is."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ssmd.local.airflow_program import end_remains
from ssmd.local.processes import MARK

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
ORDERLY = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print(flush=True); sys.stdin.read()"
)


def started(code: str, mark: str, program: str, *words: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, MARK: mark, "SUPERVISOR_PROCESS_NAME": program}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_airflows_own_processes_are_killed_and_commands_of_tasks_may_end_in_order() -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    worker = started(STUBBORN, mark, "airflow-scheduler", "-m airflow scheduler ")
    command = started(ORDERLY, mark, "airflow-scheduler", "market", "sync")
    neighbour = started(ORDERLY, mark, "airflow-dags")
    stranger = started(ORDERLY, f"{mark}-other", "airflow-scheduler")
    try:
        assert end_remains("airflow-scheduler", mark) == 2

        assert (worker.wait(5), command.wait(5)) == (-9, 5)
        assert (neighbour.poll(), stranger.poll()) == (None, None)
    finally:
        for process in (worker, command, neighbour, stranger):
            process.communicate(timeout=5) if process.poll() is None else process.communicate()


def test_the_program_becomes_airflow_with_its_output_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "__init__.py").touch()
    (tmp_path / "airflow" / "__main__.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:])")
    log = tmp_path / "a log"
    log.write_text("before\n")

    command = [sys.executable, "-m", "ssmd.local.airflow_program", "airflow-scheduler", "--log", str(log)]
    with subprocess.Popen(
        [*command, "--", "scheduler", "--x"], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    ) as child:
        assert child.wait(20) == 0

    assert log.read_text() == f"before\n{child.pid} ['scheduler', '--x']\n"
