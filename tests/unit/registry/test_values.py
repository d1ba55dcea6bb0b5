"""Values that PostgreSQL would refuse are replaced, and nothing else is."""

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.errors import ConfigError
from ssmd.market.events import Gap
from ssmd.registry.bootstrap import KNOWN_FEEDS
from ssmd.registry.db import open_engine, parse
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.values import (
    bigint,
    gap_days,
    json_value,
    moment,
    printable,
    storable,
    storage_path,
    stored_gap,
    symbol_count,
    touches,
    written,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
)


@given(st.text(st.characters()))
def test_text_is_storable_and_ordinary_text_is_unchanged(text: str) -> None:
    stored = storable(text)
    assert "\x00" not in stored
    stored.encode()
    assert len(stored) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(stored, text, strict=True))
    assert len(printable(stored)) == len(text)


@given(ANYTHING)
def test_json_is_storable(value: object) -> None:
    text = json.dumps(json_value(value), allow_nan=False)
    assert "\\u0000" not in text
    json.loads(text)


def test_text_for_people_holds_no_terminal_sequences_or_direction_marks() -> None:
    assert printable("a\x1b[31mb\u202ec\nd\te") == "a\ufffd[31mb\ufffdc\nd\te"


@given(st.integers())
def test_integers_fit_a_bigint(number: int) -> None:
    kept = bigint(number)
    assert kept is not None
    assert -(2**63) <= kept < 2**63
    assert kept == number or abs(number) >= 2**63


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-09-25T19:00:00Z", "2026-09-25T19:00:00Z"),
        ("2026-09-25T19:00:08.16622Z", "2026-09-25T19:00:08.166220Z"),
        ("2026-09-25T19:00:08.123456789Z", "2026-09-25T19:00:08.123456Z"),
        ("2026-09-25T15:00:00-04:00", "2026-09-25T19:00:00Z"),
        ("2026-09-25T19:00:00", "2026-09-25T19:00:00Z"),
        ("0001-01-01T00:00:00Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59-14:00", None),
        ("soon", None),
        ("", None),
        (None, None),
        (17, None),
    ],
)
def test_exchange_times_are_read_or_none(text: object, time: str | None) -> None:
    assert written(moment(text)) == time


@given(st.integers(0, 3 * NS_PER_DAY), st.integers(0, 3 * NS_PER_DAY))
def test_a_gap_touches_exactly_its_days(start: int, length: int) -> None:
    origin = day_start_ns(date(2026, 11, 22))
    gap = stored_gap(Gap("kalshi", "c", None, origin + start, origin + start + length, "silence"))
    first, last = gap_days(gap)
    days = [day_start_ns(date(2026, 11, 20)) + n * NS_PER_DAY for n in range(12)]
    touched = [day for day in days if touches(gap, day, day + NS_PER_DAY)]
    assert touched == [day for day in days if day_start_ns(first) <= day <= day_start_ns(last)]


def test_a_days_symbols_and_place_come_from_its_objects() -> None:
    def made(key: str, symbols: int | None) -> ObjectRecord:
        return ObjectRecord("b", key, "normalized", "trade", date(2026, 1, 2), "0" * 64, 1, 1, 1, 1, "v1", symbols)

    compacted = [
        made(f"kalshi/v1/{kind}/2026/01/02/{t}/data.capnp.zst", 1) for kind in ("trade", "ticker") for t in "AB"
    ]
    assert symbol_count(compacted) == 2
    assert symbol_count([*compacted, made("kalshi/v1/trade/2026/01/02/_segments/x.capnp.zst", 9)]) == 9
    assert symbol_count([made("x", None)]) is None
    assert symbol_count([]) is None
    assert storage_path("kalshi", compacted[0]) == "b/kalshi/v1/*/2026/01/02/"


def test_the_versions_of_every_known_feed_follow_each_other_without_hole_or_overlap() -> None:
    for feed in KNOWN_FEEDS:
        for before, after in zip(feed.versions, feed.versions[1:], strict=False):
            assert before.effective_to is not None
            assert after.effective_from == before.effective_to
        assert feed.versions[-1].effective_to is None


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://u@h/d", "postgresql+psycopg2://u@h", "sqlite:///x", "$key:postgres"]
)
def test_another_kind_of_url_is_refused_before_anything_is_opened(url: str) -> None:
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg2://"):
        open_engine(url)


def test_the_password_of_a_refused_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        parse("mysql://u:hunter2@h/d")
    assert "hunter2" not in str(refused.value)
