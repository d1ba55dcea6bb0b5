"""Kalshi's sequence numbers: per subscription (sid), from 1, plus one per frame, acknowledgements included.

The usual frame is one comparison in the mapper (`last.get(sid, 0) + 1 == seq`). Everything else comes here:

- a jump is a gap, and the new number is the base from now on;
- a number that was there already is not mapped again. A delta applied twice would corrupt the book;
- numbers that fill the hole of the last jump are late, not doubled, and are mapped;
- after `ADOPT_AFTER` consecutive numbers below the base, the base was wrong (a bogus jump, or an exchange that
  started anew without saying so): the low numbers become the base;
- malformed frames use up their number when it is the next one, but never move the base otherwise, so that no
  hostile frame can make the following good ones look old.
"""

from enum import Enum

import msgspec

ADOPT_AFTER = 8


class Verdict(Enum):
    """What an out-of-order frame means for the mapper."""

    GAP = "sequence_gap"  # frames are missing before this one; map it
    REPEAT = "sequence_repeat"  # the last number again; do not map
    OLD = "sequence_reset"  # a lower number; do not map
    LATE = "sequence_late"  # a lower number that was missing; map it
    RESTART = "sequence_restart"  # the numbering began anew; what was known of the subscription is void; map it
    IGNORE = "sequence_ignored"  # a malformed frame's number says nothing


class _Below(msgspec.Struct):
    """A run of consecutive numbers below the base."""

    expected: int
    run: int
    missing: bool  # they fill the hole of a jump


class Sequences:
    """The numbers of one connection. `last` is the base of each sid; the mapper advances it on the usual path."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}
        self._below: dict[int, _Below] = {}
        self._acknowledged: dict[int, int] = {}

    def judge(self, sid: int, seq: int, *, malformed: bool, opening: bool) -> Verdict:
        """What a frame with an unexpected number means; updates the state.

        `opening` says that the frame is of a kind that may begin a subscription (a snapshot, an acknowledgement).
        """
        last = self.last.get(sid, 0)
        if malformed:
            return Verdict.IGNORE
        if seq > last:
            self.last[sid] = seq
            self._below[sid] = _Below(expected=last + 1, run=0, missing=True)
            return Verdict.GAP
        if seq == last:
            # An exchange that does not count its acknowledgements gives the next frame the same number.
            return Verdict.LATE if self._acknowledged.pop(sid, None) == seq else Verdict.REPEAT
        if seq == 1 and opening:
            self.last[sid] = 1
            self._below.pop(sid, None)
            return Verdict.RESTART
        return self._judge_lower(sid, seq, last)

    def _judge_lower(self, sid: int, seq: int, last: int) -> Verdict:
        below = self._below.get(sid)
        if below is None or seq != below.expected:
            self._below[sid] = _Below(expected=seq + 1, run=1, missing=False)
            return Verdict.OLD
        below.expected += 1
        below.run += 1
        if below.expected == last:
            del self._below[sid]  # the hole is filled
            return Verdict.LATE if below.missing else Verdict.OLD
        if below.run < ADOPT_AFTER:
            return Verdict.LATE if below.missing else Verdict.OLD
        self.last[sid] = seq
        del self._below[sid]
        return Verdict.LATE if below.missing else Verdict.RESTART

    def acknowledge(self, sid: int, seq: int) -> None:
        """An acknowledgement carried this number."""
        self._acknowledged[sid] = seq

    def forget(self, sid: int) -> None:
        """The subscription ended; should the exchange use its number again, it starts from 1."""
        self.last.pop(sid, None)
        self._below.pop(sid, None)
        self._acknowledged.pop(sid, None)
