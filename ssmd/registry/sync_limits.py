"""What a full sync must find to be believed without a person: an exchange's half-empty answer must not empty ours."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from ssmd.registry.market_syncs import SyncCounts, last_full
from ssmd.registry.market_values import ACTIVE
from ssmd.registry.tables import markets
from ssmd.registry.values import storable

MAX_GONE_SHARE = 0.2
FEW_GONE = 50
"""So many markets may vanish from one sync to the next, or a fifth of the active ones if that is more."""

_COUNTED = ("series", "events", "open_markets")


class Expected(msgspec.Struct, frozen=True):
    """What the last completed full sync found (None: there was none), and how many active markets are known now.

    Markets whose closing time has passed are not counted: nobody may have said yet that they have closed.
    """

    previous: SyncCounts | None
    active: int

    @property
    def open_markets(self) -> int:
        """How many open markets a list is compared with."""
        return self.active if self.previous is None else self.previous.open_markets

    @property
    def max_gone(self) -> int:
        """How many markets may vanish at once."""
        return max(FEW_GONE, int(self.active * MAX_GONE_SHARE))


class Gone(msgspec.Struct, frozen=True):
    """How many markets a sync would unlist, and how many of them count as active ones (see `Expected`)."""

    markets: int
    active: int


def expected_of(connection: sa.Connection, feed_id: int) -> Expected:
    """What a full sync of the feed is compared with."""
    return Expected(last_full(connection, feed_id), connection.execute(_active(feed_id)).scalar_one())


def gone_of(connection: sa.Connection, feed_id: int, tickers: Sequence[str]) -> Gone:
    """What it would mean to unlist these."""
    of_tickers = sa.func.any(sa.cast([storable(ticker) for ticker in tickers], sa.ARRAY(sa.Text)))
    query = _active(feed_id).where(markets.c.ticker == of_tickers)
    return Gone(len(tickers), connection.execute(query).scalar_one() if tickers else 0)


def _active(feed_id: int) -> sa.Select[int]:
    m = markets.c
    still = sa.or_(m.close_time.is_(None), m.close_time > sa.func.now())
    return sa.select(sa.func.count()).where(m.feed_id == feed_id, m.status == ACTIVE, m.known_to.is_(None), still)


def doubts(expected: Expected, counts: Mapping[str, int], gone: Gone) -> list[str]:
    """Why a full sync that counted this, and would unlist these, is not believed; both counts in each."""
    found = _collapsed(expected, counts)
    if counts["open_markets"] == 0 and not any("open markets" in each for each in found):
        found.append("0 open markets, and no exchange lists none")
    if gone.markets > expected.max_gone:
        found.append(
            f"{gone.markets:,} markets are no longer listed (up to {expected.max_gone:,} may go at once, "
            f"with {expected.active:,} active ones known)"
        )
    elif gone.active * 2 > expected.active:
        found.append(f"{gone.active:,} active markets are no longer listed, of {expected.active:,} that are known")
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
