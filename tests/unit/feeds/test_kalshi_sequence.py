"""Sequence numbers: whatever the exchange loses, repeats or swaps, gaps are found and nothing is applied twice."""

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ssmd.feeds.interface import Decoded
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.messages import TradeBody, TradeMessage
from ssmd.feeds.kalshi.sequence import ADOPT_AFTER, Sequences, Verdict


def trade(sid: int, seq: int) -> Decoded:
    body = TradeBody(
        market_ticker="T", trade_id=f"{sid}-{seq}", yes_price_dollars="0.5", count_fp="1", taker_side="yes"
    )
    return Decoded("trade", "trades", True, sid, seq, TradeMessage(sid=sid, seq=seq, msg=body))


class LossyExchange(RuleBasedStateMachine):
    """An exchange that numbers per subscription and never renumbers; frames get lost and repeated on the way."""

    @initialize()
    def connect(self) -> None:
        self.mapper = KalshiMapper("kalshi", "c-1")
        self.sent: dict[int, int] = {}
        self.arrived: dict[int, int] = {}
        self.mapped: list[str] = []
        self.expected: list[str] = []
        self.holes: list[tuple[int, int, int]] = []

    def _deliver(self, sid: int) -> None:
        seq = self.sent[sid] = self.sent.get(sid, 0) + 1
        last = self.arrived.get(sid, 0)
        if seq != last + 1:
            self.holes.append((sid, last, seq))
        self.arrived[sid] = seq
        self.expected.append(f"{sid}-{seq}")
        self._map(sid, seq)

    def _map(self, sid: int, seq: int) -> None:
        event = self.mapper.map(trade(sid, seq), 1)
        if event is not None:
            self.mapped.append(event.trade_id)  # type: ignore[union-attr]

    @rule(sid=st.integers(1, 3), count=st.integers(1, 4))
    def frames_arrive(self, sid: int, count: int) -> None:
        for _ in range(count):
            self._deliver(sid)

    @rule(sid=st.integers(1, 3), count=st.integers(1, 5))
    def frames_are_lost(self, sid: int, count: int) -> None:
        self.sent[sid] = self.sent.get(sid, 0) + count

    @rule(sid=st.integers(1, 3))
    def the_last_frame_comes_again(self, sid: int) -> None:
        if self.arrived.get(sid):
            self._map(sid, self.arrived[sid])

    @invariant()
    def every_arrived_frame_is_mapped_once_and_every_hole_is_a_gap(self) -> None:
        assert self.mapped == self.expected
        gaps = self.mapper.take_gaps()
        assert [(gap.sid, gap.last_seq, gap.next_seq) for gap in gaps] == self.holes
        self.holes.clear()


TestLossyExchange = LossyExchange.TestCase


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=60))
def test_any_numbers_keep_the_state_small_and_a_plain_run_always_recovers(
    numbers: list[tuple[int, bool, bool]],
) -> None:
    sequences = Sequences()
    for seq, malformed, opening in numbers:
        if sequences.last.get(1, 0) + 1 == seq:
            sequences.last[1] = seq
        else:
            assert sequences.judge(1, seq, malformed=malformed, opening=opening) in Verdict
    start = 100
    for seq in range(start, start + ADOPT_AFTER + 2):
        if sequences.last.get(1, 0) + 1 == seq:
            sequences.last[1] = seq
        else:
            sequences.judge(1, seq, malformed=False, opening=False)
    assert sequences.last[1] == start + ADOPT_AFTER + 1


def test_a_numbering_that_went_back_without_a_word_is_adopted_after_a_while() -> None:
    sequences = Sequences()
    sequences.last[1] = 1_000
    verdicts = [sequences.judge(1, seq, malformed=False, opening=False) for seq in range(51, 51 + ADOPT_AFTER)]
    assert verdicts == [Verdict.OLD] * (ADOPT_AFTER - 1) + [Verdict.RESTART]
    assert sequences.last[1] == 50 + ADOPT_AFTER


def test_numbers_that_fill_a_hole_are_late_and_not_old() -> None:
    sequences = Sequences()
    sequences.last[1] = 3
    assert sequences.judge(1, 7, malformed=False, opening=False) is Verdict.GAP
    assert [sequences.judge(1, seq, malformed=False, opening=False) for seq in (4, 5, 6)] == [Verdict.LATE] * 3
    assert sequences.judge(1, 6, malformed=False, opening=False) is Verdict.OLD
    assert sequences.last[1] == 7
