"""`ssmd feed`: which exchanges the registry knows, and how each is reached on a day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ssmd.cli.moments import AsOf, KnownAt, moment
from ssmd.cli.opening import database_of
from ssmd.cli.options import EnvFile, Json, choose
from ssmd.cli.output import GOOD, mark_line, show_fields, show_json, show_rows
from ssmd.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ssmd.registry.feed_values import FeedFacts
    from ssmd.registry.feeds import Calendar, FeedDescription, FeedVersionRow, FeedView

app = App(name="feed", help="Exchanges the registry knows, and how each is reached on a day.")
_COLUMNS = {
    "name": "NAME", "type": "TYPE", "status": "STATUS", "version": "VERSION", "endpoint": "ENDPOINT",
    "description": "DESCRIPTION",
}  # fmt: skip
_VERSION_COLUMNS = {
    "version": "VERSION", "effective_from": "FROM", "effective_to": "UNTIL", "endpoint": "ENDPOINT",
    "known_from": "KNOWN_FROM",
}  # fmt: skip


@dataclass(frozen=True)
class About:
    """What the feed is."""

    type: str | None = None
    """websocket, rest or multicast; default: what the protocol says."""
    display_name: str | None = None
    """Its name for people."""
    description: str | None = None
    """What it is, in a few words."""
    status: str | None = None
    """active, deprecated or disabled."""


@dataclass(frozen=True)
class Reach:
    """How it is reached, and what it can do."""

    protocol: str | None = None
    """wss, ws, https, http or multicast; default: the scheme of --endpoint."""
    endpoint: str | None = None
    """URL of the data."""
    rest_endpoint: str | None = None
    """URL of the REST API, up to and without the resource's path."""
    auth_method: str | None = None
    """none, api_key, oauth or mtls."""
    secret: str | None = None
    """Where the credentials are: sealed-secret/NAME or $key:NAME. Never the credentials."""
    orderbook: bool | None = None
    """Whether it has order books."""
    trades: bool | None = None
    """Whether it has trades."""
    historical: bool | None = None
    """Whether old data can be asked for."""
    max_symbols: int | None = None
    """Symbols on one connection, at most."""
    rate_limit: int | None = None
    """Requests a second, at most."""
    transport: tuple[str, ...] = ()
    """A transport it works with (repeat for several); default: any."""


@app.command
def create(
    name: str,
    *,
    about: Annotated[About | None, Parameter(name="*")] = None,
    reach: Annotated[Reach | None, Parameter(name="*")] = None,
    version: str | None = None,
    effective_from: date | None = None,
    replace: Annotated[bool, Parameter(negative=())] = False,
    env: EnvFile = None,
    json: Json = False,
) -> int:
    """Add a feed; or a later version of one, or (with --replace) correct one. Checked before anything is stored.

    What is not given of a later or corrected version is as before.

    Parameters
    ----------
    name
        a-z, 0-9 and -, at most 32; the first token of every subject.
    version
        v1, v2, ...; a new one adds a version to a feed that exists.
    effective_from
        First day of the version; default: today. The version before it ends there.
    replace
        Correct the version named by --version, or the one that holds today. What was known before stays on record.
    """
    from ssmd.registry.feeds import FeedCatalogue, FeedDescription

    about, reach = about or About(), reach or Reach()
    description = FeedDescription(about.type, about.display_name, about.description, about.status)
    today = datetime.now(UTC).date()
    with database_of(choose(env)) as database:
        catalogue = FeedCatalogue(database)
        known = catalogue.find(name, today, doing=f"create feed {name[:80]!r}")
        if known is None:
            if replace:
                catalogue.show(name, today)  # says that there is none, and which one may be meant
            facts = _facts(reach, None, version or "v1", effective_from or today)
            catalogue.create(name, _with_type(description, facts), facts)
        elif replace:
            before = _replaced(known, version)
            facts = _facts(reach, before, before.version, effective_from or before.effective_from)
            catalogue.replace(name, before.version, description, facts)
        elif version is None and effective_from is None:
            catalogue.refuse_existing(name)
        else:
            last = known.versions[-1].facts if known.versions else None
            facts = _facts(reach, last, version or _next(known), effective_from or today)
            catalogue.add_version(name, description, facts)
        view = catalogue.show(name, facts.effective_from)
    if json:
        show_json(_answer(view))
    else:
        mark_line(GOOD, name, f"{facts.version} from {facts.effective_from}: {facts.endpoint}")
    return EXIT_DONE


@app.command(name="list")
def list_feeds(*, status: str | None = None, env: EnvFile = None, json: Json = False) -> int:
    """List the feeds, with the version that holds today.

    Parameters
    ----------
    status
        Only those that are active, deprecated or disabled.
    """
    from ssmd.registry.feeds import FeedCatalogue

    with database_of(choose(env)) as database:
        feeds = FeedCatalogue(database).list(status)
    rows = [
        {
            "name": feed.name, "display_name": feed.display_name, "description": feed.description,
            "type": feed.feed_type, "status": feed.status, "version": feed.version, "protocol": feed.protocol,
            "endpoint": feed.endpoint,
        }
        for feed in feeds
    ]  # fmt: skip
    show_rows(rows, _COLUMNS, as_json=json, empty="no such feed; to add the built-in ones: ssmd db migrate")
    return EXIT_DONE


@app.command
def show(name: str, *, as_of: AsOf = None, known_at: KnownAt = None, env: EnvFile = None, json: Json = False) -> int:
    """Show a feed: the version that holds, all versions, calendar and transports; as it was, or as it was known."""
    from ssmd.registry.feeds import FeedCatalogue

    now = datetime.now(UTC)
    day = moment("--as-of", as_of, now).date()
    known = moment("--known-at", known_at, now) if known_at is not None else None
    with database_of(choose(env)) as database:
        view = FeedCatalogue(database).show(name, day, known)
    if json:
        show_json(_answer(view) | {"as_of": day, "known_at": known})
        return EXIT_DONE
    show_fields(_fields(view, day))
    print("\nVersions:")
    rows = [_version(row) | {"known_from": f"{row.known_from:%Y-%m-%dT%H:%M:%SZ}"} for row in view.versions]
    show_rows(rows, _VERSION_COLUMNS, as_json=False, empty="none was known then")
    return EXIT_DONE


def _facts(reach: Reach, before: "FeedFacts | None", version: str, effective_from: date) -> "FeedFacts":
    """The version that was asked for; what was not given is as in `before`, or as in any new feed."""
    import msgspec

    from ssmd.registry.feed_values import FeedFacts, scheme_of

    if before is None and reach.endpoint is None:
        raise ConfigError("a new feed needs an address", "Add --endpoint wss://host/path.")
    given: dict[str, Any] = {
        "protocol": reach.protocol or (None if reach.endpoint is None else scheme_of(reach.endpoint)),
        "endpoint": reach.endpoint,
        "rest_endpoint": reach.rest_endpoint,
        "auth_method": reach.auth_method or ("api_key" if reach.secret and before is None else None),
        "secret_ref": reach.secret,
        "supports_orderbook": reach.orderbook,
        "supports_trades": reach.trades,
        "supports_historical": reach.historical,
        "max_symbols_per_connection": reach.max_symbols,
        "rate_limit_per_second": reach.rate_limit,
        "required_transport": reach.transport or None,
    }
    if reach.auth_method == "none" and reach.secret is None and before is not None:
        before = msgspec.structs.replace(before, secret_ref=None)
    known = {key: value for key, value in given.items() if value is not None}
    if before is not None:
        return msgspec.structs.replace(before, version=version, effective_from=effective_from, **known)
    return FeedFacts(version=version, effective_from=effective_from, **known)


def _with_type(description: "FeedDescription", facts: "FeedFacts") -> "FeedDescription":
    import msgspec

    from ssmd.registry.feed_values import PROTOCOLS

    kind = description.feed_type or PROTOCOLS.get(facts.protocol)
    return msgspec.structs.replace(description, feed_type=kind)


def _replaced(known: "FeedView", version: str | None) -> "FeedFacts":
    """The version to correct: the one named, else the one that holds today, else the latest."""
    rows = [row for row in known.versions if row.facts.version == version] if version else known.versions
    if not rows:
        names = ", ".join(row.facts.version for row in known.versions)
        raise ConfigError(f"feed {known.name!r} has no version {str(version)[:80]!r}", f"Its versions: {names}.")
    return known.holds.facts if known.holds and not version else rows[-1].facts


def _next(known: "FeedView") -> str:
    numbers = [row.facts.version[1:] for row in known.versions if row.facts.version.startswith("v")]
    return f"v{max((int(text) for text in numbers if text.isdecimal()), default=0) + 1}"


def _fields(view: "FeedView", day: date) -> dict[str, object]:
    fields: dict[str, object] = {
        "Name": view.name,
        "Display Name": view.display_name,
        "Description": view.description,
        "Type": view.feed_type,
        "Status": view.status,
    }
    if view.holds is None:
        return fields | {"Version": f"none holds on {day}"}
    facts = view.holds.facts
    until = f" until {view.holds.effective_to}" if view.holds.effective_to else ""
    can = {"orderbook": facts.supports_orderbook, "trades": facts.supports_trades}
    can["historical"] = facts.supports_historical
    return fields | {
        "Version": f"{facts.version} (from {facts.effective_from}{until})",
        "Protocol": facts.protocol,
        "Endpoint": facts.endpoint,
        "REST Endpoint": facts.rest_endpoint,
        "Auth Method": facts.auth_method,
        "Secret": facts.secret_ref,
        "Supports": ", ".join(name for name, able in can.items() if able),
        "Max Symbols": facts.max_symbols_per_connection,
        "Rate Limit": f"{facts.rate_limit_per_second} per second" if facts.rate_limit_per_second else None,
        "Required Transport": ", ".join(facts.required_transport) or "any",
        "Calendar": _calendar(view.calendar),
    }


def _calendar(calendar: "Calendar | None") -> str:
    if calendar is None:
        return "24/7"
    hours = f"{calendar.open_time:%H:%M}-{calendar.close_time:%H:%M}" if calendar.open_time else "24/7"
    pauses = [f"closed {p['weekday']} {p['from']}-{p['to']}" for p in calendar.pauses]
    return ", ".join([hours, *pauses, calendar.timezone or "UTC"])


def _answer(view: "FeedView") -> dict[str, Any]:
    import msgspec

    return {
        "name": view.name,
        "display_name": view.display_name,
        "description": view.description,
        "type": view.feed_type,
        "status": view.status,
        "holds": _version(view.holds) if view.holds else None,
        "versions": [_version(row) for row in view.versions],
        "calendar": msgspec.structs.asdict(view.calendar) if view.calendar else None,
    }


def _version(row: "FeedVersionRow") -> dict[str, Any]:
    import msgspec

    facts = msgspec.structs.asdict(row.facts)
    ends = {"effective_to": row.effective_to, "known_from": row.known_from, "known_to": row.known_to}
    return facts | ends
