"""Real recorded tapes through the player: verbatim but for the numbers, and the book it keeps is the recorded one."""

import json
import re
from decimal import Decimal

import pytest

from ssmd.simulator.protocol import Subscriptions
from ssmd.simulator.tape import TapePlayer
from tests import tapes

pytestmark = pytest.mark.replay
_NUMBERS = re.compile(rb'"sid":\d+,"seq":\d+')


def test_a_real_reconnect_is_played_verbatim_with_contiguous_numbers() -> None:
    file = tapes.tape("kalshi_slices", "reconnect_KXGOLD15M-26AUG102030-30_lines1-6000.ndjson.gz")
    recorded = [frame for _, frame in tapes.lines(file)]
    player = TapePlayer((file,), now_ns=0, speed=0.0, rate=None, in_turn=False, loop=False)
    client = Subscriptions(player)
    ticker = player.markets()[0]["ticker"]
    subscribe = {"channels": ["orderbook_delta", "trade"], "market_tickers": [ticker]}
    client.command(json.dumps({"cmd": "subscribe", "params": subscribe}).encode(), 0)
    before = {subscription.sid: subscription.seq for subscription in client.by_channel.values()}
    played = []
    while messages := player.take(0, 100):
        played += [sent for message in messages if (sent := client.number(message)) is not None]

    assert [_NUMBERS.sub(b"", sent.frame) for sent in played] == [_NUMBERS.sub(b"", frame) for frame in recorded]
    for sid, first in before.items():
        seqs = [sent.seq for sent in played if sent.sid == sid]
        assert seqs == list(range(first + 1, first + 1 + len(seqs)))


def test_the_book_at_the_end_is_the_recorded_one() -> None:
    names = tapes.gold_tapes()
    file = tapes.gold_tape(names[0]) if names else tapes.tape("kalshi_gold15m")
    player = TapePlayer((file,), now_ns=0, speed=0.0, rate=None, in_turn=False, loop=False)
    half = player.progress()["frames"] // 2
    played = 0
    while played < half:
        played += len(player.take(0, min(500, half - played)))

    book: dict[tuple[str, str], Decimal] = {}
    ticker = ""
    for _, frame in list(tapes.lines(file))[:half]:
        event = json.loads(frame)
        msg = event["msg"]
        if event["type"] == "orderbook_snapshot":
            ticker = msg["market_ticker"]
            levels = ((side, level) for side in ("yes", "no") for level in msg.get(f"{side}_dollars_fp", []))
            book = {(side, level[0]): Decimal(level[1]) for side, level in levels}
        elif event["type"] == "orderbook_delta":
            key = (msg["side"], msg["price_dollars"])
            book[key] = book.get(key, Decimal(0)) + Decimal(msg["delta_fp"])
    kept = json.loads(player.snapshot_body(ticker) or b"{}")
    told = {
        (side, price): Decimal(size) for side in ("yes", "no") for price, size in kept.get(f"{side}_dollars_fp", [])
    }
    assert told == {key: size for key, size in book.items() if size}
    assert len(told) > 10
    assert player.progress()["unreadable_frames"] == 0
