"""What `ssmd env validate` looks at: keys, feed, schemas, servers; all at once, in seconds, writing nothing."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from ssmd.cli.env_report import DEMO_KEY, ENVIRONMENT, KEYS, Check
from ssmd.cli.env_servers import (
    Site,
    check_cache,
    check_journal,
    check_storage,
    check_stream,
    feeds_of,
    look_into_registry,
)
from ssmd.cli.key_fit import feed_problems
from ssmd.cli.key_stack import demo_key
from ssmd.cli.options import Chosen
from ssmd.config import reading
from ssmd.config.environment import Environment
from ssmd.config.loading import InvalidEnvironment, loads, read_file, shown
from ssmd.config.reading import Document, Problem
from ssmd.config.values import KeyRef
from ssmd.config.writing import embedded_secrets
from ssmd.errors import ConfigError
from ssmd.feeds.catalogue import open_feed
from ssmd.keys.state import KeyState, key_states, needed_fields
from ssmd.keys.stores import standard_stores
from ssmd.nearest import did_you_mean, nearest
from ssmd.registry.survey import SHIPPED_VERSION, Survey, built_in, shipped_schemas

EXPIRES_SOON_DAYS = 14


def read(file: Path) -> Environment:
    """The environment in a file; InvalidEnvironment names what is wrong in it, the feed's name included."""
    raw = read_file(file)
    try:
        return loads(raw, shown(file))
    except InvalidEnvironment as error:
        extra = _feed_problem(reading.read(raw))
        if extra is None or any(problem.path == extra.path for problem in error.problems):
            raise
        raise InvalidEnvironment(shown(file), [*error.problems, extra]) from error


def _feed_problem(document: Document) -> Problem | None:
    """What is wrong with the feed that a broken file names, asked of its database where that can be done."""
    spec = document.data.get("spec") if isinstance(document.data, dict) else None
    feed = spec.get("feed") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(feed, str):
        return None
    database = spec.get("database")
    url = database.get("url") if isinstance(database, dict) else database
    known: Mapping[str, str] = built_in("").feeds
    if isinstance(url, str) and feed not in known:
        known = asyncio.run(feeds_of(url)) or known
    if feed in known:
        return None
    guess = nearest(feed, known)
    advice = f"did you mean {guess!r}?" if guess else f"known: {', '.join(sorted(known))}"
    return Problem("spec.feed", document.line_of(("spec", "feed")), f"is not found in the feed registry; {advice}")


def look(chosen: Chosen, *, write: bool = False) -> tuple[list[Check], list[KeyState]]:
    """Every line about an environment, and the state of its keys; `write` tries the storage by writing, too."""
    return asyncio.run(_look(chosen, write))


async def _look(chosen: Chosen, write: bool) -> tuple[list[Check], list[KeyState]]:
    environment, now = chosen.environment, datetime.now(UTC)
    stores = standard_stores(os.environ, chosen.home, environment.name)
    demo = demo_key(chosen)
    problem_of = feed_problems(environment)
    plain = key_states(environment, stores, {}, now, problem_of=problem_of)
    unset = {state.name: state.required for state in plain if state.missing_fields and state.name != demo}
    site = Site(chosen, unset, write)
    (survey, database), storage, cache, journal, stream = await asyncio.gather(
        look_into_registry(site), check_storage(site), check_cache(site), check_journal(site), check_stream(site)
    )
    states = [
        replace(state, status="set", missing_fields=()) if state.name == demo and state.status == "not_set" else state
        for state in key_states(environment, stores, survey.rotations, now, survey.sealed, problem_of)
    ]
    in_store = {state.name for state in plain if not state.missing_fields}
    checks = [
        *_defined_keys(environment),
        *_embedded(environment),
        *_gateway(chosen, now),
        *feed_checks(chosen, survey, states, database_away=survey.built_in and bool(database[0].fix)),
        *_schemas(survey, chosen.with_file),
        *database,
        *storage,
        *cache,
        *journal,
        *stream,
        *(_key_status(chosen, state, now, is_demo=state.name == demo not in in_store) for state in states),
    ]
    return checks, states


def _line(text: str) -> Check:
    return Check(ENVIRONMENT, text)


def _defined_keys(environment: Environment) -> Iterator[Check]:
    keys = environment.spec.keys
    yield _line("Keys section present") if keys else Check(ENVIRONMENT, "Keys section present, and empty", "note")
    for name, key in keys.items():
        if key.required:
            yield _line(f"Key '{name}' defined ({key.type}, required)")
        else:
            yield Check(ENVIRONMENT, f"Key '{name}' defined ({key.type}, optional)", "note")


def _embedded(environment: Environment) -> Iterator[Check]:
    for path in embedded_secrets(environment):
        text = f"A password stands in the file, at {path}; `ssmd env apply` records the file with *** in its place"
        yield Check(ENVIRONMENT, text, "note", "Define a key for it in spec.keys, and write $key:name there.", path)


def _gateway(chosen: Chosen, now: datetime) -> Iterator[Check]:
    """Where clients' keys are kept, and the certificate files of the gateway as it will find them."""
    spec = chosen.environment.spec
    if spec.gateway.auth == "keys" and spec.database_url is None:
        text = "Gateway asks clients for keys, and there is no database that keeps them"
        yield Check(ENVIRONMENT, text, "config", "Add spec.database.url, or write auth: none.", "spec.gateway.auth")
    settings = spec.gateway.tls
    if settings is None:
        return
    from ssmd.gateway.tls import TlsFiles

    try:
        found = TlsFiles(settings, chosen.home).check(now)
    except ConfigError as error:
        yield Check(ENVIRONMENT, f"Gateway's certificate: {error.message}", "refused", error.hint, "spec.gateway.tls")
        return
    days = int(found.days_left(now))
    said = f"Gateway's certificate fits its key (expires in {days} day{'s' if days != 1 else ''})"
    if days < EXPIRES_SOON_DAYS:
        yield Check(ENVIRONMENT, said, "note", "Renew it; the gateway takes new files without a restart.")
    else:
        yield _line(said)


def feed_checks(chosen: Chosen, survey: Survey, states: list[KeyState], *, database_away: bool) -> Iterator[Check]:
    """Is the feed known, active, fit for this transport and this program?"""
    environment = chosen.environment
    feed, status = environment.spec.feed, survey.feeds.get(environment.spec.feed)
    origin = " (built in)" if survey.built_in else ""
    if status is None:
        yield unknown_feed(feed, survey, database_away=database_away)
        return
    if status == "active":
        yield _line(f"Feed '{feed}' exists and is active{origin}")
    else:
        yield Check(ENVIRONMENT, f"Feed '{feed}' exists and is {status}, NOT active", "refused",
                    f"Run: ssmd feed list --status active{chosen.with_file}", "spec.feed")  # fmt: skip
    yield from _fitting(chosen, survey, states)


def unknown_feed(feed: str, survey: Survey, *, database_away: bool) -> Check:
    """The line about a feed that nobody knows; without the registry, only those that can be captured are known."""
    known = ", ".join(f"{name} ({status})" for name, status in sorted(survey.feeds.items())[:20])
    fix = f"{did_you_mean(feed, survey.feeds)} Available feeds: {known or 'none'}".strip()
    text = f"Feed '{feed}' not found in feed registry"
    if database_away:
        text = f"Feed '{feed}' is not built in, and the registry cannot be asked"
    return Check(ENVIRONMENT, text, "config", fix, "spec.feed")


def _fitting(chosen: Chosen, survey: Survey, states: list[KeyState]) -> Iterator[Check]:
    environment = chosen.environment
    feed, transport = environment.spec.feed, environment.spec.middleware.transport.type
    if survey.rules is None:
        yield Check(ENVIRONMENT, f"Feed '{feed}' has no version that holds today", "refused",
                    f"Run: ssmd feed show {feed}{chosen.with_file}", "spec.feed")  # fmt: skip
        return
    allowed = survey.rules.transports
    if not allowed or transport in allowed:
        yield _line(f"Transport '{transport}' is compatible with feed '{feed}'")
    else:
        yield Check(ENVIRONMENT, f"Transport '{transport}' is NOT compatible with feed '{feed}'", "config",
                    f"Feed '{feed}' works with: {', '.join(allowed)}.", "spec.middleware.transport.type")  # fmt: skip
    try:
        open_feed(feed, datetime.now(UTC).date())
    except ConfigError:
        yield Check(ENVIRONMENT, f"Feed '{feed}' cannot be captured by this version: it has no decoder for it", "note")
    if survey.rules.secret_ref:
        yield _secret(environment, survey.rules.secret_ref, states)


def _secret(environment: Environment, reference: str, states: list[KeyState]) -> Check:
    """The secret that the feed's version names: a key of the environment, or a Secret in the cluster."""
    feed = environment.spec.feed
    if not reference.startswith("$key:"):
        secret = reference.rpartition("/")[2]
        if any((state.sealed_secret_ref or "").rpartition("/")[2] == secret for state in states):
            return _line(f"Secret '{reference}' exists")
        text = f"Secret '{reference}' is not known to the registry; it lies in the cluster, or nowhere"
        return Check(ENVIRONMENT, text, "note")
    parsed = KeyRef.parse(reference)
    state = next((state for state in states if parsed and state.name == parsed.name), None)
    if state is None:
        name = parsed.name if parsed else feed
        fix = f"Add spec.keys.{name}: {{type: api_key, fields: [api_key, api_secret]}}"
        text = f"Secret '{reference}', which feed '{feed}' needs, is NOT defined in spec.keys"
        return Check(ENVIRONMENT, text, "config", fix, "spec.keys")
    if state.status == "not_set":
        return Check(ENVIRONMENT, f"Secret '{reference}' is defined, and has no value yet", "note")
    return _line(f"Secret '{reference}' exists")


def _schemas(survey: Survey, option: str = "") -> Iterator[Check]:
    """The schemas that this program writes: registered, active, and the same text. `option` ends printed commands."""
    for name, shipped in shipped_schemas().items():
        said, found = f"Schema '{name}:{SHIPPED_VERSION}'", survey.schemas.get(name)
        if found is None:
            yield Check(ENVIRONMENT, f"{said} is NOT registered", "refused", f"Run: ssmd db migrate{option}")
        elif found.hash != shipped:
            text = f"{said} is registered with another text than this version of ssmd writes"
            show = f"ssmd schema show {name} --version {SHIPPED_VERSION}{option}"
            fix = f"Run: {show}, and compare it with schemas/{name}.capnp"
            yield Check(ENVIRONMENT, text, "refused", fix)
        elif found.status != "active":
            yield Check(
                ENVIRONMENT,
                f"{said} exists and is {found.status}, NOT active",
                "refused",
                f"Run: ssmd schema list{option}",
            )
        else:
            yield _line(f"{said} exists and is active{' (built in)' if survey.built_in else ''}")


def _key_status(chosen: Chosen, state: KeyState, now: datetime, *, is_demo: bool) -> Check:
    said, days = f"Key '{state.name}'", state.expires_in_days(now)
    if is_demo:
        return Check(KEYS, f"{said} is {DEMO_KEY}", "note")
    if state.problem:
        return Check(KEYS, f"{said} cannot be used: {state.problem}", "refused" if state.required else "note")
    if state.status == "not_set" and not state.required:
        return Check(KEYS, f"{said} is not set (optional)", "note")
    if state.status == "not_set":
        whole = state.missing_fields == needed_fields(chosen.environment.spec.keys[state.name])
        part = "" if whole else f": no value for {', '.join(state.missing_fields)}"
        return Check(KEYS, f"{said} is NOT SET{part}", "refused")
    if state.status == "expired" and state.expires_at:
        text = f"{said} has EXPIRED ({state.expires_at:%Y-%m-%d})"
        return Check(KEYS, text, "refused" if state.required else "note", _rotate(chosen, state))
    if days is not None and days < EXPIRES_SOON_DAYS:
        return Check(
            KEYS, f"{said} is set (expires in {days} day{'s' if days != 1 else ''})", "note", _rotate(chosen, state)
        )
    return Check(KEYS, f"{said} is set")


def _rotate(chosen: Chosen, state: KeyState) -> str:
    return f"Run: ssmd key rotate {chosen.environment.name} {state.name}{chosen.with_name}"
