"""What the decoder says of frames: hostile ones, drifting ones, today's and old ones."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ssmd.feeds.interface import GROUPS
from ssmd.feeds.kalshi.decoder import KalshiDecoder, is_strict_json, too_deep
from ssmd.feeds.kalshi.legacy import LegacyKalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.messages import KINDS, Delta
from ssmd.market.subjects import encode_ticker
from ssmd.wire.raw import parse_line, raw_line
from tests.data.hostile_frames import DELTA, HOSTILE_FRAMES, MAPPED, Hostile

NAMES = [hostile.name for hostile in HOSTILE_FRAMES]


def test_the_corpus_holds_sixty_different_frames_and_more() -> None:
    assert len({hostile.frame for hostile in HOSTILE_FRAMES}) == len(set(NAMES)) == len(HOSTILE_FRAMES) >= 60


@pytest.mark.parametrize("hostile", HOSTILE_FRAMES, ids=NAMES)
def test_each_hostile_frame_is_classified(hostile: Hostile) -> None:
    decoded = KalshiDecoder().decode(hostile.frame)
    seen = (decoded.type, decoded.group, decoded.inline, decoded.sid, decoded.seq, decoded.problem)
    assert seen == hostile[2:]


@pytest.mark.parametrize("hostile", HOSTILE_FRAMES, ids=NAMES)
def test_a_hostile_frame_survives_the_raw_archive_and_harms_no_mapper(hostile: Hostile) -> None:
    for decoder in (KalshiDecoder(), LegacyKalshiDecoder()):
        decoded = decoder.decode(hostile.frame)
        assert decoded.group in GROUPS
        encode_ticker(decoded.type)
        line = raw_line(1, decoded.type, "c-1", 0, hostile.frame, decoded.inline)
        assert parse_line(line).frame == hostile.frame
        if decoded.inline:
            assert json.loads(line)["data"] == json.loads(hostile.frame)
        mapper = KalshiMapper("kalshi", "c-1")
        assert mapper.map(decoded, 1) is None  # there is no book yet
        assert decoded.message is None or decoded.problem == "" or isinstance(decoded.message, str)


@pytest.mark.parametrize("hostile", MAPPED, ids=[hostile.name for hostile in MAPPED])
def test_unusual_but_readable_frames_still_change_the_book(hostile: Hostile) -> None:
    decoder, mapper = KalshiDecoder(), KalshiMapper("kalshi", "c-1")
    for seq in range(1, 6):
        mapper.map(decoder.decode(b'{"type":"ok","sid":1,"seq":%d,"msg":{}}' % seq), 1)
    snapshot = (
        b'{"type":"orderbook_snapshot","sid":1,"seq":6,"msg":'
        b'{"market_ticker":"TEST-26NOV22-T1","market_id":"m","yes_dollars_fp":[["0.4500","3.00"]]}}'
    )
    assert mapper.map(decoder.decode(snapshot), 1) is not None
    event = mapper.map(decoder.decode(hostile.frame), 2)
    assert event is not None
    assert event.bids == ((450_000, 2_000_000),)  # type: ignore[union-attr]
    assert mapper.take_problems() == {}


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(frame: bytes) -> None:
    for decoder in (KalshiDecoder(), LegacyKalshiDecoder()):
        decoded = decoder.decode(frame)
        assert decoded.problem or isinstance(decoded.message, tuple(KINDS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODY_KEYS = st.sampled_from(
    ["market_ticker", "price_dollars", "delta_fp", "side", "ts_ms", "clock", "market_id", "yes_dollars_fp", "trade_id",
     "event_type", "count_fp", "yes_price_dollars", "settlement_value", "channel", "sid", "market_tickers", "code"]
)  # fmt: skip


@settings(max_examples=300)
@given(
    kind=st.sampled_from([name for name, _ in KINDS.values()]),
    envelope=st.dictionaries(st.sampled_from(["sid", "seq", "id", "sending_ts_ms"]), JSON),
    body=JSON | st.dictionaries(BODY_KEYS, JSON),
)
def test_any_values_in_known_frames_keep_their_type_and_group_and_never_raise(
    kind: str, envelope: dict[str, object], body: object
) -> None:
    frame = json.dumps({"type": kind, **envelope, "msg": body}).encode()
    for decoder in (KalshiDecoder(), LegacyKalshiDecoder()):
        decoded = decoder.decode(frame)
        assert decoded.type == kind
        assert decoded.problem in ("", "shape_drift", "missing_field")
        sid = envelope.get("sid")
        assert decoded.sid in (sid, None)
        KalshiMapper("kalshi", "c-1").map(decoded, 1)


def test_known_types_keep_their_group() -> None:
    groups = dict(KINDS.values())
    assert groups == {
        "trade": "trades",
        "orderbook_snapshot": "orderbook",
        "orderbook_delta": "orderbook",
        "ticker": "ticker",
        "market_lifecycle_v2": "lifecycle",
        "event_lifecycle": "lifecycle",
        "event_fee_update": "lifecycle",
        "multivariate_market_lifecycle": "lifecycle",
        "subscribed": "control",
        "unsubscribed": "control",
        "ok": "control",
        "error": "control",
    }


def test_todays_delta_with_clock_and_sending_time_is_read_on_the_typed_path() -> None:
    frame = (
        b'{"type":"orderbook_delta","sid":1,"seq":7,"msg":{%b,"clock":4182061},"sending_ts_ms":1795363200125}' % DELTA
    )
    decoded = KalshiDecoder().decode(frame)
    assert isinstance(decoded.message, Delta)
    assert decoded.message.msg.clock == 4_182_061
    assert decoded.inline


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    frame = json.dumps({"type": "ok", "id": 1, "msg": {"market_tickers": ["[{" * 200, '"[' * 90]}}).encode()
    assert not too_deep(frame)
    assert KalshiDecoder().decode(frame).problem == ""


def test_a_wide_frame_is_not_deep() -> None:
    assert not too_deep(json.dumps([[n] for n in range(5_000)]).encode())
    assert not too_deep(json.dumps({"a": [{"b": [1]} for _ in range(500)]}).encode())


@given(JSON)
def test_what_json_writes_on_one_line_is_strict_json(value: object) -> None:
    frame = json.dumps(value).encode()
    strict = is_strict_json(frame)
    # Lone surrogates are the one thing json writes that a strict parser refuses; Hypothesis makes none.
    assert strict
    assert not is_strict_json(frame + b"\n")
