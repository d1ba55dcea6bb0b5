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
            if not group.changed:
                wait = group.flushed + group.interval_s - self._monotonic()
                self._later(max(0.0, wait), partial(self._end_interval, group))
            group.changed[channel, ticker] = None

    def _end_interval(self, group: Group) -> None:
        if self._groups.of(group.subscription) is not group:
            return  # its last client has left meanwhile
        pieces = list(group.changed)
        group.changed.clear()
        group.flushed = self._monotonic()
        self._tell(group, pieces)
