"""Tapes are played verbatim, in order, by time, by rate or as fast as possible."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import ConfigError
from ssmd.simulator.tape import TapePlayer
from ssmd.simulator.tape_lines import parse_event, parse_line, top_level_spans

SNAPSHOT = (
    '{"type":"orderbook_snapshot","sid":1,"seq":700,"msg":{"market_ticker":"KXA-1-2","market_id":"m-1",'
    '"yes_dollars_fp":[["0.0100","3.00"],["0.2000","5.50"]],"no_dollars_fp":[["0.5000","1.25"]]}}'
)
DELTA = (
    '{"type":"orderbook_delta","sid":1,"seq":705,"msg":{"market_ticker":"KXA-1-2","market_id":"m-1",'
    '"price_dollars":"0.2000","delta_fp":"-5.50","side":"yes","ts":"2026-08-11T01:15:15.5Z","ts_ms":1786410915566}}'
)
TRADE = (
    '{"type":"trade","sid":2,"seq":44,"msg":{"trade_id":"t-1","market_ticker":"KXA-1-2","yes_price_dollars":"0.5200",'
    '"no_price_dollars":"0.4800","count_fp":"9.85","taker_side":"no","taker_outcome_side":"no","taker_book_side":"ask",'
    '"ts":1786411118,"ts_ms":1786411118755}}'
)
TICKER = '{"type":"ticker","sid":6,"msg":{"market_ticker":"KXA-1-2","price_dollars":"0.0100","sid":9,"seq":9}}'


def write(file: Path, lines: list[tuple[int, str]]) -> Path:
    content = "".join(f'{{"recv_ms":{at},"event":{event}}}\n' for at, event in lines).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def player(*files: Path, **options: Any) -> TapePlayer:
    choices: dict[str, Any] = {"now_ns": 0, "speed": 1.0, "rate": None, "in_turn": False, "loop": False, **options}
    return TapePlayer(files, **choices)


@pytest.mark.parametrize("event", [SNAPSHOT, DELTA, TRADE, TICKER], ids=["snapshot", "delta", "trade", "ticker"])
def test_only_the_two_numbers_of_a_frame_change(event: str) -> None:
    line = parse_line(f'{{"recv_ms":1786410915579,"event":{event}}}\n'.encode())

    assert line is not None
    frame = json.loads(event)
    assert line.recv_ms == 1786410915579
    assert line.message.frame(frame["sid"], frame.get("seq", 0)) == event.encode()
    numbered = json.loads(line.message.frame(12345, 678))
    assert numbered == {**frame, "sid": 12345} | ({"seq": 678} if "seq" in frame else {})
    assert line.message.ticker == "KXA-1-2"


@pytest.mark.parametrize(
    "event",
    [
        '{ "type" : "trade",\t"seq" : 5 , "sid":2, "msg":{"market_ticker":"A","sid":1,"seq":1} }',
        '{"msg":{"market_ticker":"A","note":"\\"sid\\":4","seq":[{"sid":1}]},"seq":5,"type":"trade","sid":2}',
        '{"sid":2,"seq":5,"type":"trade","msg":{"market_ticker":"A\\u002d\\"B"},"sending_ts_ms":1}',
        '{"type":"trade","sid":2,"sending_ts_ms":7,"seq":5,"msg":{"market_ticker":"A","t":"\u2028é\x7f"}}',
    ],
)
def test_any_order_of_keys_and_any_whitespace_is_kept(event: str) -> None:
    message = parse_event(event.encode())

    assert message is not None
    assert message.frame(2, 5) == event.encode()
    changed = json.loads(message.frame(31, 17))
    assert (changed["sid"], changed["seq"], changed["msg"]) == (31, 17, json.loads(event)["msg"])


@given(
    st.dictionaries(
        st.text(max_size=6),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=6,
    ),
    st.sampled_from([None, 1, 3]),
)
def test_spans_cut_out_exactly_the_values_of_the_outermost_object(value: dict[str, Any], indent: int | None) -> None:
    event = json.dumps(value, indent=indent).encode()
    spans = top_level_spans(event)

    assert {key: json.loads(event[slice(*span)]) for key, span in spans.items()} == value


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage\n",
        b'{"recv_ms":1,"event":{"type":"subscribed","id":1,"msg":{"channel":"trade","sid":1}}}\n',
        b'{"recv_ms":1,"event":{"type":"never_heard_of","sid":1,"seq":1,"msg":{}}}\n',
        b'{"recv_ms":1,"event":[1,2]}\n',
        b'{"recv_ms":1,"event":{"type":"trade","msg":{}}}\n',
    ],
)
def test_lines_that_are_no_data_frames_are_skipped(line: bytes) -> None:
    assert parse_line(line) is None


def test_books_follow_the_tape_and_start_where_it_starts(tmp_path: Path) -> None:
    tape = player(write(tmp_path / "a.ndjson", [(10, SNAPSHOT), (20, DELTA), (30, TRADE)]))
    before = json.loads(tape.snapshot_body("KXA-1-2") or b"")
    tape.take(0, 100)
    tape.take(50_000_000, 100)

    after = json.loads(tape.snapshot_body("KXA-1-2") or b"")
    assert before == json.loads(SNAPSHOT)["msg"]
    assert after["yes_dollars_fp"] == [["0.0100", "3.00"]]
    assert "clock" not in after  # an older tape has none
    assert tape.snapshot_body("OTHER") is None
    assert [row["trade_id"] for row in tape.trades()] == ["t-1"]
    assert tape.progress()["finished"]


def test_recorded_times_are_kept_and_divided_by_the_speed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson.gz", [(1000, SNAPSHOT), (1100, DELTA), (1400, TRADE)])

    assert [len(player(file).take(at, 100)) for at in (0, 1)] == [1, 1]
    tape = player(file, speed=2.0)
    assert [len(tape.take(at * 1_000_000, 100)) for at in (0, 49, 50, 199, 200)] == [1, 0, 1, 0, 1]


def test_a_rate_replaces_the_recorded_times(tmp_path: Path) -> None:
    tape = player(write(tmp_path / "a.ndjson", [(at * 60_000, TRADE) for at in range(50)]), rate=100.0)

    assert [len(tape.take(at * 1_000_000, 100)) for at in (0, 100, 200, 400, 10_000)] == [0, 10, 10, 20, 10]


def test_speed_zero_gives_as_much_as_is_asked_for(tmp_path: Path) -> None:
    tape = player(write(tmp_path / "a.ndjson", [(at * 60_000, TRADE) for at in range(50)]), speed=0.0)

    assert tape.unpaced
    assert [len(tape.take(0, 20)) for _ in range(4)] == [20, 20, 10, 0]


def test_tapes_play_side_by_side_or_in_turn(tmp_path: Path) -> None:
    other = DELTA.replace("KXA-1-2", "KXB-1-2")
    files = (
        write(tmp_path / "a.ndjson", [(1000, SNAPSHOT), (2000, DELTA)]),
        write(tmp_path / "b.ndjson", [(77_000, other), (77_500, other)]),
    )

    def order(in_turn: bool) -> str:
        tape = player(*files, in_turn=in_turn)
        tape.take(0, 0)
        return "".join(message.ticker[2] for message in tape.take(10**12, 100))

    assert order(in_turn=False) == "ABBA"
    assert order(in_turn=True) == "AABB"


def test_a_loop_begins_again(tmp_path: Path) -> None:
    tape = player(write(tmp_path / "a.ndjson", [(0, SNAPSHOT), (1, DELTA)]), speed=0.0, loop=True)

    assert [len(tape.take(0, 10)) for _ in range(3)] == [2, 2, 2]
    assert tape.progress()["rounds"] == 3


def test_a_frame_with_odd_content_is_played_and_counted(tmp_path: Path) -> None:
    odd = DELTA.replace('"-5.50"', '"many"')
    tape = player(write(tmp_path / "a.ndjson", [(0, SNAPSHOT), (1, odd)]), speed=0.0)

    assert len(tape.take(0, 10)) == 2
    assert tape.progress()["unreadable_frames"] == 1


def test_rest_objects_come_from_the_tickers(tmp_path: Path) -> None:
    tape = player(write(tmp_path / "a.ndjson", [(0, SNAPSHOT)]))

    (market,) = tape.markets()
    assert (market["ticker"], market["event_ticker"], market["status"]) == ("KXA-1-2", "KXA-1", "active")
    assert market["yes_bid_dollars"] == "0.2000"
    assert market["yes_ask_dollars"] == "0.5000"
    assert [event["series_ticker"] for event in tape.events()] == ["KXA"]
    assert [series["ticker"] for series in tape.series()] == ["KXA"]


@pytest.mark.parametrize("content", [b"", b"not a tape\n", b"\x1f\x8b\x08broken"], ids=["empty", "text", "gzip"])
def test_a_file_that_is_no_tape_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.ndjson.gz"
    file.write_bytes(content if content.startswith(b"\x1f") else gzip.compress(content))

    with pytest.raises(ConfigError, match=r"x\.ndjson\.gz"):
        player(file)
