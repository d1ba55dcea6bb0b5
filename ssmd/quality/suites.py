"""The suites in `expectations/`: what a good day looks like, as JSON that Great Expectations judges by."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ssmd.errors import ConfigError
from ssmd.nearest import did_you_mean
from ssmd.quality.outcome import Severity
from ssmd.resources import resource

BATCHES = {
    "trade": "rows of the Parquet export, with latency_s, seq_step, received_step_s, same_id_before",
    "orderbook": "rows of the Parquet export, with crossed, level_price_min, level_price_max, level_size_min, …",
    "ticker": "rows of the Parquet export, with spread, …",
    "status": "rows of the Parquet export",
    **dict.fromkeys(
        ("trade_objects", "orderbook_objects", "ticker_objects", "status_objects"),
        "a row for each normalized object: is it there, what its manifest says, what its row says",
    ),
    "raw_objects": "a row for each raw object: what its manifest and its row say, what a recount gave",
    "raw_connections": "a row for each connection: frames, and numbers that are missing or there twice",
    "raw_sequences": "a row for each subscription: the exchange's numbers that are missing or there twice",
    "raw_problems": "a row for each kind of frame that could not be understood or used",
    "raw_types": "a row for each type of frame: how many there are, and the share of those not understood",
    "raw_trades": "a row for each market: different trades in the raw archive beside the normalized ones",
    "gaps": "a row for each recorded gap that touches the day",
    "capture": "one row: how long capture ran or should have, and how much of that was lost",
    "markets": "the security master's rows (asked of PostgreSQL where there is one)",
    "coverage": "a row for each market that is listed and active, or was heard",
    "volume": "a row for each market that was compared with the exchange's own list of trades",
    "drift": "a row for each figure of the day beside that of the archived day before it",
}
"""What an expectation may be about: the name of its batch, and what is in it."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence about a batch: `type` and `kwargs` in Great Expectations' words, `meaning` in ours."""

    type: str
    batch: str
    meaning: str
    severity: Severity
    kwargs: dict[str, Any] = {}
    issue: str = "inconsistent"
    """The issue type under which a failure is recorded (`registry.values.ISSUE_TYPES`)."""
    counts: str = ""
    """The column that says how many records of the archive a row that fails stands for; "": one each."""

    @property
    def column(self) -> str:
        """The column it is about; of a pair both; "" when it is about the whole table."""
        pair = [self.kwargs[name] for name in ("column_A", "column_B") if name in self.kwargs]
        return str(self.kwargs.get("column", ", ".join(map(str, pair))))


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of `expectations/`."""

    name: str
    title: str
    expectations: list[Expectation]

    def of(self, batch: str) -> list[Expectation]:
        """Those about a batch."""
        return [expectation for expectation in self.expectations if expectation.batch == batch]

    @property
    def in_order(self) -> list[Expectation]:
        """All, batch by batch: the order in which they are judged."""
        return [expectation for batch in self.batches for expectation in self.of(batch)]

    @property
    def batches(self) -> list[str]:
        """The batches it looks at, in the order in which they are named."""
        return list(dict.fromkeys(expectation.batch for expectation in self.expectations))


def load_suites(folder: Path | None = None) -> list[Suite]:
    """All suites, by name. ConfigError for a file that is none."""
    files = sorted((folder or resource("expectations")).glob("*.json"))
    return [_load(file) for file in files]


def choose_suites(suites: Sequence[Suite], names: Sequence[str]) -> list[Suite]:
    """The suites of these names (all for none); ConfigError with the nearest name for one that is not there."""
    known = {suite.name: suite for suite in suites}
    for name in names:
        if name not in known:
            otherwise = f"Known suites: {', '.join(known) or 'none'}."
            raise ConfigError(f"there is no suite {name[:80]!r}", did_you_mean(name, known, otherwise))
    return [known[name] for name in dict.fromkeys(names)] if names else list(suites)


def _load(file: Path) -> Suite:
    try:
        suite = msgspec.json.decode(file.read_bytes(), type=Suite)
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(f"{file.name} is no suite of expectations: {error}", "See: expectations/README.md") from error
    if suite.name != file.stem or not _NAME.fullmatch(suite.name):
        raise ConfigError(f"{file.name}: the suite is named {suite.name[:80]!r}", "Name it like its file.")
    for expectation in suite.expectations:
        if expectation.batch not in BATCHES:
            otherwise = f"Known batches: {', '.join(BATCHES)}."
            hint = did_you_mean(expectation.batch, BATCHES, otherwise)
            raise ConfigError(f"{file.name}: there is no batch {expectation.batch[:80]!r}", hint)
    return suite
