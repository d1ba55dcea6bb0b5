"""Recorded REST bodies of Kalshi: the markets, events and series in them, as they were sent."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ssmd.errors import ConfigError
from ssmd.simulator.source import Row

MAX_FILE_BYTES = 1 << 30
"""Of what a compressed file holds, too."""

_ENDINGS = (".json", ".json.gz")
_HINT = 'Give REST bodies like {"markets":[…]}, {"event":…,"markets":[…]} or {"series":…}, as .json or .gz'

log = structlog.get_logger()


@dataclass(slots=True)
class Objects:
    """Objects by ticker; of two about one thing the one updated later holds, else the one read later."""

    series: dict[str, Row] = field(default_factory=dict)
    events: dict[str, Row] = field(default_factory=dict)
    markets: dict[str, Row] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.series) + len(self.events) + len(self.markets)

    def take(self, body: object) -> int:
        """Take what a body holds, lists and nested markets included; how many objects that were."""
        if isinstance(body, list):
            return sum(self.take(each) for each in body)
        if not isinstance(body, dict):
            return 0
        if isinstance(body.get("response"), dict):  # a recorder's envelope
            return self.take(body["response"])
        found = 0
        for name, table, key, stamp in (
            ("series", self.series, "ticker", "last_updated_ts"),
            ("event", self.events, "event_ticker", "last_updated_ts"),
            ("market", self.markets, "ticker", "updated_time"),
        ):
            for row in _listed(body, name):
                if not isinstance(row.get(key), str) or not row[key]:
                    continue
                if name == "event":
                    found += self.take({"markets": row.get("markets")})
                    row = {field: value for field, value in row.items() if field != "markets"}
                _keep(table, row[key], row, stamp)
                found += 1
        return found


def _listed(body: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The objects under `name` and its plural, one or a list of them."""
    for key in dict.fromkeys((name, name if name == "series" else f"{name}s")):
        value = body.get(key)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield each


def _keep(table: dict[str, Row], name: str, row: Row, stamp: str) -> None:
    old = table.get(name)
    if old is None or str(row.get(stamp) or "") >= str(old.get(stamp) or ""):
        table[name] = row


def read_objects(paths: Iterable[Path]) -> Objects:
    """The objects of files and of all `.json` and `.json.gz` files below folders. ConfigError when one is no JSON.

    Bodies of other pages (candlesticks, trades) are passed over; a path without any object is a ConfigError.
    """
    objects = Objects()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.name.endswith(_ENDINGS)) if path.is_dir() else [path]
        found = sum(objects.take(_body(file)) for file in files)
        if not found:
            raise ConfigError(f"there are no markets, events or series in {path} ({len(files)} files)", _HINT)
        log.info("objects read", path=str(path), files=len(files), objects=found)
    return objects


def _body(file: Path) -> object:
    try:
        with file.open("rb") as opened:
            packed = opened.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{file} holds more than {MAX_FILE_BYTES >> 20} MiB", "Split it.")
        return msgspec.json.decode(content)
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"cannot read recorded objects from {file}: {error}", _HINT) from error
