"""`python -m tests.bench`: measure every path and print one table."""

import argparse
import asyncio
import logging
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
import uvloop

from tests.bench.frames import Generator
from tests.bench.measure import markdown
from tests.bench.rows import FULL, QUICK, ROWS, Bench, run


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} × {model}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load {load}"
    )


def main() -> int:
    """Measure; 0 when every bar is met, 6 when one is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages, two rounds")
    parser.add_argument("--json", action="store_true", help="every lap as JSON instead of the table")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    chosen = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    scale, machine = QUICK if chosen.quick else FULL, _machine()
    tape = Generator().tape(scale.frames)
    with tempfile.TemporaryDirectory(prefix="ssmd-bench-") as folder:
        bench = Bench(tape, scale, Path(folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lines = runner.run(run(chosen.only or list(ROWS), bench, lambda said: print(said, file=sys.stderr)))
    if chosen.json:
        print(msgspec.json.encode({"machine": machine, "lines": lines}).decode())
    else:
        print(f"{machine}; {len(tape.frames):,} frames of {tape.mean_bytes:.0f} bytes, {scale.rounds} rounds\n")
        print(markdown(lines))
        print("\nCPU µs and rates per message: min / median / max of the rounds. Ratios: median of each round's ratio.")
    return 6 if any(line.met is False for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
