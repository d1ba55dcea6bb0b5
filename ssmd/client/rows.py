"""Rows of an answer, page after page, and as a table of polars, pandas or Arrow."""

import importlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints, overload

import msgspec

from ssmd.client.documents import Missing
from ssmd.client.events import moment
from ssmd.errors import ConfigError

SCALE = 6
PLAIN_DIGITS, ALL_DIGITS = 18, 38
"""Digits of a decimal column: with the first, a price times a size still fits into Arrow's 38."""

T = TypeVar("T", bound=msgspec.Struct)


class Column(NamedTuple):
    """A column of a table: `kind` is time, decimal, whole, flag or text."""

    name: str
    kind: str


class Rows(Sequence[T], Generic[T]):
    """Rows in order, frozen and exact.

    `complete`: nothing is known to be missing in the time that they cover; `missing` is what is, with reasons.
    Tables have a column `time` (UTC, milliseconds) in place of `ts`.
    """

    def __init__(self, row_type: type[T], rows: Sequence[T], *, missing: Sequence[Missing], complete: bool) -> None:
        self._type = row_type
        self._rows = list(rows)
        self.missing = list(missing)
        self.complete = complete

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> "Rows[T]": ...

    def __getitem__(self, index: int | slice) -> "T | Rows[T]":
        if isinstance(index, slice):
            return Rows(self._type, self._rows[index], missing=self.missing, complete=self.complete)
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self._rows)

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.missing)} parts missing: see .missing"
        return f"<{len(self)} rows of {self._type.__name__}, {state}>"

    def to_list(self) -> list[T]:
        """The rows as a list."""
        return list(self._rows)

    def to_polars(self, *, exact: bool = True) -> Any:
        """A polars DataFrame: decimals are `Decimal` columns, exact to the last digit; without `exact`, floats."""
        polars = _library("polars")
        columns, data = self._columns(exact)
        types = {
            "time": polars.Datetime("ms", "UTC"), "whole": polars.Int64, "flag": polars.Boolean, "text": polars.String,
            "decimal": polars.Decimal(self._digits(), SCALE) if exact else polars.Float64,
        }  # fmt: skip
        return polars.DataFrame(data, schema={column.name: types[column.kind] for column in columns})

    def to_arrow(self, *, exact: bool = True) -> Any:
        """A pyarrow Table: decimals are `decimal128` columns, exact to the last digit; without `exact`, floats."""
        arrow = _library("pyarrow")
        columns, data = self._columns(exact)
        types = {
            "time": arrow.timestamp("ms", "UTC"), "whole": arrow.int64(), "flag": arrow.bool_(), "text": arrow.string(),
            "decimal": arrow.decimal128(self._digits(), SCALE) if exact else arrow.float64(),
        }  # fmt: skip
        return arrow.table(data, schema=arrow.schema([(column.name, types[column.kind]) for column in columns]))

    def to_pandas(self, *, exact: bool = True) -> Any:
        """A pandas DataFrame: decimals are Arrow's `decimal128`, exact; without `exact`, floats (NumPy's)."""
        pandas = _library("pandas")
        table = self.to_arrow(exact=exact)
        if not exact:
            return table.to_pandas()
        decimal = _library("pyarrow").types.is_decimal
        return table.to_pandas(types_mapper=lambda kind: pandas.ArrowDtype(kind) if decimal(kind) else None)

    def _columns(self, exact: bool) -> tuple[list[Column], dict[str, list[Any]]]:
        columns: list[Column] = []
        data: dict[str, list[Any]] = {}
        for field, hint in get_type_hints(self._type).items():
            kind = _kind(hint)
            if field in ("seq", "links") or not kind:
                continue
            values = [getattr(row, field) for row in self._rows]
            if field == "ts":
                field, kind, values = "time", "time", [moment(value) for value in values]
            elif kind == "decimal" and not exact:
                values = [None if value is None else float(value) for value in values]
            columns.append(Column(field, kind))
            data[field] = values
        columns.sort(key=lambda column: column.name != "time")
        return columns, {column.name: data[column.name] for column in columns}

    def _digits(self) -> int:
        """How many digits the decimal columns need."""
        limit = Decimal(10) ** (PLAIN_DIGITS - SCALE)
        values = (value for row in self._rows for value in msgspec.structs.astuple(row) if isinstance(value, Decimal))
        return ALL_DIGITS if any(abs(value) >= limit for value in values) else PLAIN_DIGITS


def _kind(hint: Any) -> str:
    parts = set(get_args(hint)) - {type(None)} if isinstance(hint, UnionType) else {hint}
    if len(parts) != 1:
        return ""
    plain = {Decimal: "decimal", int: "whole", bool: "flag", str: "text", datetime: "time"}
    return plain.get(next(iter(parts)), "text")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"{name} is not installed", "Run: pip install 'ssmd[analytics]'") from None


def windows(start: datetime, end: datetime | None, days: int) -> list[tuple[datetime, datetime | None]]:
    """A range in pieces of at most `days`; `end` None: now, and the last piece has no end."""
    found: list[tuple[datetime, datetime | None]] = []
    last = end or datetime.now(UTC)
    while last - start > timedelta(days=days):
        found.append((start, start + timedelta(days=days)))
        start += timedelta(days=days)
    return [*found, (start, end)]
