"""Row: how long `ssmd --help` takes, from nothing."""

import subprocess
import sys
import time
from pathlib import Path


def lap_s() -> float:
    """Wall seconds of one `ssmd --help` in a process of its own."""
    program = Path(sys.executable).with_name("ssmd")
    began = time.perf_counter()
    subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
