"""Feeds by name and date."""

from datetime import date, timedelta

import pytest

from ssmd.errors import ConfigError
from ssmd.feeds.catalogue import FEEDS, FIRST_DAY, Version, check_versions, open_feed
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.legacy import LegacyKalshiDecoder

DAY = date(2026, 3, 12)


def test_the_decoder_changes_on_the_day_the_integers_went() -> None:
    assert isinstance(open_feed("kalshi", DAY - timedelta(days=1)).decoder, LegacyKalshiDecoder)
    assert isinstance(open_feed("kalshi", DAY).decoder, KalshiDecoder)
    assert isinstance(open_feed("kalshi", date(2099, 1, 1)).decoder, KalshiDecoder)
    assert isinstance(open_feed("kalshi", FIRST_DAY).decoder, LegacyKalshiDecoder)


def test_a_misspelt_feed_gets_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'kalshi'") as caught:
        open_feed("kalhsi", DAY)
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="Known feeds: kalshi"):
        open_feed("nasdaq-totalview", DAY)


def test_a_day_before_the_exchange_began_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no message format"):
        open_feed("kalshi", FIRST_DAY - timedelta(days=1))


def test_each_connection_has_a_mapper_of_its_own_and_a_session_that_asks_for_its_stale_books() -> None:
    parts = open_feed("kalshi", DAY)
    mapper = parts.new_mapper("c-1")
    assert parts.new_mapper("c-2") is not mapper
    session = parts.new_session(mapper, wants=lambda ticker: False, channels=("orderbook_delta",))
    (command,) = session.start(["T"])
    assert b'"orderbook_delta"' in command
    frames = [
        b'{"type":"subscribed","id":1,"msg":{"channel":"orderbook_delta","sid":1}}',
        b'{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{"market_ticker":"T","market_id":"m"}}',
        b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"T","price":45}}',
    ]
    for frame in frames:
        decoded = parts.decoder.decode(frame)
        mapper.map(decoded, 1)
        assert session.receive(decoded, 1) == []
    (asked,) = session.tick(2)
    assert b'"get_snapshot"' in asked


def test_the_rest_client_belongs_to_the_feed() -> None:
    assert open_feed("kalshi", DAY).new_rest("http://127.0.0.1:1/trade-api/v2").malformed == 0


def _version(first: date, last: date | None) -> Version:
    return Version("v", first, last, KalshiDecoder)


@pytest.mark.parametrize(
    "versions",
    [
        [],
        [_version(DAY, DAY)],
        [_version(DAY, DAY), _version(DAY, None)],
        [_version(DAY, DAY), _version(DAY + timedelta(days=2), None)],
        [_version(DAY, None), _version(DAY + timedelta(days=1), None)],
        [_version(DAY, DAY - timedelta(days=1)), _version(DAY, None)],
    ],
)
def test_versions_with_holes_overlaps_or_an_end_are_refused(versions: list[Version]) -> None:
    with pytest.raises(ValueError, match="feed x"):
        check_versions("x", versions)


def test_all_listed_feeds_have_whole_histories() -> None:
    for name, versions in FEEDS.items():
        check_versions(name, versions)
