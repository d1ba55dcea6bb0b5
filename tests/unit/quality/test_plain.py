"""Whatever the libraries hold becomes JSON, and what JSON has stays what it is."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.quality.plain import plain


class Colour(Enum):
    RED = np.float64(1)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=9), st.decimals(),
    st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.uuids(), st.complex_numbers(),
    st.sampled_from((pd.NA, pd.NaT, Colour.RED, np.datetime64("NaT"), np.timedelta64(5, "ns"), object(), int)),
    st.floats().map(np.float64), st.floats(width=32).map(np.float32), st.booleans().map(np.bool_),
    st.integers(-(1 << 63), (1 << 63) - 1).map(np.int64), st.integers(0, (1 << 64) - 1).map(np.uint64),
    st.text().map(np.str_), st.binary(max_size=9).map(np.bytes_),
    st.integers(-(1 << 62), 1 << 62).map(pd.Timestamp), st.integers(-(1 << 62), 1 << 62).map(pd.Timedelta),
)  # fmt: skip
ARRAYS = st.lists(st.floats() | st.integers(-9, 9), max_size=4).flatmap(
    lambda some: st.sampled_from((np.array(some), pd.Series(some), pd.Index(some), np.array(len(some)), pd.array(some)))
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda some: st.one_of(
        st.lists(some, max_size=3), st.lists(some, max_size=3).map(tuple), st.dictionaries(st.text(), some, max_size=3),
        st.frozensets(st.integers() | st.text(), max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip


def only_json(value: Any) -> bool:
    """Exactly the types of JSON, none of their subclasses."""
    if type(value) is dict:
        return all(type(name) is str and only_json(item) for name, item in value.items())
    return all(map(only_json, value)) if type(value) is list else type(value) in (type(None), bool, int, float, str)


@given(VALUES)
def test_every_value_becomes_json_that_comes_back_the_same(value: Any) -> None:
    simple = plain(value)

    assert only_json(simple)
    assert msgspec.json.decode(msgspec.json.encode(simple)) == simple
    assert json.loads(json.dumps(simple, allow_nan=False)) == simple


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXT, some),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_json_stays_what_it_is(value: Any) -> None:
    assert plain(value) == value


@pytest.mark.parametrize(
    ("value", "simple"),
    [
        (np.float64("nan"), None), (Decimal("NaN"), None), (pd.NaT, None), (pd.NA, None), (np.datetime64("NaT"), None),
        (np.float64("inf"), "inf"), (1 << 64, "18446744073709551616"), (np.uint64((1 << 64) - 1), (1 << 64) - 1),
        (Decimal("0.10"), "0.10"), (np.bool_(False), False), (b"\xff", "\\xff"), ("\ud800", "\\ud800"),
        (pd.Timestamp(1, tz="UTC"), "1970-01-01T00:00:00.000000001+00:00"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"), (Colour.RED, 1.0),
        ((np.int64(1), np.array([2.5])), [1, [2.5]]), ({np.int64(1): {3, 2}}, {"1": [2, 3]}),
    ],
)  # fmt: skip
def test_what_becomes_of(value: Any, simple: Any) -> None:
    assert plain(value) == simple
    assert type(plain(value)) is type(simple)
