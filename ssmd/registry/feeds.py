"""The feed registry: which exchanges exist and how each is reached, on any day, as we knew it at any time.

Nothing is deleted. A version that is corrected keeps its row, with an end to its being known; what holds is a new row.
"""

from datetime import date, datetime, time
from itertools import pairwise
from typing import Any, NoReturn

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.clock import day_of, now_ns
from ssmd.errors import RefusedError
from ssmd.registry.bootstrap import unknown_feed
from ssmd.registry.database import Database, find_feed
from ssmd.registry.feed_values import STATUSES, TYPES, FeedFacts, check_choice, check_facts, check_name, check_text
from ssmd.registry.interface import NotKnown
from ssmd.registry.tables import feed_calendars, feed_versions, feeds
from ssmd.registry.values import storable


class FeedDescription(msgspec.Struct, frozen=True):
    """What a feed is, whatever its version; None leaves it as it is, or at its default in a new feed."""

    feed_type: str | None = None
    display_name: str | None = None
    description: str | None = None
    status: str | None = None


class FeedVersionRow(msgspec.Struct, frozen=True):
    """A version, the first day on which it no longer holds, and since and until when we took it for true."""

    facts: FeedFacts
    effective_to: date | None
    known_from: datetime
    known_to: datetime | None


class Calendar(msgspec.Struct, frozen=True):
    """When a venue is open; no times: always. `pauses` are weekly, in `timezone`."""

    timezone: str | None
    open_time: time | None
    close_time: time | None
    holiday_calendar: str | None
    pauses: list[dict[str, str]]


class ListedFeed(msgspec.Struct, frozen=True):
    """A feed in a list, with the version that holds today (None: none does)."""

    name: str
    display_name: str | None
    description: str | None
    feed_type: str
    status: str
    version: str | None
    protocol: str | None
    endpoint: str | None


class FeedView(msgspec.Struct, frozen=True):
    """A feed as it was on a day, as it was known at a time: all versions, and which of them holds."""

    name: str
    display_name: str | None
    description: str | None
    feed_type: str
    status: str
    holds: FeedVersionRow | None
    versions: list[FeedVersionRow]
    calendar: Calendar | None


class FeedCatalogue:
    """Feeds in the metadata database. Each method is one transaction; RegistryUnavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, description: FeedDescription, facts: FeedFacts) -> None:
        """Add a feed with its first version. ConfigError for values that cannot be, RefusedError when it exists."""
        check_name(name)
        kind = description.feed_type or "websocket"
        _check(description, kind, facts)
        row: dict[str, str | None] = {"name": name, "feed_type": kind, "status": description.status or "active"}
        row |= {"display_name": description.display_name, "description": description.description}
        with self._database.transaction(f"create feed {name!r}") as connection:
            statement = insert(feeds).values(row).on_conflict_do_nothing()
            feed_id = connection.execute(statement.returning(feeds.c.id)).scalar_one_or_none()
            if feed_id is None:
                self.refuse_existing(name)
            connection.execute(sa.insert(feed_versions).values(_row_of(feed_id, facts, None)))

    def add_version(self, name: str, description: FeedDescription, facts: FeedFacts) -> None:
        """Add a version that holds from a later day on; the one before it ends there.

        RefusedError when the version exists or the day is not after the beginning of the latest one.
        """
        with self._database.transaction(f"add a version to feed {name[:80]!r}") as connection:
            feed_id = find_feed(connection, name, lock=True)
            known = _versions(connection, feed_id)
            if any(row.facts.version == facts.version for row in known):
                hint = "Give another --version, or correct this one: --replace."
                raise RefusedError(f"feed {name!r} has a version {facts.version!r} already", hint)
            if known and facts.effective_from <= (last := known[-1].facts).effective_from:
                message = f"version {last.version!r} of feed {name!r} holds from {last.effective_from}"
                hint = "A later version begins after that day: --effective-from DAY. Correct one: --replace."
                raise RefusedError(message, hint)
            _describe(connection, feed_id, description, facts)
            _write(connection, feed_id, known, [*(row.facts for row in known), facts])

    def replace(self, name: str, version: str, description: FeedDescription, facts: FeedFacts) -> None:
        """Correct the version called `version`: what was known before stays to be asked for with `known_at`.

        RefusedError when there is no such version or the correction would put two on one day.
        """
        with self._database.transaction(f"correct feed {name[:80]!r}") as connection:
            feed_id = find_feed(connection, name, lock=True)
            known = _versions(connection, feed_id)
            names = [row.facts.version for row in known]
            if version not in names:
                message = f"feed {name!r} has no version {version[:80]!r}"
                raise RefusedError(message, f"Its versions: {', '.join(names) or 'none'}.")
            _describe(connection, feed_id, description, facts)
            wanted = [facts if row.facts.version == version else row.facts for row in known]
            _write(connection, feed_id, known, wanted)

    def list(
        self, status: str | None = None, on: date | None = None, known_at: datetime | None = None,
        *, doing: str = "list the feeds",
    ) -> list[ListedFeed]:  # fmt: skip
        """The feeds, by name, with the version that holds on a day (today); only those of a status when it is given.

        `known_at`: those that were known at a time, with the version that was then taken for true. `doing` completes
        "cannot …" in errors: what the feeds are asked for.
        """
        on = on or day_of(now_ns())
        query = sa.select(feeds).order_by(feeds.c.name)
        if known_at is not None:
            query = query.where(_first_known_of_feed() <= known_at)
        if status is not None:
            query = query.where(feeds.c.status == check_choice("status", status, STATUSES))
        with self._database.transaction(doing) as connection:
            rows = connection.execute(query).all()
            held = _known(known_at).where(_holds(on)).order_by(feed_versions.c.effective_from)
            versions = connection.execute(held).all()
        by_feed = {row.feed_id: row for row in versions}  # of several that hold, the latest to begin
        return [_listed(row, by_feed.get(row.id)) for row in rows]

    def refuse_existing(self, name: str) -> NoReturn:
        """Raise what `create` raises for a feed that exists."""
        hint = "Add a later version: --version V or --effective-from DAY. Correct one: --replace."
        raise RefusedError(f"feed {name!r} exists already", hint)

    def find(self, name: str, valid_on: date, *, doing: str) -> FeedView | None:
        """As `show`; None when there is no such feed. `doing` completes "cannot …" in errors."""
        with self._database.transaction(doing) as connection:
            return _view(connection, name, valid_on, None)

    def show(self, name: str, valid_on: date, known_at: datetime | None = None) -> FeedView:
        """One feed as it was on a day, as it was known at a time (None: now).

        ConfigError, with near misses, when it is unknown, and when it was not known yet at that time.
        """
        with self._database.transaction(f"show feed {name[:80]!r}") as connection:
            view = _view(connection, name, valid_on, known_at)
            if view is None:
                raise unknown_feed(name, list(connection.execute(sa.select(feeds.c.name)).scalars()))
        return view


def _view(connection: sa.Connection, name: str, valid_on: date, known_at: datetime | None) -> FeedView | None:
    feed = connection.execute(sa.select(feeds).where(feeds.c.name == storable(name))).one_or_none()
    if feed is None:
        return None
    versions = _versions(connection, feed.id, known_at)
    calendar = connection.execute(_calendar(feed.id, valid_on)).first()
    if not versions and known_at is not None:
        since = connection.execute(_first_known(feed.id)).scalar_one_or_none()
        if since is not None and known_at < since:
            message = f"feed {name!r} was not known at {known_at:%Y-%m-%dT%H:%M:%SZ}"
            raise NotKnown(message, f"It is known since {since:%Y-%m-%dT%H:%M:%S.%fZ}.")
    holding = [row for row in versions if _covers(row, valid_on)]
    return FeedView(
        feed.name, feed.display_name, feed.description, feed.feed_type, feed.status,
        holding[-1] if holding else None, versions, _calendar_of(calendar),
    )  # fmt: skip


def _check(description: FeedDescription, kind: str, facts: FeedFacts) -> None:
    check_choice("type", kind, TYPES)
    check_choice("status", description.status or "active", STATUSES)
    check_text("--display-name", description.display_name or "", 128)
    check_text("--description", description.description or "", 256)
    check_facts(kind, facts)


def _describe(connection: sa.Connection, feed_id: int, description: FeedDescription, facts: FeedFacts) -> None:
    """Check everything, and change what a feed is, where that was given."""
    kind = connection.execute(sa.select(feeds.c.feed_type).where(feeds.c.id == feed_id)).scalar_one()
    _check(description, description.feed_type or kind, facts)
    given = {name: value for name, value in msgspec.structs.asdict(description).items() if value is not None}
    connection.execute(sa.update(feeds).where(feeds.c.id == feed_id).values(**given, updated_at=sa.func.now()))


def _write(connection: sa.Connection, feed_id: int, known: list[FeedVersionRow], wanted: list[FeedFacts]) -> None:
    """Make `wanted` what is known from now on: each version ends where the next begins; rows that stay true stay."""
    chain = sorted(wanted, key=lambda facts: facts.effective_from)
    for before, after in pairwise(chain):
        if before.effective_from == after.effective_from:
            message = f"versions {before.version!r} and {after.version!r} would both begin on {after.effective_from}"
            raise RefusedError(message, "Give another day: --effective-from DAY.")
    ends = [after.effective_from for after in chain[1:]]
    last = next((row for row in known if row.facts.version == chain[-1].version), None)
    # Only the latest version may have an end of its own; a version added behind it has none.
    own_end = last.effective_to if last and last.effective_to and last.effective_to > chain[-1].effective_from else None
    new = list(zip(chain, [*ends, own_end], strict=True))
    same = [(row.facts, row.effective_to) for row in known]
    v = feed_versions.c
    for row in known:
        if (row.facts, row.effective_to) not in new:
            statement = sa.update(feed_versions).values(known_to=sa.func.now())
            current = (v.feed_id == feed_id) & (v.effective_from == row.facts.effective_from) & v.known_to.is_(None)
            connection.execute(statement.where(current))
    for facts, end in new:
        if (facts, end) not in same:
            connection.execute(sa.insert(feed_versions).values(_row_of(feed_id, facts, end)))


def _known(at: datetime | None) -> sa.Select[Any]:
    """The versions that are taken for true, or were at a time."""
    v = feed_versions.c
    if at is None:
        return sa.select(feed_versions).where(v.known_to.is_(None))
    return sa.select(feed_versions).where((v.known_from <= at) & (v.known_to.is_(None) | (v.known_to > at)))


def _holds(on: date) -> sa.ColumnElement[bool]:
    v = feed_versions.c
    return (v.effective_from <= on) & (v.effective_to.is_(None) | (v.effective_to > on))


def _covers(row: FeedVersionRow, on: date) -> bool:
    return row.facts.effective_from <= on and (row.effective_to is None or on < row.effective_to)


def _first_known_of_feed() -> sa.ScalarSelect[Any]:
    v = feed_versions.c
    return sa.select(sa.func.min(v.known_from)).where(v.feed_id == feeds.c.id).correlate(feeds).scalar_subquery()


def _first_known(feed_id: int) -> sa.Select[Any]:
    return sa.select(sa.func.min(feed_versions.c.known_from)).where(feed_versions.c.feed_id == feed_id)


def _versions(connection: sa.Connection, feed_id: int, known_at: datetime | None = None) -> list[FeedVersionRow]:
    """What is known about a feed's versions, or was at a time, by their first day."""
    v = feed_versions.c
    query = _known(known_at).where(v.feed_id == feed_id).order_by(v.effective_from)
    return [_version_of(row) for row in connection.execute(query)]


def _version_of(row: sa.Row[Any]) -> FeedVersionRow:
    facts = FeedFacts(
        version=row.version,
        effective_from=row.effective_from,
        protocol=row.protocol,
        endpoint=row.endpoint_template,
        rest_endpoint=row.rest_endpoint,
        auth_method=row.auth_method or "none",
        secret_ref=row.secret_ref,
        supports_orderbook=row.supports_orderbook,
        supports_trades=row.supports_trades,
        supports_historical=row.supports_historical,
        max_symbols_per_connection=row.max_symbols_per_connection,
        rate_limit_per_second=row.rate_limit_per_second,
        parser_config=row.parser_config,
        required_transport=tuple(row.required_transport or ()),
    )
    return FeedVersionRow(facts, row.effective_to, row.known_from, row.known_to)


def _row_of(feed_id: int, facts: FeedFacts, effective_to: date | None) -> dict[str, Any]:
    row = msgspec.structs.asdict(facts)
    row["endpoint_template"] = row.pop("endpoint")
    row["required_transport"] = list(facts.required_transport) or None
    return {"feed_id": feed_id, "effective_to": effective_to, **row}


def _listed(feed: sa.Row[Any], version: sa.Row[Any] | None) -> ListedFeed:
    return ListedFeed(
        feed.name, feed.display_name, feed.description, feed.feed_type, feed.status,
        version.version if version else None,
        version.protocol if version else None,
        version.endpoint_template if version else None,
    )  # fmt: skip


def _calendar(feed_id: int, on: date) -> sa.Select[Any]:
    c = feed_calendars.c
    holds = (c.effective_from <= on) & (c.effective_to.is_(None) | (c.effective_to > on))
    return sa.select(feed_calendars).where(c.feed_id == feed_id, holds).order_by(c.effective_from.desc())


def _calendar_of(row: sa.Row[Any] | None) -> Calendar | None:
    if row is None:
        return None
    return Calendar(row.timezone, row.open_time, row.close_time, row.holiday_calendar, row.pauses)
