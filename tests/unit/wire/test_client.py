"""Gateway JSON: golden messages, exact numbers, escaped texts; requests are followed or answered with a code."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import DataError
from ssmd.market.events import Event, Gap, MarketStatus, OrderBookUpdate, Quote, Trade
from ssmd.wire import client
from ssmd.wire.client import event_body
from ssmd.wire.requests import (
    ACTIONS,
    CHANNELS,
    HINTS,
    MAX_REQUEST_BYTES,
    MAX_SYMBOLS,
    Request,
    RequestError,
    parse_request,
)
from tests.unit.wire.reference import SAMPLES
from tests.unit.wire.strategies import events, int64

GOLDEN = Path(__file__).parents[2] / "data/golden/client"
TRADE = SAMPLES["trade"]
HOSTILE = [
    case["ticker"]
    for case in json.loads((Path(__file__).parents[2] / "data/hostile_tickers.json").read_text())
    if case["name"] != "lone surrogate"
]


def message(event: Event) -> bytes:
    return b'{"seq":1,' + event_body(event, "kalshi")


def exact(data: bytes) -> dict[str, Any]:
    found = json.loads(data, parse_float=Decimal, parse_int=Decimal)
    assert isinstance(found, dict)
    return found


def decimal(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(-6)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_a_message_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name.replace(',', '').replace(' ', '_')}.json"

    assert message(SAMPLES[name]) == path.read_bytes().rstrip(b"\n")


def test_every_golden_message_is_compared() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {name.replace(",", "").replace(" ", "_") for name in SAMPLES}


@given(events)
@settings(max_examples=300)
def test_every_number_is_exact_and_every_text_whole(event: Event) -> None:
    found = exact(message(event))

    assert found["seq"] == 1
    match event:
        case Trade():
            assert (found["price"], found["size"]) == (decimal(event.price), decimal(event.size))
            assert (found["ticker"], found["trade_id"]) == (event.ticker, event.trade_id)
            assert found.get("block", False) is event.block
        case OrderBookUpdate():
            assert found["bids"] == [[decimal(price), decimal(size)] for price, size in event.bids]
            assert found["asks"] == [[decimal(price), decimal(size)] for price, size in event.asks]
        case Quote():
            for name in ("bid", "bid_size", "ask", "ask_size", "last", "last_size", "volume", "open_interest"):
                assert found[name] == decimal(getattr(event, name))
        case MarketStatus():
            value = event.settlement_value
            assert found["settlement_value"] == (None if value is None else decimal(value))
            assert found["result"] == (event.result or None)
        case Gap():
            assert found["from_ts"] * 1_000_000 <= event.from_ns
            assert found["to_ts"] * 1_000_000 >= event.to_ns
            assert found["tickers"] == (None if event.tickers is None else list(event.tickers))
            assert found["feed"] == event.feed
    if not isinstance(event, Gap):
        assert found["ts"] == (event.exchange_ns or event.received_ns) // 1_000_000


@given(int64)
def test_a_number_has_no_exponent_no_needless_zero_and_no_float(value: int) -> None:
    text = event_body(msgspec.structs.replace(TRADE, price=value), "kalshi").split(b'"price":')[1].split(b",")[0]

    assert set(text) <= set(b"-.0123456789")
    assert not (b"." in text and text.endswith((b"0", b".")))
    assert Decimal(text.decode()) == decimal(value)


@pytest.mark.parametrize(
    ("millionths", "text"),
    [
        (450_000, b"0.45"),
        (10_000_000, b"10"),
        (9_850_000, b"9.85"),
        (1, b"0.000001"),
        (-1, b"-0.000001"),
        (-1_500_000, b"-1.5"),
        (0, b"0"),
        (100_000_000_000, b"100000"),
    ],
    ids=lambda value: str(value),
)
def test_decimals_are_printed_short(millionths: int, text: bytes) -> None:
    assert b'"price":' + text + b"," in event_body(msgspec.structs.replace(TRADE, price=millionths), "kalshi")


@pytest.mark.parametrize("ticker", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_a_hostile_ticker_stays_inside_its_text(ticker: str) -> None:
    for name in ("trade", "snapshot", "quote", "opened"):
        data = message(msgspec.structs.replace(SAMPLES[name], ticker=ticker))

        assert json.loads(data)["ticker"] == ticker
        assert b"\n" not in data
        assert b"\r" not in data


def test_text_that_is_not_unicode_is_a_data_error() -> None:
    for change in ({"ticker": "A\ud800"}, {"trade_id": "\udfff"}):
        with pytest.raises(DataError, match="not valid Unicode"):
            event_body(msgspec.structs.replace(TRADE, **change), "kalshi")


def test_two_feeds_do_not_share_a_cached_beginning() -> None:
    assert json.loads(b"{" + event_body(TRADE, "one"))["feed"] == "one"
    assert json.loads(b"{" + event_body(TRADE, "two"))["feed"] == "two"


# --- requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (b'{"action":"subscribe","symbols":["A","B"]}', Request("subscribe", ("A", "B"))),
        (b'{"action": "subscribe", "symbols": ["INXD-25-B4000"]}', Request("subscribe", ("INXD-25-B4000",))),
        (b'{"symbols":["*"],"action":"subscribe","id":7}', Request("subscribe", ("*",), 7)),
        (b'{"action":"unsubscribe","symbols":["A","A"],"id":"x"}', Request("unsubscribe", ("A",), "x")),
        (b'{"action":"snapshot","symbols":["A.B"]}', Request("snapshot", ("A.B",))),
        (b'{"action":"subscribe","symbols":["A"],"mode":"realtime"}', Request("subscribe", ("A",), mode="realtime")),
        (
            b'{"action":"subscribe","symbols":["A"],"channels":["ticker","trade"],"mode":"conflated","interval_ms":500}',
            Request("subscribe", ("A",), None, ("trade", "ticker"), "conflated", 500),
        ),
        (
            b'{"action":"subscribe","symbols":["A"],"mode":"conflated"}',
            Request("subscribe", ("A",), mode="conflated", interval_ms=100),
        ),
        (b'{"action":"subscribe","symbols":["A"],"from_seq":9,"x":1}', Request("subscribe", ("A",), from_seq=9)),
        (b'{"action":"snapshot"}', Request("snapshot")),
        (b'{"action":"query","natural_language":"BTC?"}', Request("query", natural_language="BTC?")),
        (b'{"action":"ping"}', Request("ping")),
        ('{"action":"ping","id":null}', Request("ping")),
    ],
    ids=str,
)
def test_a_request_is_understood(data: bytes | str, request_: Request) -> None:
    assert parse_request(data) == request_


def subscribe(**fields: Any) -> bytes:
    return json.dumps({"action": "subscribe", "symbols": ["A"]} | fields).encode()


BAD_REQUESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "bad_json"),
    "not JSON": (b"hello", "bad_json"),
    "two objects": (b"{}{}", "bad_json"),
    "invalid UTF-8": (b'{"action":"\xff"}', "bad_json"),
    "lone surrogate": (rb'{"action":"subscribe","symbols":["\ud800"]}', "bad_json"),
    "deeply nested": (b"[" * 60_000, "bad_json"),
    "too large": (b" " * (MAX_REQUEST_BYTES + 1), "too_large"),
    "a list": (b"[]", "bad_request"),
    "a number": (b"1", "bad_request"),
    "no action": (b"{}", "unknown_action"),
    "other action": (subscribe(action="buy"), "unknown_action"),
    "action is a list": (subscribe(action=["subscribe"]), "unknown_action"),
    "other mode": (subscribe(mode="warp"), "unknown_mode"),
    "mode is a list": (subscribe(mode=[]), "unknown_mode"),
    "id is a list": (subscribe(id=[1]), "bad_id"),
    "id is true": (subscribe(id=True), "bad_id"),
    "id is a fraction": (subscribe(id=1.5), "bad_id"),
    "id is long": (subscribe(id="x" * 65), "bad_id"),
    "id is huge": (subscribe(id=10**30), "bad_id"),
    "no symbols": (b'{"action":"subscribe"}', "bad_symbols"),
    "empty symbols": (subscribe(symbols=[]), "bad_symbols"),
    "symbols is a text": (subscribe(symbols="A"), "bad_symbols"),
    "a symbol is a number": (subscribe(symbols=["A", 1]), "bad_symbols"),
    "too many symbols": (subscribe(symbols=[str(index) for index in range(MAX_SYMBOLS + 1)]), "too_many_symbols"),
    "empty symbol": (subscribe(symbols=[""]), "bad_symbol"),
    "long symbol": (subscribe(symbols=["A" * 129]), "bad_symbol"),
    "minus symbol": (subscribe(symbols=["--help"]), "bad_symbol"),
    "interval without mode": (subscribe(interval_ms=100), "bad_interval"),
    "interval in latest": (subscribe(mode="latest", interval_ms=100), "bad_interval"),
    "interval too short": (subscribe(mode="conflated", interval_ms=9), "bad_interval"),
    "interval too long": (subscribe(mode="conflated", interval_ms=60_001), "bad_interval"),
    "interval is a text": (subscribe(mode="conflated", interval_ms="100"), "bad_interval"),
    "no channel": (subscribe(channels=[]), "bad_channels"),
    "other channel": (subscribe(channels=["trade", "trades"]), "bad_channels"),
    "a channel is a list": (subscribe(channels=[["trade"]]), "bad_channels"),
    "negative from_seq": (subscribe(from_seq=-1), "bad_from_seq"),
    "from_seq is a text": (subscribe(from_seq="1"), "bad_from_seq"),
    "from_seq is huge": (subscribe(from_seq=10**19), "bad_from_seq"),
    "mistyped field": (b'{"action":"subscribe","symbol":["A"]}', "unknown_field"),
    "no question": (b'{"action":"query"}', "bad_question"),
    "blank question": (b'{"action":"query","natural_language":" "}', "bad_question"),
    "long question": (b'{"action":"query","natural_language":"' + b"x" * 1001 + b'"}', "bad_question"),
    "snapshot of all": (subscribe(action="snapshot", symbols=["*"]), "bad_symbol"),
}


@pytest.mark.parametrize(("data", "code"), list(BAD_REQUESTS.values()), ids=list(BAD_REQUESTS))
def test_a_bad_request_is_an_error_with_a_code(data: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(data)

    assert caught.value.code == code
    assert isinstance(caught.value, DataError)
    assert len(caught.value.message) < 400
    assert caught.value.next


def test_the_error_of_a_bad_request_remembers_its_id() -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(subscribe(symbols=[], id="mine"))

    assert caught.value.id == "mine"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"action": subscribe}', "this is not JSON: look at byte 12"),
        (b'{"action":"ping"', "this is not JSON"),
        (b'{"action":"\xff"}', "this is not JSON"),
        (b"[" * 60_000, "this is not JSON"),
        (subscribe(symbols=["A", "", None]), "symbol 2 of 3"),
        (subscribe(symbols=["A", None]), "symbol 2 of 2 is null, not a text"),
        (subscribe(symbols=["A", ["B"]]), "symbol 2 of 2 is a list, not a text"),
    ],
)
def test_an_error_says_where_in_words_of_its_own(data: bytes, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(data)
    assert said in caught.value.message
    assert "malformed" not in caught.value.message


def test_a_whole_number_may_have_a_point() -> None:
    """It is an integer to JSON Schema, by which clients check."""
    request = parse_request(subscribe(mode="conflated", interval_ms=250.0, from_seq=7.0))
    assert (request.interval_ms, request.from_seq) == (250, 7)
    assert type(request.interval_ms) is type(request.from_seq) is int


@given(st.binary(max_size=200))
def test_random_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(RequestError):
        parse_request(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "action": st.sampled_from(ACTIONS) | json_values,
            "symbols": st.lists(st.text(max_size=5), max_size=4) | json_values,
            "mode": st.sampled_from(["realtime", "conflated"]) | json_values,
            "interval_ms": st.integers(0, 200) | json_values,
            "channels": st.lists(st.sampled_from(CHANNELS)) | json_values,
            "from_seq": json_values,
            "natural_language": json_values,
            "id": json_values,
        },
    )
)
def test_any_object_is_a_request_or_a_request_error(fields: dict[str, Any]) -> None:
    try:
        found = parse_request(json.dumps(fields))
    except RequestError:
        return

    assert found.action == fields["action"]
    assert all(symbol in (fields.get("symbols") or ()) for symbol in found.symbols)


# --- what the gateway says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (
            client.subscribed({"A": CHANNELS, 'B"': CHANNELS}, 3, ["A"], 7),
            {
                "type": "subscribed",
                "symbols": ["A", 'B"'],
                "channels": [*CHANNELS],
                "mode": "realtime",
                "seq": 3,
                "unknown": ["A"],
                "id": 7,
            },
        ),
        (
            client.subscribed({"*": ["trade"], "A": ["status"]}, 0, mode="conflated", interval_ms=100, resumed=False),
            {
                "type": "subscribed",
                "symbols": ["*", "A"],
                "channels": ["trade", "status"],
                "channels_of": {"*": ["trade"], "A": ["status"]},
                "mode": "conflated",
                "interval_ms": 100,
                "resumed": False,
                "seq": 0,
                "unknown": [],
            },
        ),
        (client.unsubscribed({}, 9, "x"), {"type": "unsubscribed", "symbols": [], "channels": [], "seq": 9, "id": "x"}),
        (
            client.error("bad_json", "no\n", next="do it"),
            {"type": "error", "code": "bad_json", "message": "no\n", "next": "do it"},
        ),
        (
            client.error("no_book", "no"),
            {"type": "error", "code": "no_book", "message": "no", "next": HINTS["no_book"]},
        ),
        (
            client.resume_failed(4, 9),
            {
                "type": "gap",
                "code": "RESUME_FAILED",
                "reason": "not_kept",
                "from": 4,
                "to": 9,
                "message": "what was sent since is not kept any more; the whole books follow",
            },
        ),
        (
            b"{" + client.book_state("kalshi", "stale", ["A"], "sequence", 5),
            {"type": "book_state", "feed": "kalshi", "state": "stale", "tickers": ["A"], "reason": "sequence", "ts": 5},
        ),
        (
            client.snapshot_end(["A"], [], 1).encode(),
            {"type": "snapshot", "symbols": ["A"], "missing": [], "id": 1},
        ),
        (client.answered({"results": []}, 1), {"type": "query", "results": [], "id": 1}),
        (
            client.system("SLOW_READER_WARNING", "hurry", queued=900),
            {"type": "system", "code": "SLOW_READER_WARNING", "message": "hurry", "queued": 900},
        ),
        (client.heartbeat(5), {"type": "heartbeat", "ts": 5}),
        (client.pong(5, 0), {"type": "pong", "ts": 5, "id": 0}),
    ],
)
def test_a_server_message_is_one_line_of_json(data: bytes, fields: dict[str, Any]) -> None:
    assert json.loads(data) == fields
    assert b"\n" not in data


@pytest.mark.parametrize("books", [["A", "B"], [], None], ids=["two books", "no book", "too many to name"])
def test_skipped_messages_are_counted_with_both_ends(books: list[str] | None) -> None:
    found = json.loads(client.skipped(10, 14, books))

    assert (found["type"], found["code"], found["from"], found["to"]) == ("gap", "SKIPPED", 10, 14)
    assert "5 messages" in found["message"]
    assert found["books"] == books
