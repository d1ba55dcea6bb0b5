"""Mode conflated: instead of every message, the latest of what has changed, once per interval.

What has changed is only noted; the messages are made from the board when the interval ends, once for all clients with
the same subscription. No timer runs while nothing changes.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from ssmd.gateway.groups import Group, Groups
from ssmd.gateway.subscription import Piece

EARLY_S = 0.001
"""Timers may fire this much early."""

Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""Calls back after some seconds."""


def call_later(seconds: float, call: Callable[[], None]) -> object:
    """By the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, call)


class Conflation:
    """Collects changes for all conflated groups; `tell` sends a group the latest of some pieces."""

    def __init__(
        self,
        groups: Groups,
        monotonic: Callable[[], float],
        tell: Callable[[Group, list[Piece]], None],
        later: Later = call_later,
    ) -> None:
        self._groups = groups
        self._monotonic = monotonic
        self._tell = tell
        self._later = later

    @property
    def wanted(self) -> bool:
        """Is there a conflated group?"""
        return self._groups.conflated.size > 0

    def note(self, channel: str, ticker: str) -> None:
        """There is something new about `channel` of `ticker`."""
        for group in self._groups.conflated.find(channel, ticker):
            if not group.timed:
                self._wait(group)
            group.changed[channel, ticker] = None

    def catch_up(self, group: Group) -> None:
        """End the interval now: somebody leaves the group and must have had all that changed before."""
        if not group.changed:
            return
        pieces = list(group.changed)
        group.changed.clear()
        group.flushed = self._monotonic()
        self._tell(group, pieces)

    def _wait(self, group: Group) -> None:
        group.timed = True
        left = group.flushed + group.interval_s - self._monotonic()
        self._later(max(0.0, left), partial(self._end_interval, group))

    def _end_interval(self, group: Group) -> None:
        group.timed = False
        if self._groups.of(group.subscription) is not group or not group.changed:
            return  # its last client has left meanwhile, or it was caught up
        if group.flushed + group.interval_s > self._monotonic() + EARLY_S:
            self._wait(group)  # it was caught up, and there is more since
        else:
            self.catch_up(group)
