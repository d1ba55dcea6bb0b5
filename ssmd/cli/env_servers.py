"""Do the servers of an environment answer? Each look is bounded in time, leaves no trace and waits for no other."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

from ssmd.cli.env_report import ENVIRONMENT, Check, Severity
from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen
from ssmd.cli.reaching import LIMIT_S, aside, reach
from ssmd.clock import day_of, now_ns
from ssmd.config import middleware as kinds
from ssmd.config.values import KeyRef, is_loopback, masked
from ssmd.errors import ConfigError, SsmdError, TransientError, Unavailable
from ssmd.market.subjects import stream_name
from ssmd.registry.database import Database
from ssmd.registry.db import parse
from ssmd.registry.survey import Survey, built_in, survey

_PROBE = "_ssmd/validate/"  # a prefix under which nothing lies: listing it proves access, whatever the bucket holds
_REFUSALS = ("has no such bucket", "refuses the credentials")  # a store that answers, and says no
_MAX_WHY = 160


class Site(NamedTuple):
    """An environment to be looked at; `unset` are its keys without a value, and whether each is required.

    `write`: prove that the storage takes objects, by writing one and removing it.
    """

    chosen: Chosen
    unset: Mapping[str, bool]
    write: bool

    def blocked(self, *values: str | None) -> str:
        """The first key without a value that one of these settings needs; "" when all can be used."""
        for value in values:
            reference = KeyRef.parse(value) if value else None
            if reference is not None and reference.name in self.unset:
                return reference.name
        return ""

    def blocked_credentials(self, credentials: str | None) -> str:
        """As `blocked`; the credentials of an optional key without a value are simply not used."""
        name = self.blocked(credentials)
        return name if name and self.unset[name] else ""


@asynccontextmanager
async def _opened(site: Site) -> AsyncIterator[Opener]:
    """Open within the time limit; what is not done then is Unavailable."""
    try:
        async with asyncio.timeout(LIMIT_S), AsyncExitStack() as stack:
            yield Opener(site.chosen, stack)
    except TimeoutError as error:
        raise Unavailable("no answer in time") from error


def _line(text: str, severity: Severity = "good", fix: str = "", path: str = "") -> Check:
    return Check(ENVIRONMENT, text, severity, fix, path)


def _severity(error: SsmdError) -> Severity:
    """A server that is away, or one that refuses us."""
    return "unavailable" if isinstance(error, TransientError) else "refused"


def _fix(site: Site, host: str | None, setting: str) -> str:
    if host is not None and is_loopback(host):
        return f"Run: ssmd up{site.chosen.with_file}"
    return f"Start it, or correct {setting}."


def _why(error: SsmdError) -> str:
    text = " ".join(error.message.split())
    return text if len(text) <= _MAX_WHY else text[: _MAX_WHY - 1] + "…"


def _unset(what: str, key: str, site: Site) -> list[Check]:
    """What cannot be looked at, for want of a key that has its own line (or, an optional one, should have a value)."""
    text = f"{what} not looked at: its key '{key}' has no value here"
    if site.unset[key]:
        return [_line(text, "note")]
    return [_line(text, "refused", f"Run: ssmd key set {site.chosen.environment.name} {key}{site.chosen.with_name}")]


async def look_into_registry(site: Site) -> tuple[Survey, list[Check]]:
    """What the registry knows (or, without a database, this program), and a line about the database."""
    environment = site.chosen.environment
    url, feed = environment.spec.database_url, environment.spec.feed
    if url is None:
        return built_in(feed), [_line("Registry is kept in memory: nothing outlives the process", "note")]
    where = masked(url)
    if key := site.blocked(url):
        return built_in(feed), _unset(f"Database '{where}'", key, site)
    host: str | None = None
    try:
        async with _opened(site) as opener:
            text = opener.secrets.text(url)
            server = parse(text)
            host = server.host
            if host and not host.startswith("/"):
                await reach(host, server.port or 5432)
            found = await aside(lambda: _survey(text, environment.name, feed))
    except SsmdError as error:
        migrate = f"Run: ssmd db migrate{site.chosen.with_file}"
        fix = migrate if "ssmd db migrate" in error.hint else _fix(site, host, "spec.database.url")
        text = f"Database '{where}' is NOT reachable: {_why(error)}"
        return built_in(feed), [_line(text, _severity(error), fix, "spec.database.url")]
    if found.pending:
        count = len(found.pending)
        text = f"Database '{where}' is reachable, and lacks {count} migration{'s' if count > 1 else ''} of sql/"
        return found, [_line(text, "refused", f"Run: ssmd db migrate{site.chosen.with_file}", "spec.database.url")]
    return found, [_line(f"Database '{where}' is reachable and migrated")]


async def feeds_of(url: str) -> Mapping[str, str]:
    """The feeds of the database at a URL, with their status; {} when it cannot be asked."""
    try:
        server = parse(url)
        await reach(server.host or "", server.port or 5432)
        return (await aside(lambda: _survey(url, "", ""))).feeds
    except (SsmdError, TimeoutError, ValueError):
        return {}  # what is wrong with the URL is reported where the file is read


def _survey(url: str, environment: str, feed: str) -> Survey:
    database = Database(url)
    try:
        return survey(database, environment, feed, day_of(now_ns()))
    finally:
        database.close()


async def check_storage(site: Site) -> list[Check]:
    """The archive: does it answer, and are its buckets there?"""
    config = site.chosen.environment.spec.middleware.storage
    if isinstance(config, kinds.MemoryStorage):
        return [_line("Storage is kept in memory: nothing outlives the process", "note")]
    buckets = (config.buckets.raw, config.buckets.normalized)
    if isinstance(config, kinds.LocalStorage):
        return await _check_folder(site, site.chosen.home / config.path, buckets)
    return await _check_s3(site, config, buckets)


async def _check_s3(site: Site, config: kinds.S3Storage, buckets: tuple[str, ...]) -> list[Check]:
    setting = "spec.middleware.storage.endpoint"
    where = masked(config.endpoint) if config.endpoint else f"https://s3.{config.region}.amazonaws.com"
    parts = urlsplit(where)
    try:
        await reach(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except Unavailable as error:
        lines = [_line(f"Storage endpoint '{where}' is NOT reachable: {_why(error)}", "unavailable",
                       _fix(site, parts.hostname, setting), setting)]  # fmt: skip
        return lines + [_line(f"Storage bucket '{bucket}' is NOT accessible", "unavailable") for bucket in buckets]
    lines = [_line(f"Storage endpoint '{where}' is reachable")]
    if key := site.blocked_credentials(config.credentials):
        return lines + [check for bucket in buckets for check in _unset(f"Storage bucket '{bucket}'", key, site)]
    return lines + list(await asyncio.gather(*(_check_bucket(site, bucket) for bucket in buckets)))


async def _check_bucket(site: Site, bucket: str) -> Check:
    try:
        async with _opened(site) as opener:
            storage = opener.storage()
            await storage.list(bucket, _PROBE)
            if site.write:
                key = f"{_PROBE}{os.urandom(8).hex()}"
                await storage.replace(bucket, key, b"ssmd\n")
                await storage.delete(bucket, key)
    except SsmdError as error:
        severity: Severity = "refused" if any(words in error.message for words in _REFUSALS) else "unavailable"
        return _line(f"Storage bucket '{bucket}' is NOT accessible: {_why(error)}", severity, error.hint)
    return _line(f"Storage bucket '{bucket}' accessible")


async def _check_folder(site: Site, folder: Path, buckets: tuple[str, ...]) -> list[Check]:
    """Files on this machine: the folder (made by the first write) and its buckets."""
    setting = "spec.middleware.storage.path"
    try:
        trouble, there = await aside(lambda: _folder_state(folder, buckets))
        if not trouble and site.write:
            async with _opened(site) as opener:
                await opener.storage().ping()
    except (SsmdError, TimeoutError) as error:
        trouble, there = str(error).partition("\n")[0] or "no answer in time", frozenset()
    if trouble:
        fix = f"Make it writable for this user, or change {setting}."
        lines = [_line(f"Storage folder '{folder}' is NOT writable: {trouble}", "unavailable", fix, setting)]
        return lines + [_line(f"Storage bucket '{bucket}' is NOT accessible", "unavailable") for bucket in buckets]
    lines = [_line(f"Storage folder '{folder}' is writable")]
    for bucket in buckets:
        if bucket in there:
            lines.append(_line(f"Storage bucket '{bucket}' accessible"))
        else:
            lines.append(_line(f"Storage bucket '{bucket}' not there yet; made with its first object", "note"))
    return lines


def _folder_state(folder: Path, buckets: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """Why the folder cannot be written to ("" when it can), and the buckets in it; what it tries leaves no trace."""
    place = folder
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            return f"{there} is no folder", frozenset()
        found = frozenset(bucket for bucket in buckets if (folder / bucket).is_dir())
        for place in (there, *(folder / bucket for bucket in sorted(found))):
            _try_writing(place)
    except OSError as error:
        return f"{place}: {error.strerror or error}", frozenset()
    closed = [bucket for bucket in found if not os.access(folder / bucket, os.R_OK | os.X_OK)]
    return (f"{folder / closed[0]} cannot be read", frozenset()) if closed else ("", found)


def _try_writing(place: Path) -> None:
    """Make a folder with a file there and remove both; permissions alone do not say whether that works (`/proc`)."""
    with TemporaryDirectory(prefix=".ssmd-validate-", dir=place) as made:
        (Path(made) / "file").write_bytes(b"ssmd\n")


async def check_cache(site: Site) -> list[Check]:
    """The cache server."""
    config = site.chosen.environment.spec.middleware.cache
    if not isinstance(config, kinds.RedisCache):
        said = "Cache is kept in memory, in each process" if config.type == "memory" else "No cache is used"
        return [_line(said)]
    where, setting = masked(config.url), "spec.middleware.cache.url"
    if key := site.blocked(config.url) or site.blocked_credentials(config.credentials):
        return _unset(f"Cache '{where}'", key, site)
    host: str | None = None
    try:
        async with _opened(site) as opener:
            from ssmd.middleware.cache.ping import ping_cache

            host, port, _ = _place(opener.secrets.text(config.url), 6379)
            await reach(host, port)
            await ping_cache(config, opener.secrets)
    except SsmdError as error:
        fix = error.hint if isinstance(error, ConfigError) else _fix(site, host, setting)
        return [_line(f"Cache '{where}' is NOT reachable: {_why(error)}", _severity(error), fix, setting)]
    return [_line(f"Cache '{where}' is reachable")]


async def check_journal(site: Site) -> list[Check]:
    """The topics of the journal; one that is not there yet is made by its first entry."""
    config = site.chosen.environment.spec.middleware.journal
    topics = (config.topics.secmaster, config.topics.audit, config.topics.deployments)
    if isinstance(config, kinds.MemoryJournal):
        return [_line("Journal is kept in memory: nothing outlives the process", "note")]
    setting = "spec.middleware.journal.path"
    if isinstance(config, kinds.NatsJournal):
        setting = "spec.middleware.journal.url"
        if key := site.blocked(config.url) or site.blocked_credentials(config.credentials):
            return [check for topic in topics for check in _unset(f"Journal topic '{topic}'", key, site)]
    try:
        async with _opened(site) as opener:
            if isinstance(config, kinds.NatsJournal):
                await _reach_nats(opener.secrets.text(config.url))
            journal = opener.journal()
            ends = [await journal.end(topic) for topic in topics]
    except SsmdError as error:
        fix = error.hint if isinstance(error, ConfigError) else _fix(site, _host_of(config), setting)
        return [_line(f"Journal topic '{topic}' is NOT reachable: {_why(error)}", _severity(error), fix, setting)
                for topic in topics]  # fmt: skip
    absent = "not there yet; made with its first entry"
    return [
        _line(f"Journal topic '{topic}' exists")
        if end is not None
        else _line(f"Journal topic '{topic}' {absent}", "note")
        for topic, end in zip(topics, ends, strict=True)
    ]


async def check_stream(site: Site) -> list[Check]:
    """The feed's stream; one that is not there yet is made by the connector."""
    spec = site.chosen.environment.spec
    config, stream = spec.middleware.transport, stream_name(spec.feed)
    if isinstance(config, kinds.MemoryTransport):
        return [_line(f"Stream '{stream}' is kept in memory: nothing outlives the process", "note")]
    setting = "spec.middleware.transport.url"
    if key := site.blocked(config.url) or site.blocked_credentials(config.credentials):
        return _unset(f"NATS stream '{stream}'", key, site)
    try:
        async with _opened(site) as opener:
            await _reach_nats(opener.secrets.text(config.url))
            found = await opener.transport().find_stream(spec.feed)
    except SsmdError as error:
        fix = error.hint if isinstance(error, ConfigError) else _fix(site, _host_of(config), setting)
        return [_line(f"NATS stream '{stream}' is NOT reachable: {_why(error)}", _severity(error), fix, setting)]
    if found is None:
        return [_line(f"NATS stream '{stream}' not there yet; made by the connector", "note")]
    return [_line(f"NATS stream '{stream}' exists")]


async def _reach_nats(url: str) -> None:
    """A server that never greets would keep its client waiting (one that wants TLS first does not greet)."""
    host, port, scheme = _place(url, 4222)
    await reach(host, port, b"" if scheme == "tls" else b"INFO")


def _place(url: str, port: int) -> tuple[str, int, str]:
    """Host, port and scheme of a URL out of a key, which nobody has checked yet; ConfigError without its text."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or port, parts.scheme
    except ValueError:
        hint = "In user and password, percent-encode it: %40 for @, %2F for /, %23 for #, %3F for ?."
        raise ConfigError("what its key holds is not a URL", hint) from None


def _host_of(config: kinds.Transport | kinds.Journal) -> str | None:
    """The host that the file names; None when a key does."""
    url = getattr(config, "url", "")
    return None if not url or KeyRef.parse(url) else urlsplit(url).hostname
