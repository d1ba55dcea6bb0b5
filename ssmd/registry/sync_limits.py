"""What a full sync must find to be believed without a person: an exchange's half-empty answer must not empty ours."""

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from ssmd.registry.market_syncs import SyncCounts, last_full
from ssmd.registry.market_values import ACTIVE
from ssmd.registry.tables import markets

MAX_GONE_SHARE = 0.2
FEW_GONE = 50
"""So many markets may vanish from one sync to the next, or a fifth of the active ones if that is more."""
MAX_GONE_OF_FEW = 0.5
"""Of a registry that knows fewer than a hundred active markets."""

_COUNTED = ("series", "events", "open_markets")


class Expected(msgspec.Struct, frozen=True):
    """What the last completed full sync found (None: there was none), and the active, listed markets known now."""

    previous: SyncCounts | None
    active: int

    @property
    def open_markets(self) -> int:
        """How many open markets a list is compared with."""
        return self.active if self.previous is None else self.previous.open_markets

    @property
    def max_gone(self) -> int:
        """How many markets may vanish at once."""
        return int(max(self.active * MAX_GONE_SHARE, min(FEW_GONE, self.active * MAX_GONE_OF_FEW)))


def expected_of(connection: sa.Connection, feed_id: int) -> Expected:
    """What a full sync of the feed is compared with."""
    m = markets.c
    query = sa.select(sa.func.count()).where(m.feed_id == feed_id, m.status == ACTIVE, m.known_to.is_(None))
    return Expected(last_full(connection, feed_id), connection.execute(query).scalar_one())


def doubts(expected: Expected, counts: Mapping[str, int], gone: int) -> list[str]:
    """Why a full sync that counted this, and would unlist `gone` markets, is not believed; both counts in each."""
    found = _collapsed(expected, counts)
    if counts["open_markets"] == 0 and not any("open markets" in each for each in found):
        found.append("0 open markets, and no exchange lists none")
    if gone > expected.max_gone:
        found.append(
            f"{gone:,} markets are no longer listed, of {expected.active:,} active ones that are known "
            f"(up to {expected.max_gone:,} may go at once)"
        )
    return found


def _collapsed(expected: Expected, counts: Mapping[str, int]) -> list[str]:
    """The counts that fell below half of what was there, in words."""
    previous = expected.previous
    if previous is None:
        if counts["open_markets"] * 2 >= expected.active:
            return []
        return [f"{counts['open_markets']:,} open markets, while {expected.active:,} active ones are known"]
    return [
        f"{counts[name]:,} {name.replace('_', ' ')}, the last accepted one {getattr(previous, name):,}"
        for name in _COUNTED
        if counts[name] * 2 < getattr(previous, name)
    ]
