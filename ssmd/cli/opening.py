"""Put things together: secrets, middleware and registry of an environment, opened into a stack."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ssmd.cli.options import Chosen
from ssmd.errors import ConfigError
from ssmd.keys.resolver import OnAccess, Resolver
from ssmd.keys.stores import standard_stores
from ssmd.middleware.cache.interface import Cache
from ssmd.middleware.factory import open_cache, open_journal, open_storage, open_transport
from ssmd.middleware.journal.interface import Journal
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Transport
from ssmd.registry.interface import Registry

if TYPE_CHECKING:
    from ssmd.registry.database import Database


class KeySecrets:
    """The values behind key references, from the stores of this machine."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def text(self, value: str) -> str:
        """See `Secrets.text`."""
        return self._resolver.resolve_text(value).reveal()

    def fields(self, reference: str) -> Mapping[str, str]:
        """See `Secrets.fields`."""
        return {field: value.reveal() for field, value in self._resolver.credentials(reference).items()}


def resolver_of(chosen: Chosen, on_access: OnAccess | None = None) -> Resolver:
    """Resolves the keys of an environment."""
    environment = chosen.environment
    stores = standard_stores(os.environ, chosen.home, environment.name)
    return Resolver(
        stores,
        environment.spec.keys,
        environment=environment.name,
        option=lambda: chosen.with_name,
        on_access=on_access,
    )


class Opener:
    """Opens what an environment names, each with one call; `stack` closes it again."""

    def __init__(self, chosen: Chosen, stack: AsyncExitStack, on_access: OnAccess | None = None) -> None:
        self.chosen = chosen
        self.spec = chosen.environment.spec
        self.resolver = resolver_of(chosen, on_access)
        self.secrets = KeySecrets(self.resolver)
        self._stack = stack

    def defer(self, close: Callable[[], Awaitable[None]]) -> None:
        """Await `close` when the stack is closed."""
        self._stack.push_async_callback(close)

    def transport(self) -> Transport:
        """The broker."""
        return open_transport(self.spec.middleware.transport, self.secrets, self._stack)

    def storage(self) -> Storage:
        """The archive."""
        return open_storage(self.spec.middleware.storage, self.secrets, self.chosen.home, self._stack)

    def journal(self) -> Journal:
        """The journal of changes."""
        return open_journal(self.spec.middleware.journal, self.secrets, self.chosen.home, self._stack)

    def cache(self) -> Cache:
        """The cache."""
        environment = self.chosen.environment
        return open_cache(self.spec.middleware.cache, self.secrets, environment.name, self._stack)

    def registry(self) -> Registry:
        """The metadata database, or one in memory when the environment names none."""
        registry = open_registry(self.chosen, self.secrets)
        self._stack.callback(registry.close)
        return registry

    def database(self) -> "Database | None":
        """The metadata database itself, for what has no twin in memory; None when the environment names none."""
        url = self.spec.database_url
        if url is None:
            return None
        from ssmd.registry.database import Database

        database = Database(partial(self.secrets.text, url))
        self._stack.callback(database.close)
        return database


def open_registry(chosen: Chosen, secrets: KeySecrets) -> Registry:
    """The registry of an environment; connects on first use."""
    url = chosen.environment.spec.database_url
    if url is None:
        from ssmd.registry.memory import MemoryRegistry

        return MemoryRegistry()
    from ssmd.registry.postgres import PostgresRegistry

    return PostgresRegistry(partial(secrets.text, url))


@contextmanager
def registry_of(chosen: Chosen) -> Iterator[Registry]:
    """The registry for one command."""
    registry = open_registry(chosen, KeySecrets(resolver_of(chosen)))
    try:
        yield registry
    finally:
        registry.close()


@contextmanager
def database_of(chosen: Chosen) -> Iterator["Database"]:
    """The metadata database for one command; ConfigError when the environment has none."""
    url = chosen.environment.spec.database_url
    if url is None:
        raise ConfigError(f"the environment {chosen.environment.name!r} names no database", "Add spec.database.url.")
    from ssmd.registry.database import Database

    database = Database(partial(KeySecrets(resolver_of(chosen)).text, url))
    try:
        yield database
    finally:
        database.close()
