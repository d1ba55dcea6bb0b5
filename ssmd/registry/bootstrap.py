"""What the registry knows from the start: where Kalshi is reached on which date, when it pauses, and what is shipped.

Hosts and dates are facts about the exchange: the recommended hosts changed on 2026-05-07 (the old ones still answer);
trading pauses each Thursday from 03:00 to 05:00 Eastern Time.
"""

from datetime import date
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.errors import ConfigError
from ssmd.nearest import did_you_mean, nearest
from ssmd.registry import tables
from ssmd.registry.interface import FeedVersion, NotKnown


class KnownVersion(msgspec.Struct, frozen=True):
    """How a feed is reached from one day up to, and without, another (None: until further notice)."""

    version: str
    effective_from: date
    effective_to: date | None
    ws: str
    rest: str


class Pause(msgspec.Struct, frozen=True):
    """A weekly pause, in the calendar's time zone; `begins` and `ends` are `HH:MM`."""

    weekday: str
    begins: str
    ends: str


class KnownFeed(msgspec.Struct, frozen=True):
    """A feed with all its versions and its calendar."""

    name: str
    display_name: str
    description: str
    versions: tuple[KnownVersion, ...]
    timezone: str
    pauses: tuple[Pause, ...]
    max_symbols_per_connection: int
    rate_limit_per_second: int


KALSHI = KnownFeed(
    name="kalshi",
    display_name="Kalshi",
    description="Prediction market",
    versions=(
        KnownVersion(
            version="v1",
            effective_from=date(2021, 1, 1),
            effective_to=date(2026, 5, 7),
            ws="wss://api.elections.kalshi.com/trade-api/ws/v2",
            rest="https://api.elections.kalshi.com/trade-api/v2",
        ),
        KnownVersion(
            version="v2",
            effective_from=date(2026, 5, 7),
            effective_to=None,
            ws="wss://external-api-ws.kalshi.com/trade-api/ws/v2",
            rest="https://external-api.kalshi.com/trade-api/v2",
        ),
    ),
    timezone="America/New_York",
    pauses=(Pause(weekday="thursday", begins="03:00", ends="05:00"),),
    max_symbols_per_connection=500_000,
    rate_limit_per_second=20,  # requests; the base tier's 200 tokens a second at 10 tokens each
)

KNOWN_FEEDS = (KALSHI,)


def bootstrap(connection: sa.Connection) -> None:
    """Add what ssmd comes with and the registry does not have; what an operator has changed stays. Safe to repeat."""
    from ssmd.registry.shipped import add_environments, add_schemas  # loads what reads environment files

    for feed in KNOWN_FEEDS:
        _add_feed(connection, feed)
    # Normalized data in today's schemas can be made for every day that a feed has.
    add_schemas(connection, min(version.effective_from for feed in KNOWN_FEEDS for version in feed.versions))
    add_environments(connection)


def _add_feed(connection: sa.Connection, feed: KnownFeed) -> None:
    row = {"name": feed.name, "display_name": feed.display_name, "feed_type": "websocket", "status": "active"}
    connection.execute(insert(tables.feeds).values(row).on_conflict_do_nothing())
    f, v = tables.feeds.c, tables.feed_versions.c
    describe = sa.update(tables.feeds).where(f.name == feed.name, f.description.is_(None))
    connection.execute(describe.values(description=feed.description))
    feed_id = connection.execute(sa.select(f.id).where(f.name == feed.name)).scalar_one()
    # A version that was corrected has rows of the same name; it must not come back beside its correction.
    known = set(connection.execute(sa.select(v.version).where(v.feed_id == feed_id)).scalars())
    for version in feed.versions:
        if version.version not in known:
            row = _version_row(feed_id, feed, version)
            connection.execute(insert(tables.feed_versions).values(row).on_conflict_do_nothing())
    calendar = {
        "feed_id": feed_id,
        "effective_from": min(version.effective_from for version in feed.versions),
        "timezone": feed.timezone,
        "holiday_calendar": f"{feed.name}_weekly",
        "pauses": [{"weekday": p.weekday, "from": p.begins, "to": p.ends} for p in feed.pauses],
    }
    connection.execute(insert(tables.feed_calendars).values(calendar).on_conflict_do_nothing())


def _version_row(feed_id: int, feed: KnownFeed, version: KnownVersion) -> dict[str, Any]:
    return {
        "feed_id": feed_id,
        "version": version.version,
        "effective_from": version.effective_from,
        "effective_to": version.effective_to,
        "protocol": version.ws.partition("://")[0],
        "endpoint_template": version.ws,
        "rest_endpoint": version.rest,
        "auth_method": "api_key",
        "secret_ref": f"$key:{feed.name}",
        "supports_orderbook": True,
        "supports_trades": True,
        "supports_historical": True,
        "max_symbols_per_connection": feed.max_symbols_per_connection,
        "rate_limit_per_second": feed.rate_limit_per_second,
        "required_transport": ["nats", "memory"],
    }


def unknown_feed(name: str, known: list[str]) -> ConfigError:
    """The error for a feed that the registry does not have, with the nearest one that it has."""
    hint = did_you_mean(name, known, f"Known feeds: {', '.join(sorted(known)) or 'none'}.")
    return NotKnown(
        f"the registry knows no feed {name[:80]!r}",
        f"{hint} To add the built-in ones: ssmd db migrate",
        nearest(name, known),
    )


def version_on(feed: str, on: date, versions: list[tuple[date, date | None, FeedVersion]]) -> FeedVersion:
    """The version that holds on a day, of (first day, first day without it, version); of several the latest to begin.

    ConfigError when none holds.
    """
    holding = [(first, version) for first, end, version in versions if first <= on and (end is None or on < end)]
    if not holding:
        spans = "; ".join(f"{v.version}: from {first} until {end or 'now'}" for first, end, v in versions)
        raise ConfigError(f"feed {feed!r} has no version for {on}", f"Its versions: {spans or 'none at all'}.")
    return max(holding, key=lambda pair: pair[0])[1]
