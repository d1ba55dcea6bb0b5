"""The check of an archive against what was sent: `python -m tests.checker.check --ledger FILE --storage FOLDER`.

Shares no code with ssmd: the standard library, zstandard, and pycapnp on `schemas/`. Exit 0 when all is well, 1 with
findings.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.checker.merged import check_handovers
from tests.checker.model import NS_PER_S, Archive, Entry, Fault, Finding
from tests.checker.reading import read_archive, read_ledger
from tests.checker.rules import check_gaps, check_missing, match

RULES = {
    "I1": "each sent frame is archived or lies in a gap",
    "I2": "each frame is archived once",
    "I3": "order per connection and sid is the order sent",
    "I4": "every archived frame was sent, byte for byte",
    "I5": "gaps are honest",
    "I9": "objects and manifests agree",
    "N": "n is contiguous per connection",
    "T": "normalized trades equal the raw ones",
    "M": "two connections are merged once",
}
_SHOWN = 10


@dataclass(slots=True)
class Result:
    """Findings and what was counted on the way."""

    findings: list[Finding]
    ledger: dict[str, list[Entry]]
    archive: Archive
    missing: int = 0
    trades: int | None = None

    @property
    def rules(self) -> set[str]:
        """Ids of the broken rules."""
        return {finding.rule for finding in self.findings}

    def table(self) -> str:
        """The summary for people."""
        counts = Counter(finding.rule for finding in self.findings)
        sent = sum(len(entries) for entries in self.ledger.values())
        dropped = sum(entry.dropped for entries in self.ledger.values() for entry in entries)
        gap_s = sum(gap.to_ns - gap.from_ns for gap in self.archive.gaps) / NS_PER_S
        lines = [
            f"sent      {sent:>12,} frames on {len(self.ledger)} connections, {dropped:,} swallowed on purpose",
            f"archived  {self.archive.count:>12,} frames on {len(self.archive.records)} connections,"
            f" {self.archive.objects} objects, {self.archive.size:,} bytes",
            f"missing   {self.missing:>12,} frames; {len(self.archive.gaps)} gaps, {gap_s:.3f} s",
            f"trades    {'not checked' if self.trades is None else format(self.trades, ','):>12}",
            "",
        ]
        for rule, meaning in RULES.items():
            lines.append(f"  {'✗' if counts[rule] else '✓'} {rule:<3} {meaning:<52} {counts[rule] or ''}".rstrip())
        for rule in RULES:
            of_rule = [finding for finding in self.findings if finding.rule == rule]
            lines += [f"    {finding}" for finding in of_rule[:_SHOWN]]
            if len(of_rule) > _SHOWN:
                lines.append(f"    {rule}  … and {len(of_rule) - _SHOWN} more")
        return "\n".join(lines)


def check(
    ledgers: Sequence[Path],
    storage: Path,
    *,
    feed: str = "kalshi",
    faults: Sequence[Fault] | None = None,
    ignore_after_ns: int | None = None,
    schemas: Path | None = None,
    raw_bucket: str = "ssmd-raw",
    normalized_bucket: str = "ssmd-normalized",
) -> Result:
    """Check everything. `faults` None: gaps need no explanation; `schemas` None: trades are not compared."""
    ledger = read_ledger(ledgers)
    archive = read_archive(storage, feed, raw_bucket)
    found = match(ledger, archive)
    lost, useful = check_missing(found, archive.gaps, ignore_after_ns)
    findings = [*archive.findings, *found.findings, *lost, *check_gaps(found, archive, ledger, faults, useful)]
    result = Result(findings, ledger, archive, len(found.missing))
    if schemas is not None:
        from tests.checker.trades import check_trades  # pycapnp is needed for this part only

        wrong, result.trades = check_trades(archive, storage, feed, schemas, normalized_bucket)
        result.findings += wrong
        if archive.handovers:
            from tests.checker.quotes import check_quotes

            result.findings += check_handovers(archive)
            result.findings += check_quotes(archive, storage, feed, schemas, normalized_bucket)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Check an archive against the exchange's ledger.")
    parser.add_argument("--ledger", type=Path, nargs="+", required=True, help="what the exchange sent")
    parser.add_argument("--storage", type=Path, required=True, help="folder that holds ssmd-raw and ssmd-normalized")
    parser.add_argument("--feed", default="kalshi")
    parser.add_argument("--fault", nargs="*", metavar="START_NS:END_NS", help="faults; none given: gaps go unexplained")
    parser.add_argument("--ignore-after-ns", type=int, help="frames sent later need not be archived")
    parser.add_argument("--schemas", type=Path, help="folder with trade.capnp: compare the normalized trades as well")
    options = parser.parse_args(arguments)
    faults = None
    if options.fault is not None:
        faults = [Fault(int(start), int(end)) for start, _, end in (text.partition(":") for text in options.fault)]
    result = check(
        options.ledger,
        options.storage,
        feed=options.feed,
        faults=faults,
        ignore_after_ns=options.ignore_after_ns,
        schemas=options.schemas,
    )
    sys.stdout.write(result.table() + "\n")
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
