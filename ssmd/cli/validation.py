"""What is asked before a command acts on the archive: does the registry know the feed, and is there such a day?"""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from ssmd.archive import layout
from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen
from ssmd.errors import ConfigError, DataError
from ssmd.market.events import EVENT_TYPES
from ssmd.market.subjects import check_feed
from ssmd.middleware.storage.interface import Storage
from ssmd.nearest import nearest
from ssmd.registry.interface import InventoryRow, Registry
from ssmd.registry.values import printable

if TYPE_CHECKING:
    from ssmd.registry.feeds import ListedFeed

_SHOWN = 80
_MAX_LISTED = 20


def validation_failed(problems: Sequence[str], afterwards: str = "") -> ConfigError:
    """The one form of a refused request: what is wrong, line by line, then what there is."""
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigError(f"Error: Validation failed{lines}{afterwards}")


def require_feed(chosen: Chosen, registry: Registry, feed: str, doing: str) -> None:
    """ConfigError, with the nearest name and all that there are, when the registry does not know the feed.

    `doing`, and the feed's name, complete "cannot …" in errors.
    """
    if chosen.environment.spec.database_url is None:
        registry.inventory(feed, date.min, date.min)
        return
    from ssmd.registry.feeds import FeedCatalogue

    with database_of(chosen) as database:
        known = {listed.name: listed for listed in FeedCatalogue(database).list(doing=f"{doing} {quoted(feed)}")}
    if feed in known:
        return
    raise feed_not_found(feed, list(known.values()))


def feed_not_found(feed: str, known: Sequence["ListedFeed"]) -> ConfigError:
    """The error for a feed that the registry does not have: the one that was probably meant, and all that there are."""
    problems = [f"Feed {quoted(feed)} not found in feed registry"]
    names = [listed.name for listed in known]
    # The only feed there is is the one to name, however unlike it is.
    if guess := nearest(feed, names) or (names[0] if len(names) == 1 else ""):
        problems.append(f"Did you mean '{guess}'?")
    return validation_failed(problems, available_feeds(known))


def available_feeds(known: Sequence["ListedFeed"]) -> str:
    """What follows the problems: every feed with its status and what it is."""
    lines = [f"\n  {listed.name} ({listed.status}) - {_what(listed)}" for listed in known[:_MAX_LISTED]]
    return f"\n\nAvailable feeds:{''.join(lines)}" if lines else "\n\nNo feed is registered. Run: ssmd db migrate"


def _what(listed: "ListedFeed") -> str:
    return printable(listed.description or listed.display_name or listed.feed_type)


def quoted(name: str) -> str:
    """A name from outside as the messages print it: in quotes, short, on one line."""
    return "'" + "".join(letter if letter.isprintable() else "·" for letter in name[:_SHOWN]) + "'"


def no_data(feed: str, day: date, rows: Sequence[InventoryRow]) -> ConfigError:
    """The error for a day of which there is nothing; `rows` are the feed's whole inventory."""
    days = [row.day for row in rows if row.record_count]
    latest = max(days).isoformat() if days else "none"
    problem = f"No data inventory for {printable(feed, _SHOWN)} on {day.isoformat()}"
    return validation_failed([problem, f"Latest available: {latest}"])


def require_name(feed: str) -> None:
    """ConfigError for what cannot be the name of a feed, when the registry cannot be asked."""
    try:
        check_feed(feed)
    except DataError as error:
        raise ConfigError(error.message, "See: ssmd feed list") from error


async def require_day(chosen: Chosen, registry: Registry | None, storage: Storage, feed: str, day: date) -> None:
    """ConfigError for an unknown feed, or for a day of which neither inventory nor archive has anything.

    Without a `registry` (it is away) only the feed's name is checked.
    """
    if registry is None:
        require_name(feed)
        return
    await asyncio.to_thread(require_feed, chosen, registry, feed, f"look for the data of {day} of feed")
    rows = await asyncio.to_thread(registry.inventory, feed, date.min, date.max)
    if any(row.day == day for row in rows):
        return
    buckets = chosen.environment.spec.middleware.storage.buckets
    places = [(buckets.raw, layout.raw_day_prefix(feed, day))]
    places += [(buckets.normalized, layout.normalized_day_prefix(feed, kind, day)) for kind in EVENT_TYPES]
    for bucket, prefix in places:
        if await storage.list(bucket, prefix):
            return
    raise no_data(feed, day, rows)
