"""The one place where backends are opened: a function per protocol, a match arm per kind, into an AsyncExitStack.

Backends are imported inside their arm: a service pays only for what its environment names.
"""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import assert_never
from urllib.parse import quote, urlsplit, urlunsplit

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError
from ssmd.middleware.cache.interface import Cache
from ssmd.middleware.journal.interface import Journal
from ssmd.middleware.secrets import Secrets
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Transport


def open_transport(config: kinds.Transport, secrets: Secrets, stack: AsyncExitStack) -> Transport:
    """The broker; connects on first use."""
    transport: Transport
    match config:
        case kinds.NatsTransport():
            from ssmd.middleware.transport.nats import NatsTransport

            nats_url(config, secrets)  # what is missing is an error now, not at the first connection
            transport = NatsTransport(partial(nats_url, config, secrets))
        case kinds.MemoryTransport():
            from ssmd.middleware.transport.memory import MemoryTransport

            transport = MemoryTransport()
        case _:
            assert_never(config)
    stack.push_async_callback(transport.close)
    return transport


def open_storage(config: kinds.Storage, secrets: Secrets, home: Path, stack: AsyncExitStack) -> Storage:
    """The archive; a relative path is meant below `home`."""
    storage: Storage
    match config:
        case kinds.S3Storage():
            from ssmd.middleware.storage.s3 import S3Storage

            fields = secrets.fields(config.credentials) if config.credentials else {}
            storage = S3Storage(
                config.endpoint,
                config.region,
                fields.get("access_key"),
                fields.get("secret_key"),
                buckets=(config.buckets.raw, config.buckets.normalized),
                path_style=config.path_style,
            )
        case kinds.LocalStorage():
            from ssmd.middleware.storage.local import LocalStorage

            storage = LocalStorage(home / config.path)
        case kinds.MemoryStorage():
            from ssmd.middleware.storage.memory import MemoryStorage

            storage = MemoryStorage()
        case _:
            assert_never(config)
    stack.push_async_callback(storage.close)
    return storage


def open_journal(config: kinds.Journal, secrets: Secrets, home: Path, stack: AsyncExitStack) -> Journal:
    """The journal; a relative path is meant below `home`."""
    journal: Journal
    match config:
        case kinds.NatsJournal():
            from ssmd.middleware.journal.nats import NatsJournal

            journal = NatsJournal(nats_url(config, secrets))
        case kinds.FileJournal():
            from ssmd.middleware.journal.file import FileJournal

            journal = FileJournal(home / config.path)
        case kinds.MemoryJournal():
            from ssmd.middleware.journal.memory import MemoryJournal

            journal = MemoryJournal()
        case _:
            assert_never(config)
    stack.push_async_callback(journal.close)
    return journal


def open_cache(config: kinds.Cache, secrets: Secrets, environment: str, stack: AsyncExitStack) -> Cache:
    """The cache of an environment; connects on first use."""
    cache: Cache
    match config:
        case kinds.RedisCache():
            from ssmd.middleware.cache.redis import RedisCache

            cache = RedisCache(config, secrets, environment)
        case kinds.MemoryCache():
            from ssmd.middleware.cache.memory import MemoryCache

            cache = MemoryCache(config.max_mb << 20)
        case kinds.NoCache():
            from ssmd.middleware.cache.none import NoCache

            cache = NoCache()
        case _:
            assert_never(config)
    stack.push_async_callback(cache.close)
    return cache


def nats_url(config: kinds.NatsTransport | kinds.NatsJournal, secrets: Secrets) -> str:
    """The URL with user and password in it, key references resolved."""
    url = secrets.text(config.url)
    if config.credentials is None:
        return url
    fields = secrets.fields(config.credentials)
    if not fields:  # an optional key without a value
        return url
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    missing = [field for field in ("username", "password") if field not in fields]
    if missing:
        raise ConfigError(
            f"{config.credentials} has no value for {' and '.join(missing)}", "Set them; `ssmd doctor` shows how."
        )
    user = f"{quote(fields['username'], safe='')}:{quote(fields['password'], safe='')}"
    return urlunsplit(parts._replace(netloc=f"{user}@{place}"))
