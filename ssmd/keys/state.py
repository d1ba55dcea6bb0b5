"""What is known about an environment's keys without showing them: set or not, since when, until when."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from ssmd.config.environment import Environment, KeyDefinition, KubernetesRuntime
from ssmd.config.references import in_cluster
from ssmd.errors import ConfigError
from ssmd.keys.stores import Store
from ssmd.keys.values import ProblemOf, no_problem, unfit

Status: TypeAlias = Literal["set", "not_set", "expired"]

OPTIONAL_FIELDS: Mapping[str, frozenset[str]] = {
    "transport": frozenset({"tls_cert", "tls_key", "tls_ca"}),
    "database": frozenset({"port"}),
    "storage": frozenset({"endpoint", "region"}),
}
"""Fields that a key of a type may have and need not: a key is set without them."""

_DAY = timedelta(days=1)


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """One key of an environment: its definition and how it stands; never a value."""

    name: str
    type: str
    required: bool
    description: str
    fields: tuple[str, ...]
    missing_fields: tuple[str, ...]
    """Needed fields without a usable value; empty when the key is set."""
    status: Status
    last_rotated: datetime | None
    """When it was last set; None when nobody knows (environment variables) or it is not set."""
    expires_at: datetime | None
    """`last_rotated` + `rotation_days`; None when it does not expire or its age is unknown."""
    rotation_days: int | None
    sealed_secret_ref: str | None
    """`namespace/name` of its Kubernetes Secret; None for a key that is kept elsewhere."""
    problem: str = ""
    """Why a value that is there cannot be used: the first such error's message."""

    def expires_in_days(self, now: datetime) -> int | None:
        """Days until it expires, begun ones counted; negative when it has expired, None when it does not expire."""
        if self.expires_at is None:
            return None
        days = (self.expires_at - now) / _DAY
        return math.ceil(days) if days > 0 else min(math.floor(days), -1)


def needed_fields(definition: "KeyDefinition | KeyState") -> tuple[str, ...]:
    """The fields without which a key is not set: all but its type's optional ones (all, when it has only those)."""
    optional = OPTIONAL_FIELDS.get(definition.type, frozenset())
    return tuple(field for field in definition.fields if field not in optional) or tuple(definition.fields)


def secret_name(environment: str, key: str) -> str:
    """What the key's Secret is called in Kubernetes, which takes no `_`."""
    return f"{environment}-{in_cluster(key)}"


def key_states(
    environment: Environment,
    stores: Sequence[Store],
    recorded: Mapping[str, datetime],
    now: datetime,
    sealed: Mapping[str, str] | None = None,
    problem_of: ProblemOf = no_problem,
) -> list[KeyState]:
    """The state of every key, in the order of the file. `recorded`: when the database says each was last set.

    `sealed` are the recorded references of sealed Secrets. Their values cannot be read here: such a key counts as set.
    Without `sealed`, every recorded key of an environment in Kubernetes counts as sealed. A value that has a problem
    by `problem_of` counts as none.
    """
    states = []
    for name, definition in environment.spec.keys.items():
        missing, problem, known_since = _looked_up(name, definition, stores, problem_of)
        at = recorded.get(name)
        reference = (sealed or {}).get(name)
        runtime = environment.spec.runtime
        if sealed is None and isinstance(runtime, KubernetesRuntime) and at is not None:
            reference = f"{runtime.namespace}/{secret_name(environment.name, name)}"
        if reference is not None and not problem:
            missing = ()
        since = None if missing else at or known_since
        expires = since + definition.rotation_days * _DAY if since and definition.rotation_days else None
        status: Status = "not_set" if missing else "expired" if expires and expires <= now else "set"
        states.append(
            KeyState(
                name=name, type=definition.type, required=definition.required, description=definition.description,
                fields=tuple(definition.fields), missing_fields=missing, status=status, last_rotated=since,
                expires_at=expires, rotation_days=definition.rotation_days, sealed_secret_ref=reference,
                problem=problem,
            )
        )  # fmt: skip
    return states


def _looked_up(
    name: str, definition: KeyDefinition, stores: Sequence[Store], problem_of: ProblemOf
) -> tuple[tuple[str, ...], str, datetime | None]:
    """Needed fields without a value, why a value cannot be used, and since when the youngest field is there."""
    needed = needed_fields(definition)
    missing, problem, times = [], "", []
    for field in definition.fields:
        try:
            found = ((store, value) for store in stores if (value := store.read(name, field)) is not None)
            store, value = next(found, (None, None))
            at = store.set_at(name, field) if store else None
            refused = unfit(problem_of(name, field, value)) if value is not None else ""
            if refused:
                raise ConfigError(f"the value of {field!r} {refused}")
        except ConfigError as error:
            store, at, problem = None, None, problem or error.message
        if store is None and field in needed:
            missing.append(field)
        if store is not None:
            times.append(at)
    known = [at for at in times if at is not None]
    return tuple(missing), problem, max(known) if known and len(known) == len(times) else None
