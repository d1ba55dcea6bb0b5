"""Fail unless lines and branches are each covered as asked: thresholds.py REPORT.json LINES BRANCHES (percent)."""

import json
import sys
from pathlib import Path


def main(report: str, *wanted: str) -> int:
    """Print both measures; 1 when one of them is too low."""
    totals = json.loads(Path(report).read_text())["totals"]
    measured = {
        "lines": 100 * totals["covered_lines"] / max(1, totals["num_statements"]),
        "branches": 100 * totals["covered_branches"] / max(1, totals["num_branches"]),
    }
    low = 0
    for (name, percent), least in zip(measured.items(), map(float, wanted), strict=True):
        sys.stdout.write(f"{name:<9}{percent:6.1f} %  (at least {least:g} %)\n")
        low |= percent < least
    return low


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
