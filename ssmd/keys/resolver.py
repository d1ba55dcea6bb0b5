"""From `$key:name` to its value: the first store that has it, looked at again after a minute or when a file changes."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import structlog

from ssmd.config.environment import KeyDefinition
from ssmd.config.references import variable
from ssmd.config.values import KeyRef
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue
from ssmd.keys.state import needed_fields
from ssmd.keys.stores import Stamp, Store

REREAD_S = 60.0

OnAccess: TypeAlias = Callable[[str, str, str], None]
"""Told the key, the field and the store of each value that is new."""

_DATABASE_FIELDS = ("host", "port", "database", "username", "password")


class _Known(NamedTuple):
    """A value that was read, and until when it may be used without asking all stores again."""

    value: SecretValue
    store: Store
    stamp: Stamp
    until: float


class Resolver:
    """Resolves the keys of one environment; `keys` are its `spec.keys`.

    `option` ends printed commands that name the environment: what leads to its file, where the name does not.

    `on_access(key, field, store)` is called for each value that is new here: once when it is first read, and again when
    it has changed. It may be called by several threads.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        keys: Mapping[str, KeyDefinition] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        environment: str = "ENV",
        option: Callable[[], str] = lambda: "",
        on_access: OnAccess | None = None,
    ) -> None:
        self._stores = tuple(stores)
        self._keys = dict(keys or {})
        self._clock = clock
        self._known: dict[tuple[str, str], _Known] = {}
        self._lock = threading.Lock()  # services read keys in threads, too
        self._environment = environment
        self._option = option
        self._on_access = on_access

    def resolve(self, name: str, field: str) -> SecretValue:
        """The value of a key's field; ConfigError says where it was looked for and how to set it."""
        value = self.find(name, field)
        if value is None:
            spelled = variable(name, field)
            raise ConfigError(
                f"the key {name!r} has no value for {field!r}",
                f"Run: ssmd key set {self._environment} {name}{self._option()}"
                f" (or: export {spelled}=<value>, or {spelled}_FILE=<path of a file that holds it>)",
            )
        return value

    def find(self, name: str, field: str) -> SecretValue | None:
        """The value of a key's field, or None when no store has it. ConfigError when one has it and it is unusable."""
        with self._lock:
            return self._find(name, field)

    def _find(self, name: str, field: str) -> SecretValue | None:
        known = self._known.get((name, field))
        now = self._clock()
        if known and now < known.until and known.store.stamp(name, field) == known.stamp:
            return known.value
        for store in self._stores:
            stamp = store.stamp(name, field)
            value = store.read(name, field) if stamp is not None else None
            if value is not None:
                if known is None or known.value != value:
                    structlog.get_logger().info(
                        "key read", key=name, field=field, store=store.name, changed=known is not None
                    )
                    if self._on_access is not None:
                        self._on_access(name, field, store.name)
                self._known[name, field] = _Known(value, store, stamp, now + REREAD_S)
                return value
        self._known.pop((name, field), None)
        return None

    def resolve_text(self, text: str) -> SecretValue:
        """What stands in an environment file, with a key reference replaced by its value; other text as it is.

        `$key:name.field` is that field. `$key:name` is the field `url`, else the database URL made of `host`, `port`,
        `database`, `username`, `password` (a key of type `database`), else the only field.
        """
        try:
            reference = KeyRef.parse(text)
        except ValueError as error:
            raise ConfigError(f"the text {error}", "Correct the environment file.") from error
        if reference is None:
            return SecretValue(text)
        if reference.field is not None:
            return self.resolve(reference.name, reference.field)
        definition = self._definition(reference.name)
        if "url" in definition.fields:
            return self.resolve(reference.name, "url")
        if definition.type == "database":
            return self._database_url(reference.name)
        if len(definition.fields) == 1:
            return self.resolve(reference.name, definition.fields[0])
        fields = ", ".join(f"{reference}.{field}" for field in definition.fields)
        raise ConfigError(f"{reference} does not say which field is meant", f"Write one of {fields}.")

    def credentials(self, text: str) -> dict[str, SecretValue]:
        """The fields of `$key:name` that have values; ConfigError when none has and the key is required."""
        reference = KeyRef.parse(text)
        if reference is None:
            raise ConfigError("credentials must be a key reference", "Write $key:name.")
        definition = self._definition(reference.name)
        found = {field: self.find(reference.name, field) for field in definition.fields}
        values = {field: value for field, value in found.items() if value is not None}
        if not values and not definition.required:
            return {}
        return values or {definition.fields[0]: self.resolve(reference.name, definition.fields[0])}

    def missing(self) -> list[str]:
        """`name.field` of every field that a required key needs and that has no value."""
        return [
            f"{name}.{field}"
            for name, definition in self._keys.items()
            if definition.required
            for field in needed_fields(definition)
            if self.find(name, field) is None
        ]

    def _definition(self, name: str) -> KeyDefinition:
        if name not in self._keys:
            raise ConfigError(f"spec.keys does not define {name!r}", f"Define it in spec.keys.{name}.")
        return self._keys[name]

    def _database_url(self, name: str) -> SecretValue:
        """`postgresql+psycopg2://…` from the fields of a key; port and password may be absent."""
        look = {"port": self.find, "password": self.find}
        parts = {field: look.get(field, self.resolve)(name, field) for field in _DATABASE_FIELDS}
        text = {field: value.reveal() if value else "" for field, value in parts.items()}
        host = f"[{text['host']}]" if ":" in text["host"] else text["host"]
        password = ":" + quote(text["password"], safe="") if text["password"] else ""
        user = quote(text["username"], safe="") + password
        return SecretValue(
            f"postgresql+psycopg2://{user}@{host}:{text['port'] or 5432}/{quote(text['database'], safe='')}"
        )
