"""Reading the archive in one step gives what decoder and mapper give one after the other, whatever came."""

import random
from collections import Counter
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import Event
from tests.bench.frames import Generator
from tests.kalshi_day import TICKERS, Talk
from tests.tapes import gold_tape, gold_tapes, lines

TODAY, LEGACY = date(2026, 11, 22), date(2026, 2, 1)
FRAMES = Generator(tickers=3).tape(400)
ODD = [
    b"", b"not json", b"\xff\xfe", b"[]", b"{}", b'{"type":"new_kind","sid":1,"seq":3}', b"[" * 500,
    b'{"type":"trade","sid":3,"seq":1,"msg":{}}', b'{"type":"orderbook_delta","sid":1,"seq":-1,"msg":{}}',
    b'{"type":"orderbook_delta","sid":1,"seq":9,"new":1,"msg":{"market_ticker":"A","price_dollars":"0.5",'
    b'"delta_fp":"1.00","side":"yes"}}',
    b'{"type":"ticker","sid":2,"msg":{"market_ticker":"","price_dollars":"x","yes_bid_dollars":"9","yes_ask_dollars":""}}',
    b'{"type":"unsubscribed","sid":1,"seq":400}', b'{"type":"error","id":1,"msg":{"code":6,"msg":"no"}}',
    b'{"type":"ok","sid":1,"seq":12,"msg":{"market_tickers":[]}}',
]  # fmt: skip

Outcome = tuple[list[Event | None], Counter[str], list[Event], object]


def in_two_steps(frames: list[bytes], day: date) -> Outcome:
    parts, problems = open_feed("kalshi", day), Counter[str]()
    mapper = parts.new_mapper("c-1")
    events = []
    for n, frame in enumerate(frames):
        decoded = parts.decoder.decode(frame)
        events.append(mapper.map(decoded, n))
        problems.update([decoded.problem] if decoded.problem else [])
    problems.update(mapper.take_problems())
    return events, problems, mapper.snapshots(), mapper.take_gaps()


def in_one_step(frames: list[bytes], day: date) -> Outcome:
    parts, problems = open_feed("kalshi", day), Counter[str]()
    mapper = parts.new_mapper("c-1")
    read = parts.new_reader(mapper)
    events = []
    for n, frame in enumerate(frames):
        event, problem = read(frame, n)
        events.append(event)
        problems.update([problem] if problem else [])
    problems.update(mapper.take_problems())
    return events, problems, mapper.snapshots(), mapper.take_gaps()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([TODAY, LEGACY]))
def test_frames_in_and_out_of_sequence_and_odd_ones(seed: int, day: date) -> None:
    dice = random.Random(seed)
    frames = [*FRAMES.opening, *FRAMES.frames]
    for _ in range(dice.randrange(12)):
        match dice.randrange(4):
            case 0:
                del frames[dice.randrange(len(frames))]
            case 1:
                frames.insert(dice.randrange(len(frames)), dice.choice(frames))
            case 2:
                frames.insert(dice.randrange(len(frames)), dice.choice(ODD))
            case _:
                place = dice.randrange(len(frames))
                frames[place] = frames[place][: dice.randrange(len(frames[place]) + 1)]

    assert in_one_step(frames, day) == in_two_steps(frames, day)


def test_a_day_of_all_kinds() -> None:
    said = Talk()
    said.start()
    said.chatter(300)
    said.delta(TICKERS[0], skip=5)
    said.chatter(50)
    frames = [frame.data for frame in said.frames]

    events, problems, books, gaps = in_one_step(frames, TODAY)

    assert (events, problems, books, gaps) == in_two_steps(frames, TODAY)
    assert sum(event is not None for event in events) > 100
    assert gaps
    assert problems["invalid_json"] > 0


@pytest.mark.replay
def test_recorded_markets() -> None:
    names = gold_tapes()
    if not names:
        pytest.skip("no recorded tapes")
    for name in names[:3]:
        frames = [frame for _, frame in lines(gold_tape(name))][:20_000]
        assert in_one_step(frames, TODAY) == in_two_steps(frames, TODAY)
