"""Fixed-point strings against Decimal."""

from decimal import Decimal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ssmd.feeds.kalshi.fixedpoint import (
    INT64_MAX,
    INT64_MIN,
    BadValue,
    FixedPointCache,
    PriceCache,
    SizeCache,
    parse_fixed,
)

GRAMMAR = st.from_regex(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", fullmatch=True, alphabet="-.0123456789")


@given(GRAMMAR)
def test_every_number_of_the_grammar_is_exact_or_too_large(text: str) -> None:
    exact = Decimal(text) * 1_000_000
    assert exact == exact.to_integral_value()
    if INT64_MIN <= exact <= INT64_MAX:
        assert parse_fixed(text) == int(exact)
    else:
        with pytest.raises(BadValue):
            parse_fixed(text)


@given(st.integers(min_value=INT64_MIN, max_value=INT64_MAX))
def test_every_64_bit_count_of_millionths_can_be_said(value: int) -> None:
    sign = "-" if value < 0 else ""
    text = f"{sign}{abs(value) // 1_000_000}.{abs(value) % 1_000_000:06d}"
    assert parse_fixed(text) == value


@given(st.text(alphabet="0123456789.-+eE_ ,x٣\n", max_size=8))
def test_whatever_is_taken_means_the_same_to_decimal(text: str) -> None:
    try:
        value = parse_fixed(text)
    except BadValue:
        return
    assert Decimal(text) * 1_000_000 == value
    assert text.isascii()
    assert text == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", ".5", "1.", "+1", "1e3", "1E-2", "NaN", "Infinity", " 1", "1\n", "1.0000001", "1_000", "٣", "--1"],
)
def test_what_is_not_plain_fixed_point_is_refused(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_fixed(text, "bad_price")
    assert caught.value.problem == "bad_price"


def test_a_price_lies_between_nothing_and_one_dollar() -> None:
    prices = PriceCache()
    assert [prices["0"], prices["0.0000"], prices["-0.00"], prices["1.000000"]] == [0, 0, 0, 1_000_000]
    for text in ("1.000001", "-0.000001", "100"):
        with pytest.raises(BadValue, match="price_out_of_range"):
            _ = prices[text]


def test_a_size_is_not_negative_and_a_change_may_be() -> None:
    assert FixedPointCache("bad_size")["-9.12"] == -9_120_000
    with pytest.raises(BadValue, match="bad_size"):
        _ = SizeCache()["-0.01"]


@given(st.lists(GRAMMAR, max_size=40))
def test_a_small_cache_answers_like_no_cache_and_stays_small(texts: list[str]) -> None:
    cache = FixedPointCache("bad_size", limit=4)
    for text in texts:
        try:
            expected = parse_fixed(text)
        except BadValue:
            with pytest.raises(BadValue):
                _ = cache[text]
        else:
            assert cache[text] == expected
        assert len(cache) <= 4
