"""A day of trades under its expectations: seconds and memory of the Parquet export and of `ssmd quality run`'s suite.

`python -m tests.bench.quality [--rows 5000000]`. Each part is a process of its own, so that its peak memory is its own;
the bar is 1 GB for five million rows. Also measured: Great Expectations on the whole day as one pandas frame.
"""

import argparse
import asyncio
import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import structlog

from ssmd.archive.frames import compress
from ssmd.archive.layout import ParquetDay, TickerObject
from ssmd.archive.segments import Measures, normalized_manifest
from ssmd.archive.writer import store_replacing
from ssmd.clock import NS_PER_MS, day_start_ns
from ssmd.market.events import SCALE, Side, Trade
from ssmd.middleware.storage.local import LocalStorage
from ssmd.quality.export import export
from ssmd.wire.normalized import encode

FEED, BUCKET = "kalshi", "ssmd-normalized"
DAY = date(2026, 11, 21)
TICKERS = 500
BAR_MB = 1_000


async def make(folder: Path, rows: int) -> None:
    """Compacted objects with that many trades of 500 markets."""
    storage, pick, start = LocalStorage(folder), random.Random(7), day_start_ns(DAY)
    each = rows // TICKERS
    for number in range(TICKERS):
        its = TickerObject(FEED, "trade", DAY, f"KXBENCH-26NOV21-T{number:04d}")
        times = [start + n * (86_400_000 // each) * NS_PER_MS + number for n in range(each)]
        messages = [
            encode(
                Trade(
                    at - 20 * NS_PER_MS, at, its.ticker, "c-bench", 2, n * TICKERS + number + 1,
                    pick.randrange(10_000, 990_000, 10_000), pick.randrange(1, 500) * SCALE, Side(n & 1),
                    f"{pick.getrandbits(128):032x}",
                )
            )
            for n, at in enumerate(times)
        ]  # fmt: skip
        path = folder / "made"
        compressed = compress(messages, path)
        manifest = normalized_manifest(its, compressed, Measures(each, times[0], times[-1], 1))
        await store_replacing(storage, BUCKET, its, manifest, path)


async def exported(folder: Path) -> int:
    """Make the Parquet files; how many rows they have."""
    made, _ = await export(LocalStorage(folder), BUCKET, ParquetDay(FEED, "trade", DAY), work=folder, force=True)
    return made.rows


async def judged(folder: Path) -> int:
    """The suite of trades over the files."""
    from ssmd.feeds.catalogue import open_feed
    from ssmd.quality.batches import Day
    from ssmd.quality.judge import Judge
    from ssmd.quality.runner import run_suites
    from ssmd.quality.suites import choose_suites, load_suites

    work = folder / "work"
    work.mkdir(exist_ok=True)
    day = Day(FEED, DAY, DAY, LocalStorage(folder), "ssmd-raw", BUCKET, open_feed(FEED, DAY), work)
    run = await run_suites(day, choose_suites(load_suites(), ["trades"]), Judge())
    [suite] = run.suites
    if run.findings:
        raise SystemExit(f"the made day is not clean: {suite.outcomes}")
    return suite.rows


async def whole(folder: Path) -> int:
    """The baseline: all rows in one pandas frame, the same rules as far as they need no column of ours."""
    import pandas as pd

    from ssmd.quality.judge import Judge
    from ssmd.quality.suites import Expectation, choose_suites, load_suites

    [suite] = choose_suites(load_suites(), ["trades"])
    frame = pd.concat(pd.read_parquet(file) for file in sorted(folder.rglob("part-*.parquet")))
    frame["latency_s"] = (frame["received_time"] - frame["exchange_time"]).dt.total_seconds()
    for name in ("price", "size"):
        frame[name] = frame[name].astype(float)
    asked = [its for its in suite.of("trade") if its.column in frame]
    unique = Expectation("expect_column_values_to_be_unique", "trade", "once", "critical", {"column": "trade_id"})
    _, rows = Judge().frames([*asked, unique], [frame])
    return rows


PARTS = {"export": exported, "suite": judged, "one frame": whole}


def _measured(part: str, folder: Path) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bench.quality", "--part", part, "--folder", str(folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure; 0 when the bar is met, 6 when it is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--baseline", action="store_true", help="also the whole day in one frame (several GB)")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if chosen.part:
        begun = time.perf_counter()
        rows = asyncio.run(PARTS[chosen.part](chosen.folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - begun, "peak_mb": peak}))
        return 0
    missed = False
    with tempfile.TemporaryDirectory(prefix="ssmd-bench-") as folder:
        asyncio.run(make(Path(folder), chosen.rows))
        print("| part | rows | seconds | rows/s | peak MB |\n|---|---|---|---|---|")
        for part in PARTS if chosen.baseline else ("export", "suite"):
            found = _measured(part, Path(folder))
            rate = found["rows"] / found["seconds"]
            cells = (part, f"{found['rows']:,}", f"{found['seconds']:.1f}", f"{rate:,.0f}", f"{found['peak_mb']:.0f}")
            print(f"| {' | '.join(cells)} |", flush=True)
            missed = missed or (part != "one frame" and found["peak_mb"] > BAR_MB)
    return 6 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
