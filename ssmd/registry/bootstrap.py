"""The feeds that ssmd knows from the start: where Kalshi is reached on which date, and when it pauses.

Hosts and dates are facts about the exchange: the recommended hosts changed on 2026-05-07 (the old ones still answer);
trading pauses each Thursday from 03:00 to 05:00 Eastern Time.
"""

from datetime import date
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.errors import ConfigError
from ssmd.nearest import did_you_mean
from ssmd.registry import tables
from ssmd.registry.interface import FeedVersion


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
    versions: tuple[KnownVersion, ...]
    timezone: str
    pauses: tuple[Pause, ...]
    max_symbols_per_connection: int
    rate_limit_per_second: int


KALSHI = KnownFeed(
    name="kalshi",
    display_name="Kalshi",
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
    """Add the known feeds that are missing; what an operator has changed stays as it is. Safe to repeat."""
    for feed in KNOWN_FEEDS:
        row = {"name": feed.name, "display_name": feed.display_name, "feed_type": "websocket", "status": "active"}
        connection.execute(insert(tables.feeds).values(row).on_conflict_do_nothing())
        query = sa.select(tables.feeds.c.id).where(tables.feeds.c.name == feed.name)
        feed_id = connection.execute(query).scalar_one()
        for version in feed.versions:
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
    return ConfigError(f"the registry knows no feed {name[:80]!r}", f"{hint} To add the built-in ones: ssmd db migrate")


def version_on(feed: str, on: date, versions: list[tuple[date, date | None, FeedVersion]]) -> FeedVersion:
    """The version that holds on a day, of (first day, first day without it, version); of several the latest to begin.

    ConfigError when none holds.
    """
    holding = [(first, version) for first, end, version in versions if first <= on and (end is None or on < end)]
    if not holding:
        spans = "; ".join(f"{v.version}: from {first} until {end or 'now'}" for first, end, v in versions)
        raise ConfigError(f"feed {feed!r} has no version for {on}", f"Its versions: {spans or 'none at all'}.")
    return max(holding, key=lambda pair: pair[0])[1]
