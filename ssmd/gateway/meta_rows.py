"""The rows and documents of `/v1/meta/…` out of what the registry says."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from ssmd.config.values import masked
from ssmd.gateway.meta_documents import (
    CalendarDocument,
    DeploymentRow,
    EnvironmentHistory,
    EnvironmentLinks,
    EnvironmentVersionRow,
    FeedDocument,
    FeedLinks,
    FeedRow,
    FeedVersionDocument,
    SchemaDocument,
    SchemaRow,
    SelfLink,
)
from ssmd.registry.environments import EnvironmentCatalogue, EnvironmentVersion
from ssmd.registry.feeds import Calendar, FeedCatalogue, FeedVersionRow, FeedView, ListedFeed
from ssmd.registry.interface import NotKnown
from ssmd.registry.schemas import SchemaCatalogue, SchemaVersion, holding
from ssmd.registry.values import written

if TYPE_CHECKING:
    from ssmd.registry.database import Database

MAX_HISTORY = 1_000


def time_text(at: datetime) -> str:
    """A time as documents write it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- feeds ------------------------------------------------------------------------------------------------------------


def _feed_links(name: str) -> FeedLinks:
    one = f"/v1/meta/feeds/{name}"
    return FeedLinks(
        one, f"{one}/calendar", f"/v1/meta/inventory?feed={name}", f"/v1/meta/gaps/{name}",
        f"/v1/meta/condition?feed={name}",
    )  # fmt: skip


def feed_row(row: ListedFeed) -> FeedRow:
    """A feed of the list; what is secret in its address is masked."""
    endpoint = None if row.endpoint is None else masked(row.endpoint)
    return FeedRow(
        row.name, row.display_name, row.description, row.feed_type, row.status, row.version, row.protocol, endpoint,
        _feed_links(row.name),
    )  # fmt: skip


def feed_document(database: "Database", name: str, on: date, known_at: datetime | None) -> FeedDocument:
    """A feed as it was on a day, as known at a time. NotKnown when it was not."""
    view: FeedView = FeedCatalogue(database).show(name, on, known_at)
    return FeedDocument(
        name=view.name,
        display_name=view.display_name,
        description=view.description,
        feed_type=view.feed_type,
        status=view.status,
        as_of=on,
        current=None if view.holds is None else _feed_version(view.holds),
        versions=[_feed_version(version) for version in view.versions],
        links=_feed_links(view.name),
    )


def _feed_version(row: FeedVersionRow) -> FeedVersionDocument:
    facts = row.facts
    return FeedVersionDocument(
        version=facts.version,
        effective_from=facts.effective_from,
        effective_to=row.effective_to,
        protocol=facts.protocol,
        endpoint=masked(facts.endpoint),
        rest_endpoint=None if facts.rest_endpoint is None else masked(facts.rest_endpoint),
        auth_method=facts.auth_method,
        supports_orderbook=facts.supports_orderbook,
        supports_trades=facts.supports_trades,
        supports_historical=facts.supports_historical,
        max_symbols_per_connection=facts.max_symbols_per_connection,
        rate_limit_per_second=facts.rate_limit_per_second,
        parser_config=facts.parser_config,
        required_transport=list(facts.required_transport),
        known_from=time_text(row.known_from),
        known_to=written(row.known_to),
    )


def calendar_document(feed: str, on: date, found: Calendar | None) -> CalendarDocument:
    """A calendar, or that there is none."""
    return CalendarDocument(
        feed=feed,
        as_of=on,
        recorded=found is not None,
        always_open=found is not None and found.open_time is None and not found.pauses,
        timezone=found.timezone if found else None,
        open_time=found.open_time if found else None,
        close_time=found.close_time if found else None,
        holiday_calendar=found.holiday_calendar if found else None,
        pauses=found.pauses if found else [],
    )


# --- schemas ----------------------------------------------------------------------------------------------------------


def known_schemas(found: list[SchemaVersion], known_at: datetime | None) -> list[SchemaVersion]:
    """Those that were registered by then."""
    return [row for row in found if known_at is None or row.registered_at <= known_at]


def schema_row(row: SchemaVersion) -> SchemaRow:
    """A schema of the list."""
    return SchemaRow(
        row.name, row.version, row.format, row.hash, row.status, row.effective_from, row.deprecated_at,
        row.compatible_with, row.breaking_changes, time_text(row.registered_at),
        SelfLink(f"/v1/meta/schemas/{quote(row.name)}/{quote(row.version)}"),
    )  # fmt: skip


def schema_document(
    database: "Database", name: str, version: str, on: date, known_at: datetime | None
) -> SchemaDocument:
    """A version with its text, as known at a time. NotKnown when it was not."""
    catalogue = SchemaCatalogue(database)
    row = catalogue.show(name, None if version == "latest" else version)
    known = known_schemas(catalogue.list(name), known_at)
    if version == "latest" and known and row not in known:
        row = next((one for one in reversed(known) if one.status == "active"), known[-1])
    if row not in known:
        raise NotKnown(f"schema {name!r} had no version {version!r} that was known then")
    return SchemaDocument(
        name=row.name,
        version=row.version,
        format=row.format,
        hash=row.hash,
        status=row.status,
        effective_from=row.effective_from,
        deprecated_at=row.deprecated_at,
        compatible_with=row.compatible_with,
        breaking_changes=row.breaking_changes,
        registered_at=time_text(row.registered_at),
        as_of=on,
        holds=row in holding(known, on),
        text=row.text,
    )


# --- environments -----------------------------------------------------------------------------------------------------


def environment_links(name: str) -> EnvironmentLinks:
    """Where to read on about an environment."""
    one = f"/v1/meta/environments/{quote(name)}"
    return EnvironmentLinks(one, f"{one}/history")


def environment_version(version: EnvironmentVersion, at: datetime | None) -> EnvironmentVersionRow:
    """As it was known at a time: what was to come is not told."""

    def by_then(time: datetime | None) -> datetime | None:
        return None if time is None or (at is not None and time > at) else time

    deployed_at = by_then(version.deployed_at)
    return EnvironmentVersionRow(
        version=version.version,
        config_hash=version.config_hash,
        created_at=time_text(version.created_at),
        created_by=version.created_by,
        deployed_at=written(deployed_at),
        deployed_by=version.deployed_by if deployed_at else None,
        git_commit=version.git_commit,
        valid_from=written(by_then(version.valid_from)),
        valid_to=written(by_then(version.valid_to)),
    )


def history_document(database: "Database", name: str, at: datetime | None) -> EnvironmentHistory:
    """Versions and deployments as they were known at a time."""
    catalogue = EnvironmentCatalogue(database)
    versions = [row for row in catalogue.versions(name) if at is None or row.created_at <= at]
    lines = [row for row in catalogue.deployments(name) if at is None or row.started_at <= at]
    return EnvironmentHistory(
        environment=name,
        versions=[environment_version(row, at) for row in versions[-MAX_HISTORY:]],
        deployments=[
            DeploymentRow(
                row.id, row.version, row.action, row.status, time_text(row.started_at), written(row.completed_at),
                row.trigger, row.triggered_by, row.error,
            )
            for row in lines[:MAX_HISTORY]
        ],
    )  # fmt: skip
