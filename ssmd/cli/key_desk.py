"""The keys of one environment as commands handle them: their state, their stores, and the ledger that may be away."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from ssmd.cli.key_fit import feed_problems
from ssmd.cli.key_input import chosen_key
from ssmd.cli.key_stack import demo_key, given_at_start
from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen, actor
from ssmd.cli.output import talk
from ssmd.config.environment import KeyDefinition, KubernetesRuntime
from ssmd.config.references import variable
from ssmd.config.values import masked
from ssmd.config.writing import plain_yaml
from ssmd.errors import ConfigError, SsmdError
from ssmd.keys.audit import PendingAudit
from ssmd.keys.sealing import CERTIFICATE_VARIABLE, Scope, manifest, public_key, read_certificate
from ssmd.keys.secret import SecretValue
from ssmd.keys.state import KeyState, key_states, needed_fields, secret_name
from ssmd.keys.stores import LocalStore, standard_stores
from ssmd.keys.values import checked
from ssmd.registry.keys import ATTEMPTED, OUTCOME, Action, AuditRow, KeyEvent, KeyLedger, RecordedKey

StoreKind: TypeAlias = Literal["local", "kubernetes"]
NAMESPACE = "ssmd"
MANIFESTS = Path("sealed-secrets")
STDOUT = "-"

_Answer = TypeVar("_Answer")


class Sealing(NamedTuple):
    """How a SealedSecret is made, and where it goes."""

    certificate: str | None
    scope: Scope
    output: str | None


class Kept(NamedTuple):
    """What became of values that were given: the key's state, and the manifest or "" for the local store."""

    state: KeyState
    manifest: str


class KeyDesk:
    """One environment's keys."""

    def __init__(self, chosen: Chosen, kind: StoreKind | None = None) -> None:
        self.name = chosen.environment.name
        self.definitions: Mapping[str, KeyDefinition] = chosen.environment.spec.keys
        self.stores = standard_stores(os.environ, chosen.home, self.name)
        self.local = LocalStore(chosen.home, self.name)
        self._chosen = chosen
        self.problem_of = feed_problems(chosen.environment)
        self._pending = PendingAudit(chosen.home, self.name)
        self.unasked: SsmdError | None = None
        """Why the database could not be asked; None: it was, or there is none, or nobody has tried yet."""
        self._told: set[str] = set()
        runtime = chosen.environment.spec.runtime
        self.namespace = runtime.namespace if isinstance(runtime, KubernetesRuntime) else NAMESPACE
        self.kind: StoreKind = kind or ("kubernetes" if isinstance(runtime, KubernetesRuntime) else "local")

    @property
    def option(self) -> str:
        """What printed commands add to the environment's name to find it."""
        return self._chosen.with_name

    def key(self, name: str) -> str:
        """The key of that name; ConfigError with near misses."""
        return chosen_key(self.name, name, self.definitions)

    def states(self) -> list[KeyState]:
        """How every key stands; says on stderr when the database cannot be asked and may know better."""

        def ask(ledger: KeyLedger) -> dict[str, RecordedKey]:
            recorded = ledger.recorded(self.name)
            ledger.expire(self.name, datetime.now(UTC))
            return recorded

        nothing: dict[str, RecordedKey] = {}
        states = self._states(self._with_ledger(ask, nothing))
        if not self._told and any(self._may_be_known(state) for state in states):
            self._warn("what only it knows of them is not shown")
        return states

    def state(self, key: str) -> KeyState:
        """How one key stands."""
        return next(state for state in self.states() if state.name == key)

    def audit(self, key: str | None, limit: int) -> list[AuditRow]:
        """The latest audit rows, newest first, those that wait for the database included.

        When it cannot be asked: those that wait, with a warning; its error when none do.
        """
        nothing: list[AuditRow] = []
        rows = self._with_ledger(lambda ledger: ledger.audit(self.name, key, limit), nothing)
        waiting = [
            AuditRow(key=e.key, action=e.action, actor=e.actor, details=e.details, at=e.at)
            for e in self._pending.waiting()
            if key in (None, e.key)
        ]
        if self.unasked and not waiting:
            raise self.unasked
        self._warn("these are only the rows that wait for it")
        return sorted([*rows, *waiting], key=lambda row: row.at, reverse=True)[:limit]

    def keep(self, key: str, given: Mapping[str, SecretValue], ways: Sequence[str], sealing: Sealing) -> Kept:
        """Check and keep the values, and write the audit row; the old ones stay when anything is wrong."""
        values = checked(given, key, self.problem_of)
        self._pending.reserve()
        was_set = self.state(key).status != "not_set"
        details: dict[str, str | list[str]] = {"fields": sorted(values), "given_by": list(ways)}
        action: Action = "rotated" if was_set else "sealed" if self.kind == "kubernetes" else "created"
        written = ""
        if self.kind == "kubernetes":
            reference = f"{self.namespace}/{secret_name(self.name, key)}"
            details |= {"store": "sealed secret", "sealed_secret_ref": reference}
            with self._pending.change(_event(key, action, details)):
                written = self._seal(key, values, sealing)
        else:
            here = next(state for state in self._states({}) if state.name == key)
            missing = [field for field in here.missing_fields if field not in values]
            details |= {"store": self.local.name} | ({"missing": missing} if missing else {})
            with self._pending.change(_event(key, action, details)):
                self.local.write(key, values)
        self._hand_over()
        return Kept(self.state(key), written)

    def forget(self, key: str, before: KeyState) -> tuple[list[str], list[str]]:
        """Delete what this machine keeps of a key: from where it went, and what still provides it elsewhere."""
        self._pending.reserve()
        gone, notes = [], []
        fields = self.local.fields(key)
        if fields:
            gone.append(self.local.name)
        if before.sealed_secret_ref is not None:
            gone.append("ledger")
            namespace, _, name = before.sealed_secret_ref.partition("/")
            notes.append(f"the cluster still has it; run: kubectl -n {namespace} delete sealedsecret {name}")
            if self.manifest_file(key).exists():
                notes.append(f"its manifest is still there: {self.manifest_file(key)}")
        if gone:
            with self._pending.change(_event(key, "deleted", {"fields": fields} if fields else {})):
                self.local.delete(key)
            self._hand_over()
        else:
            self.local.delete(key)  # what a crash while writing may have left
        notes += [f"{source} still provides it" for source in self.shadowing(key)]
        return gone, notes

    def record(self, key: str, action: Action, details: dict[str, str | list[str]]) -> None:
        """Write an audit row about what changes nothing; it waits in a file when the database is away."""
        self._pending.append([_event(key, action, details)])
        self._hand_over()

    def _hand_over(self) -> None:
        """Give the database the rows that wait."""
        self.unasked = None  # the key that was set may be the one that opens the database
        self._with_ledger(lambda _ledger: None, None)
        self._warn("audit rows wait for it")

    def _may_be_known(self, state: KeyState) -> bool:
        """Would the database say more? Only it knows what was sealed, and the age of what has no file here."""
        if state.status == "not_set":
            return self.kind == "kubernetes"
        return state.rotation_days is not None and state.last_rotated is None

    def _warn(self, consequence: str) -> None:
        """Say that the database was not asked, if it was not; once for each consequence."""
        if self.unasked and consequence not in self._told:
            talk(f"warning: the database was not asked ({self.unasked.message}); {consequence}")
            self._told.add(consequence)

    def shadowing(self, key: str) -> list[str]:
        """What provides values of this key and is asked before, or beside, the local store; for people."""
        definition = self.definitions[key]
        found = []
        for field in definition.fields:
            name = variable(key, field)
            found += [
                f"the environment variable {spelled}" for spelled in (name, f"{name}_FILE") if spelled in os.environ
            ]
        mounted = [store for store in self.stores if store.name == "mounted secrets"]
        if any(store.stamp(key, field) is not None for store in mounted for field in definition.fields):
            found.append("a mounted secret")
        return found

    def demo_key(self) -> str:
        """The key without a value here in whose place the running stack uses its demo key; or ""."""
        return demo_key(self._chosen)

    def given_at_start(self, key: str) -> list[str]:
        """The variables of this key with which the running stack was started."""
        return given_at_start(self._chosen, key)

    def manifest_file(self, key: str) -> Path:
        """Where the key's SealedSecret is written unless another place is named."""
        return MANIFESTS / f"{secret_name(self.name, key)}.yaml"

    def check_complete(self, key: str, given: Mapping[str, SecretValue]) -> None:
        """ConfigError when the values cannot be kept without the others: sealed ones cannot be read back."""
        missing = [field for field in needed_fields(self.definitions[key]) if field not in given]
        if self.kind == "kubernetes" and missing:
            raise ConfigError(
                f"the key {key!r} is sealed for Kubernetes: values sealed before cannot be read back, so all fields are"
                f" needed; missing: {', '.join(missing)}",
                "Give them all. Nothing was changed.",
            )

    def _seal(self, key: str, values: Mapping[str, SecretValue], sealing: Sealing) -> str:
        self.check_complete(key, values)
        place = sealing.certificate or os.environ.get(CERTIFICATE_VARIABLE)
        sealer = public_key(read_certificate(place), repr(masked(place or "")[:200]), datetime.now(UTC))
        text = plain_yaml(manifest(secret_name(self.name, key), self.namespace, values, sealer, sealing.scope))
        if sealing.output == STDOUT:
            print(text, end="")
            return STDOUT
        path = Path(sealing.output) if sealing.output else self.manifest_file(key)
        aside = path.with_name(path.name + ".new")
        try:
            if not sealing.output:  # a folder that a person named is there, or misspelt
                path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text)
            os.replace(aside, path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise ConfigError(f"cannot write {str(path)[:200]!r}: {reason}", "Name another --output FILE.") from error
        return str(path)

    def _states(self, recorded: Mapping[str, RecordedKey]) -> list[KeyState]:
        rotated = {name: key.last_rotated for name, key in recorded.items() if key.last_rotated is not None}
        sealed = {name: key.sealed_secret_ref for name, key in recorded.items() if key.sealed_secret_ref is not None}
        waiting: dict[str, KeyEvent] = {}
        for event in self._pending.waiting():
            if event.action not in ("accessed", "exported") and event.details.get(OUTCOME) != ATTEMPTED:
                waiting[event.key] = event
        for name, event in waiting.items():  # younger than what the database knows
            rotated.pop(name, None)
            sealed.pop(name, None)
            if event.action != "deleted":
                rotated[name] = event.at
            if isinstance(reference := event.details.get("sealed_secret_ref"), str):
                sealed[name] = reference
        now = datetime.now(UTC)
        return key_states(self._chosen.environment, self.stores, rotated, now, sealed, self.problem_of)

    def _with_ledger(self, ask: Callable[[KeyLedger], _Answer], otherwise: _Answer) -> _Answer:
        """Ask the ledger, after all that waits was written; `otherwise` when there is none or it is away."""
        if self.unasked or self._chosen.environment.spec.database_url is None:
            return otherwise
        try:
            with database_of(self._chosen) as database:
                ledger = KeyLedger(database)
                if self._pending.waiting():
                    ledger.declare(self.name, self.definitions)
                    self._pending.flush(ledger)
                return ask(ledger)
        except SsmdError as error:  # a key may be what is needed to reach the database
            self.unasked = error
            return otherwise


def _event(key: str, action: Action, details: dict[str, str | list[str]]) -> KeyEvent:
    return KeyEvent(key=key, action=action, actor=actor(), at=datetime.now(UTC), details=details)
