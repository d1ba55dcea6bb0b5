"""Stands in for the program `ssmd` where only its exit code and its words matter: does what a file says.

The file (`SSMD_FAKE`, JSON) holds `rules`: the first whose `words` the arguments begin with is used; of its `codes`
each call takes the next, the last one for ever. Calls are appended to `SSMD_FAKE`.calls, one JSON line each. It
imports next to nothing, so that hundreds of calls cost little.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


def main() -> int:
    """One call."""
    place = os.environ["SSMD_FAKE"]
    words = sys.argv[1:]
    with open(place, encoding="utf-8") as file:
        rules = json.load(file)["rules"]
    rule: dict[str, Any] = next((rule for rule in rules if words[: len(rule["words"])] == rule["words"]), {})
    first = rule.get("words", [])
    with open(f"{place}.calls", "a+", encoding="utf-8") as calls:
        calls.seek(0)
        before = sum(1 for line in calls if json.loads(line)["words"][: len(first)] == first)
        told = {name: value for name, value in os.environ.items() if name.startswith(("SSMD_T", "SSMD_B", "AIRFLOW__"))}
        calls.write(json.dumps({"words": words, "pid": os.getpid(), "told": told}) + "\n")
    if rule.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if rule.get("orphan"):  # a child that keeps the output open when this command has ended
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    sys.stdout.buffer.write(rule.get("stdout", "").encode())
    sys.stdout.flush()
    sys.stderr.write(rule.get("stderr", ""))
    sys.stderr.flush()
    time.sleep(rule.get("seconds", 0))
    codes = rule.get("codes", [0])
    code = int(codes[min(before, len(codes) - 1)])
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(5)
    return code


if __name__ == "__main__":
    sys.exit(main())
