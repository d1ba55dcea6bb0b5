"""The keys of one service: all there before anything is opened, and watched while it runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ssmd.cli.opening import Opener, database_of
from ssmd.cli.options import Chosen
from ssmd.config.environment import Spec
from ssmd.config.middleware import NatsTransport, S3Storage
from ssmd.config.references import variable
from ssmd.config.values import KeyRef
from ssmd.errors import ConfigError
from ssmd.keys.audit import PendingAudit
from ssmd.keys.state import needed_fields
from ssmd.keys.stores import standard_stores
from ssmd.keys.watch import KeyWatch
from ssmd.registry.keys import KeyLedger

EXCHANGE_FIELDS = ("api_key", "api_secret")


def key_watch(service: str, chosen: Chosen) -> KeyWatch:
    """What the service `service` of an environment does about its keys while it runs."""

    @contextmanager
    def ledger() -> Iterator[KeyLedger]:
        with database_of(chosen) as database:
            yield KeyLedger(database)

    environment = chosen.environment
    stores = standard_stores(os.environ, chosen.home, environment.name)
    has_database = environment.spec.database_url is not None
    return KeyWatch(
        f"system:{service}", environment, stores, PendingAudit(chosen.home, environment.name),
        ledger if has_database else None,
    )  # fmt: skip


def check_service_keys(service: str, opener: Opener) -> None:
    """ConfigError that names every value which the service refers to and nobody has."""
    missing = [
        (key, field)
        for key, fields in _fields_of(service, opener.spec).items()
        for field in fields
        if opener.resolver.find(key, field) is None
    ]
    if not missing:
        return
    name, option = opener.chosen.environment.name, opener.chosen.with_name
    commands = [f"ssmd key set {name} {key}{option}" for key in dict(missing)]
    variables = ", ".join(variable(key, field) for key, field in missing)
    raise ConfigError(
        f"the {service} of {name!r} needs {', '.join(f'{key}.{field}' for key, field in missing)}, which no store has",
        f"Run: {' and '.join(commands)} (or set {variables}, each also as …_FILE)",
    )


def _fields_of(service: str, spec: Spec) -> dict[str, tuple[str, ...]]:
    """The keys that a service refers to and the fields that it cannot do without."""
    transport, storage = spec.middleware.transport, spec.middleware.storage
    texts = [spec.database_url]
    if isinstance(transport, NatsTransport):
        texts += [transport.url, transport.credentials]
    if isinstance(storage, S3Storage) and service != "gateway":
        texts.append(storage.credentials)
    found: dict[str, tuple[str, ...]] = {}
    for reference in [KeyRef.parse(text) for text in texts if text]:
        if reference is None or not spec.keys[reference.name].required:
            continue
        fields = (reference.field,) if reference.field else needed_fields(spec.keys[reference.name])
        found[reference.name] = tuple(dict.fromkeys([*found.get(reference.name, ()), *fields]))
    if service == "connector":
        found[spec.feed] = EXCHANGE_FIELDS
    return found
