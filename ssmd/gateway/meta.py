"""`/v1/meta/…`: feeds, schemas, environments and syncs, as they are, were on a day, and were known at a time."""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ssmd.clock import day_of, now_ns
from ssmd.gateway.meta_documents import (
    CalendarDocument,
    EnvironmentDocument,
    EnvironmentHistory,
    EnvironmentPage,
    EnvironmentRow,
    FeedDocument,
    FeedPage,
    SchemaDocument,
    SchemaPage,
    SyncDocument,
    SyncPage,
)
from ssmd.gateway.meta_rows import (
    calendar_document,
    environment_links,
    environment_version,
    feed_document,
    feed_row,
    history_document,
    known_schemas,
    schema_document,
    schema_row,
    time_text,
)
from ssmd.gateway.remembering import Remembering
from ssmd.gateway.routes import AS_OF, KNOWN_AT, Ask, Parameter, Reply, Route, choice, name_in_path, whole
from ssmd.registry.environments import EnvironmentCatalogue
from ssmd.registry.feed_values import STATUSES
from ssmd.registry.feeds import FeedCatalogue
from ssmd.registry.interface import NotKnown
from ssmd.registry.schemas import SchemaCatalogue, holding
from ssmd.registry.security_master import SecurityMaster
from ssmd.registry.values import written

if TYPE_CHECKING:
    from ssmd.registry.database import Database

TAG = "metadata"
PROBLEMS = (400, 503)
SYNCS_DEFAULT, SYNCS_MAX = 20, 200

FEED = name_in_path("feed", "Name of a feed.")
_NAMED_FEED = name_in_path("name", "Name of a feed.")
_SCHEMA = name_in_path("name", "Name of a schema.", "^[a-z][a-z0-9_-]{0,63}$")
_VERSION = name_in_path("version", "v1, v2, ...; or latest: the last active one.", "^(v[0-9]{1,9}|latest)$")
_ENVIRONMENT = name_in_path("name", "Name of an environment.")
_TIMES = (AS_OF, KNOWN_AT)
_FEEDS_STEP = "GET /v1/meta/feeds lists them."
_SCHEMAS_STEP = "GET /v1/meta/schemas lists them."
_ENVIRONMENTS_STEP = "GET /v1/meta/environments lists them."


class MetaEndpoint:
    """The HTTP handlers for what is registered."""

    def __init__(self, remembering: Remembering, clock: Callable[[], int] = now_ns) -> None:
        self._remembering = remembering
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers. All of it is metadata: `read:history`; the text of an environment is for operators."""
        status = choice("status", "Only those of a status.", STATUSES)
        number = whole("version", "One version of it, in place of that in force.", default=None, most=2**31 - 1)
        limit = whole("limit", "Syncs of the answer.", default=SYNCS_DEFAULT, most=SYNCS_MAX)
        one = (404,)
        return [
            _route("feeds", self.feeds, "Feeds, with the version that holds", FeedPage, (status, *_TIMES)),
            _route("feeds/{name}", self.feed, "A feed and its versions", FeedDocument, (_NAMED_FEED, *_TIMES), one),
            _route(
                "feeds/{name}/calendar", self.calendar, "When its venue is open", CalendarDocument,
                (_NAMED_FEED, *_TIMES), one,
            ),
            _route("schemas", self.schemas, "Versions of schemas", SchemaPage, _TIMES),
            _route(
                "schemas/{name}/{version}", self.schema, "A schema with its text", SchemaDocument,
                (_SCHEMA, _VERSION, *_TIMES), one,
            ),
            _route("environments", self.environments, "Environments and what is in force", EnvironmentPage, _TIMES),
            msgspec.structs.replace(
                _route(
                    "environments/{name}", self.environment, "What an environment says", EnvironmentDocument,
                    (_ENVIRONMENT, number, *_TIMES), one,
                ),
                scope="admin",
                description="It names servers, so that it is for operators; secrets are never in it.",
            ),
            _route(
                "environments/{name}/history", self.history, "Versions and deployments", EnvironmentHistory,
                (_ENVIRONMENT, *_TIMES), one,
            ),
            _route("syncs/{feed}", self.syncs, "Syncs of the security master", SyncPage, (FEED, limit, *_TIMES), one),
        ]  # fmt: skip

    # --- feeds ----------------------------------------------------------------------------------------------------

    async def feeds(self, ask: Ask) -> Reply:
        """All feeds."""
        on, known_at, status = self._day(ask), ask["known_at"], ask["status"]

        def make(database: "Database") -> FeedPage:
            return FeedPage(feeds=[feed_row(row) for row in FeedCatalogue(database).list(status, on, known_at)])

        question = ("feeds", on, known_at, status)
        return await self._remembering.answer(question, FeedPage, make, instead=_FEEDS_STEP, rare=_is_rare(ask))

    async def feed(self, ask: Ask) -> Reply:
        """One feed."""
        name, on, known_at = ask["name"], self._day(ask), ask["known_at"]
        make = partial(feed_document, name=name, on=on, known_at=known_at)
        question = ("feed", name, on, known_at)
        return await self._remembering.answer(question, FeedDocument, make, instead=_FEEDS_STEP, rare=_is_rare(ask))

    async def calendar(self, ask: Ask) -> Reply:
        """The trading calendar; corrections of it are not kept: `known_at` only asks whether the feed was known."""
        name, on, known_at = ask["name"], self._day(ask), ask["known_at"]

        def make(database: "Database") -> CalendarDocument:
            return calendar_document(name, on, FeedCatalogue(database).show(name, on, known_at).calendar)

        question = ("calendar", name, on, known_at)
        return await self._remembering.answer(question, CalendarDocument, make, instead=_FEEDS_STEP, rare=_is_rare(ask))

    # --- schemas --------------------------------------------------------------------------------------------------

    async def schemas(self, ask: Ask) -> Reply:
        """All versions; with `as_of` those that held on a day. The status of a version is always today's."""
        on, known_at = ask["as_of"], ask["known_at"]

        def make(database: "Database") -> SchemaPage:
            known = known_schemas(SchemaCatalogue(database).list(), known_at)
            return SchemaPage(schemas=[schema_row(row) for row in (holding(known, on.date()) if on else known)])

        question = ("schemas", on, known_at)
        return await self._remembering.answer(question, SchemaPage, make, instead=_SCHEMAS_STEP, rare=_is_rare(ask))

    async def schema(self, ask: Ask) -> Reply:
        """One version with its text."""
        name, version, on, known_at = ask["name"], ask["version"], self._day(ask), ask["known_at"]
        make = partial(schema_document, name=name, version=version, on=on, known_at=known_at)
        question = ("schema", name, version, on, known_at)
        return await self._remembering.answer(question, SchemaDocument, make, instead=_SCHEMAS_STEP, rare=_is_rare(ask))

    # --- environments ---------------------------------------------------------------------------------------------

    async def environments(self, ask: Ask) -> Reply:
        """All environments, without what they say."""
        at = _earlier(ask)

        def make(database: "Database") -> EnvironmentPage:
            found = EnvironmentCatalogue(database).environments(at)
            return EnvironmentPage(
                environments=[
                    EnvironmentRow(
                        row.name, row.status, row.description, row.version, row.versions, written(row.deployed_at),
                        row.deployed_by, environment_links(row.name),
                    )
                    for row in found
                ]
            )  # fmt: skip

        question = ("environments", at)
        return await self._remembering.answer(
            question, EnvironmentPage, make, instead=_ENVIRONMENTS_STEP, rare=_is_rare(ask)
        )

    async def environment(self, ask: Ask) -> Reply:
        """The version in force, or one that was; never deployed: the latest."""
        name, number, at = ask["name"], ask["version"], _earlier(ask)

        def make(database: "Database") -> EnvironmentDocument:
            catalogue = EnvironmentCatalogue(database)
            if number is not None:
                version = catalogue.version(name, number)
                if at is not None and version.created_at > at:
                    raise NotKnown(f"the environment {name!r} had no version {number} then")
            else:
                version = catalogue.newest(name) if at is None else catalogue.as_of(name, at)
            row = environment_version(version, at)
            return EnvironmentDocument(
                name=name,
                config_yaml=version.config_yaml,
                links=environment_links(name),
                **msgspec.structs.asdict(row),
            )

        question = ("environment", name, number, at)
        return await self._remembering.answer(
            question, EnvironmentDocument, make, instead=_ENVIRONMENTS_STEP, rare=_is_rare(ask)
        )

    async def history(self, ask: Ask) -> Reply:
        """Versions and the deployment log; what went wrong is for operators' keys."""
        name, at = ask["name"], _earlier(ask)
        make = partial(history_document, name=name, at=at)
        reply = await self._remembering.answer(
            ("history", name, at), EnvironmentHistory, make, instead=_ENVIRONMENTS_STEP, rare=_is_rare(ask)
        )
        if "admin" in ask.caller.scopes:
            return reply
        assert isinstance(reply.document, EnvironmentHistory)
        quiet = [msgspec.structs.replace(row, error=None) for row in reply.document.deployments]
        return Reply(msgspec.structs.replace(reply.document, deployments=quiet), reply.headers)

    # --- syncs ----------------------------------------------------------------------------------------------------

    async def syncs(self, ask: Ask) -> Reply:
        """The last syncs."""
        feed, limit, at = ask["feed"], ask["limit"], _earlier(ask)

        def make(database: "Database") -> SyncPage:
            rows = SecurityMaster(database).syncs(feed, limit if at is None else SYNCS_MAX)
            found = [
                SyncDocument(
                    row.kind, row.status, time_text(row.started_at), written(row.completed_at), row.series, row.events,
                    row.markets, row.open_markets, row.inserted, row.changed,
                )
                for row in rows
                if at is None or row.started_at <= at
            ]  # fmt: skip
            return SyncPage(feed=feed, syncs=found[:limit])

        question = ("syncs", feed, limit, at)
        return await self._remembering.answer(question, SyncPage, make, instead=_FEEDS_STEP, rare=_is_rare(ask))

    def _day(self, ask: Ask) -> date:
        at: datetime | None = ask["as_of"]
        return at.date() if at else day_of(self._clock())


def _route(
    path: str,
    handler: Callable[[Ask], object],
    summary: str,
    answer: type,
    parameters: Iterable[Parameter],
    problems: tuple[int, ...] = (),
) -> Route:
    return meta_route(path, handler, summary, answer, tuple(parameters), problems)


def meta_route(
    path: str,
    handler: object,
    summary: str,
    answer: type,
    parameters: tuple[Parameter, ...],
    problems: tuple[int, ...] = (),
) -> Route:
    """A route below /v1/meta."""
    return Route(
        f"/v1/meta/{path}", handler, "read:history", summary, answer, parameters,  # type: ignore[arg-type]
        tag=TAG, etag=True, problems=(*PROBLEMS, *problems),
    )  # fmt: skip


def _is_rare(ask: Ask) -> bool:
    """Any moment may be asked for: such answers are not worth keeping long."""
    return ask["as_of"] is not None or ask["known_at"] is not None


def _earlier(ask: Ask) -> datetime | None:
    """Of what is known as it happens, both times mean the same: the earlier one counts."""
    given: list[datetime] = [at for at in (ask["as_of"], ask["known_at"]) if at is not None]
    return min(given, default=None)
