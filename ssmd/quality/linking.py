"""From a failing row to its evidence: the raw object that its frame lies in, and the recorded gap that touches it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ssmd.archive.layout import RawObject
from ssmd.archive.manifest import Manifest
from ssmd.clock import NS_PER_S
from ssmd.quality.gaps import KnownGap
from ssmd.quality.judge import shown
from ssmd.quality.outcome import Sample

NEAR_NS = NS_PER_S
"""A gap that ended or began so near a row concerns it."""
_GROUPS = {"trade": "trades", "orderbook": "orderbook", "ticker": "ticker", "status": "lifecycle"}


class Linker:
    """Finds evidence in the manifests of a day and its gaps."""

    def __init__(self, manifests: Mapping[RawObject, Manifest], gaps: Sequence[KnownGap]) -> None:
        self._manifests = sorted(manifests.items())
        self._gaps = gaps

    def sample(self, batch: str, row: dict[str, Any]) -> Sample:
        """A row of a batch with what can be found of it."""
        if batch == "gaps":
            return Sample(values=shown(row), gap_key=str(row.get("key") or ""))
        if batch.endswith("_objects") and batch != "raw_objects":
            return Sample(values=shown(row))  # of the normalized archive
        if batch in ("raw_objects", "raw_problems"):
            return Sample(values=shown(row), raw_key=str(row.get("key") or ""))
        if batch == "raw_connections":
            return Sample(values=shown(row), raw_key=self._of_number(row))
        if batch == "raw_sequences":
            gap = self._gap(row.get("connection"), row.get("sid"), _integer(row, "first_ns"), _integer(row, "last_ns"))
            return Sample(values=shown(row), gap_key=gap)
        at = _nanoseconds(row.get("received_time"))
        if at is None:
            return Sample(values=shown(row))
        raw = self._of_time(_GROUPS.get(batch, ""), row.get("connection"), at)
        gap = self._gap(row.get("connection"), row.get("sid"), at - NEAR_NS, at + NEAR_NS)
        return Sample(values=shown(row), raw_key=raw, gap_key=gap)

    def _of_time(self, group: str, connection: object, at: int) -> str:
        for its, manifest in self._manifests:
            if (
                its.group == group
                and connection in manifest.connections
                and manifest.first_ns <= at <= manifest.last_ns
            ):
                return its.key
        return ""

    def _of_number(self, row: dict[str, Any]) -> str:
        """The object around the first number that is missing."""
        first = str(row.get("missing_numbers") or "").partition(",")[0].partition("-")[0]
        if not first.isdigit():
            return ""
        before = int(first) - 1
        for its, manifest in self._manifests:
            numbers = manifest.connections.get(str(row.get("connection")))
            if numbers is not None and numbers.first_n <= before <= numbers.last_n:
                return its.key
        return ""

    def _gap(self, connection: object, sid: object, first: int, last: int) -> str:
        for its in self._gaps:
            gap = its.gap
            concerns = gap.connection in (connection, "") and gap.sid in (None, sid)
            if its.key and concerns and gap.from_ns <= last and gap.to_ns >= first:
                return its.key
        return ""


def _integer(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    return int(value) if value is not None else 0


def _nanoseconds(value: object) -> int | None:
    return int(value.value) if isinstance(value, pd.Timestamp) and not pd.isna(value) else None
