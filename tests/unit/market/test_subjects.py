"""Tickers as tokens: injective, reversible, harmless in subjects, paths and keys, or a DataError."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES
from ssmd.market.subjects import check_feed, decode_ticker, encode_ticker, parse_subject, stream_name, subject

CASES = json.loads((Path(__file__).parents[2] / "data/hostile_tickers.json").read_text())
VALID = [case for case in CASES if case["valid"]]
INVALID = [case for case in CASES if not case["valid"]]
SAFE = re.compile(r"[A-Za-z0-9_%][A-Za-z0-9_%-]*")


def name(case: dict[str, str]) -> str:
    return case["name"]


def test_at_least_forty_hostile_tickers_are_tried() -> None:
    assert len(CASES) >= 40
    assert len({case["ticker"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", VALID, ids=name)
def test_a_hostile_ticker_becomes_a_safe_token_and_comes_back(case: dict[str, str]) -> None:
    token = encode_ticker(case["ticker"])

    assert SAFE.fullmatch(token)
    assert decode_ticker(token) == case["ticker"]


@pytest.mark.parametrize("case", VALID, ids=name)
def test_a_hostile_ticker_stays_one_token_of_a_subject_and_comes_back(case: dict[str, str]) -> None:
    for event_type in EVENT_TYPES:
        text = subject("kalshi", event_type, case["ticker"])

        assert text.count(".") == 2
        assert parse_subject(text) == ("kalshi", event_type, case["ticker"])


@pytest.mark.parametrize("case", INVALID, ids=name)
def test_an_impossible_ticker_is_a_data_error(case: dict[str, str]) -> None:
    with pytest.raises(DataError):
        encode_ticker(case["ticker"])
    with pytest.raises(DataError):
        subject("kalshi", "trade", case["ticker"])


def test_no_two_hostile_tickers_share_a_token() -> None:
    tokens = [encode_ticker(case["ticker"]) for case in VALID]

    assert all(a != b for a, b in combinations(tokens, 2))


@given(st.text(max_size=140))
def test_any_text_is_reversible_or_a_data_error(ticker: str) -> None:
    try:
        token = encode_ticker(ticker)
    except DataError:
        raw = ticker.encode(errors="surrogatepass")
        assert not raw or len(raw) > 128 or raw.startswith(b"-")
        return

    assert SAFE.fullmatch(token)
    assert decode_ticker(token) == ticker


@given(st.text(alphabet="%ABab12-_.*> 0", max_size=12))
def test_a_token_that_decodes_is_the_only_token_of_its_ticker(token: str) -> None:
    try:
        ticker = decode_ticker(token)
    except DataError:
        return

    assert encode_ticker(ticker) == token


@pytest.mark.parametrize("token", ["", "a.b", "A%2e", "A%41", "A%", "%FF", "-A", "%2DA", "A B", "A" * 129, "A\n"])
def test_what_no_encoder_made_is_not_decoded(token: str) -> None:
    with pytest.raises(DataError):
        decode_ticker(token)


@pytest.mark.parametrize(
    "text",
    ["", "kalshi.trade", "kalshi.trade.A.B", "Kalshi.trade.A", "kalshi.trades.A", "kalshi.*.A", "kalshi.trade.>", ".."],
)
def test_what_is_no_subject_is_not_parsed(text: str) -> None:
    with pytest.raises(DataError):
        parse_subject(text)


@given(st.text(alphabet="kalshi.tredgp%2E*>AZ-", max_size=30))
def test_a_subject_that_parses_is_the_only_subject_of_its_parts(text: str) -> None:
    try:
        parts = parse_subject(text)
    except DataError:
        return

    assert subject(*parts) == text


@pytest.mark.parametrize("feed", ["", "Kalshi", "9x", "a.b", "a b", "-a", "a" * 33, "a\n", "é"])
def test_a_bad_feed_name_is_a_data_error_wherever_it_is_used(feed: str) -> None:
    with pytest.raises(DataError):
        check_feed(feed)
    with pytest.raises(DataError):
        stream_name(feed)
    with pytest.raises(DataError):
        subject(feed, "trade", "A")


def test_an_unknown_event_type_has_no_subject() -> None:
    with pytest.raises(DataError, match="not an event type"):
        subject("kalshi", "raw", "A")


def test_stream_names_follow_the_feed() -> None:
    assert stream_name("kalshi") == "ssmd-kalshi"


def test_an_error_shows_only_the_beginning_of_a_huge_ticker() -> None:
    with pytest.raises(DataError) as caught:
        encode_ticker("A" * 1_000_000)

    assert len(str(caught.value)) < 300
