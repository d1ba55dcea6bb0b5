"""`ssmd simulate` as a process: it says where it listens, plays, and ends cleanly when told."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.unit.simulator.test_tape import SNAPSHOT, write


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ssmd", "simulate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_serves_a_tape_until_it_is_told_to_stop(tmp_path: Path) -> None:
    tape = write(tmp_path / "tape.ndjson", [(0, SNAPSHOT)])
    process = start("--port", "0", "--tape", str(tape), "--ledger", str(tmp_path / "ledger"))
    assert process.stderr is not None
    assert process.stdout is not None
    said = ""
    try:
        address = ""
        while not address:
            line = process.stderr.readline()
            said += line
            assert line, "it ended before it listened"
            found = re.search(r"REST\s+(http://127\.0\.0\.1:\d+/\S+)", line)
            address = found[1] if found else ""
        with urllib.request.urlopen(f"{address}/markets?status=open", timeout=30) as answer:
            markets = json.load(answer)["markets"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        said += process.stderr.read()
        out = process.stdout.read()
        process.stdout.close()
        process.stderr.close()

    assert [market["ticker"] for market in markets] == ["KXA-1-2"]
    assert (process.returncode, out) == (0, "")
    assert "break it" in said
    assert "Traceback" not in said


def test_it_refuses_the_world_and_files_that_are_not_there() -> None:
    for arguments, words in (
        (("--host", "0.0.0.0"), "loopback"),
        (("--tape", "no-such-tape"), "no-such-tape"),
        (("--public-key", "no-such-key"), "no-such-key"),
        (("--objects", "no-such-folder"), "no-such-folder"),
    ):
        process = start("--port", "0", *arguments)
        out, err = process.communicate(timeout=20)

        assert (process.returncode, out) == (2, ""), err
        assert words in err
        assert "Traceback" not in err
