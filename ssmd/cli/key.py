"""`ssmd key`: the secrets of an environment: set, rotate, list, verify, never shown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os import environ
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ssmd.cli.checking import checking
from ssmd.cli.key_desk import STDOUT, Kept, KeyDesk, Sealing, StoreKind
from ssmd.cli.key_input import KeyInput, no_more
from ssmd.cli.options import EnvFile, Json, choose_named
from ssmd.cli.output import BAD, GOOD, WAITING, counted, show_json, show_rows, talk
from ssmd.config.references import variable
from ssmd.config.writing import plain_yaml
from ssmd.errors import EXIT_DONE, EXIT_REFUSED, ConfigError, RefusedError
from ssmd.keys.sealing import Scope
from ssmd.keys.state import KeyState, needed_fields

app = App(name="key", help="The secrets of an environment: set, rotate, verify; values are never shown.")

FromFile = Annotated[
    tuple[str, ...], Parameter(negative=(), help="FIELD=PATH: the field's value is in a file (`-`: stdin). Repeatable.")
]
FromEnv = Annotated[
    tuple[str, ...],
    Parameter(negative=(), help="VAR1,VAR2: environment variables that end with the fields' names (or FIELD=VAR)."),
]
Stdin = Annotated[str | None, Parameter(name="--stdin", help="FIELD whose value is piped in.")]
Store = Annotated[
    StoreKind | None,
    Parameter(name="--store", help="Where to keep it; default: kubernetes (a SealedSecret) where the runtime is that."),
]
Cert = Annotated[str | None, Parameter(name="--cert", help="Sealing certificate, file or URL; or SEALED_SECRETS_CERT.")]
ScopeOption = Annotated[Scope, Parameter(name="--scope", help="Where the sealed values may be opened.")]
Output = Annotated[
    str | None, Parameter(name="--output", allow_leading_hyphen=True, help="File of the SealedSecret; `-`: stdout.")
]
Extra = Annotated[str, Parameter(show=False, allow_leading_hyphen=False)]
Flags = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="Value of a field, as --api-key VALUE; flags show in `ps`.")
]


@app.command
def init(
    environment: str, /, *, env: EnvFile = None, store: Store = None, cert: Cert = None,
    scope: ScopeOption = Scope.STRICT, json: Json = False,
) -> int:  # fmt: skip
    """Ask for the value of every required key that is not set yet, without showing it; offer the optional ones."""
    from ssmd.cli import key_prompt

    desk = KeyDesk(choose_named(environment, env), store)
    open_keys = [state for state in desk.states() if state.status == "not_set"]
    if open_keys:
        key_prompt.need_terminal(desk.name, open_keys[0].name, desk.option)
    for state in sorted(open_keys, key=lambda state: not state.required):
        about = f" ({state.description})" if state.description else ""
        if not state.required and not key_prompt.agreed(f"{state.name}{about} is optional. Set it now?"):
            continue
        talk(f"{state.name}{about}")
        given = KeyInput(desk.name, state.name, desk.definitions[state.name], desk.option)
        key_prompt.ask(given, state.name, desk.definitions[state.name], desk.problem_of)
        kept = desk.keep(state.name, given.values, given.ways, Sealing(cert, scope, None))
        _tell_kept(desk, kept)
    return _verified(desk, *_judged(desk), as_json=json)


@app.command(name="set")
def set_key(  # noqa: PLR0913 -- each is an option of the command
    environment: str, key: str, /, *extra: Extra, env: EnvFile = None, from_file: FromFile = (),
    from_env: FromEnv = (), stdin: Stdin = None, store: Store = None, cert: Cert = None,
    scope: ScopeOption = Scope.STRICT, output: Output = None, json: Json = False, **fields: Flags,
) -> int:  # fmt: skip
    """Keep the values of a key's fields, all or some; asks for them, unseen, when none are given.

    `ssmd key set local kalshi --from-file api_secret=key.pem --from-env KALSHI_API_KEY`
    """
    no_more(extra, environment, key, env)
    desk = KeyDesk(choose_named(environment, env), store)
    return _keep(desk, desk.key(key), fields, from_file, from_env, stdin, Sealing(cert, scope, output), json)


@app.command
def rotate(  # noqa: PLR0913 -- each is an option of the command
    environment: str, key: str, /, *extra: Extra, env: EnvFile = None, from_file: FromFile = (),
    from_env: FromEnv = (), stdin: Stdin = None, store: Store = None, cert: Cert = None,
    scope: ScopeOption = Scope.STRICT, output: Output = None, json: Json = False, **fields: Flags,
) -> int:  # fmt: skip
    """Replace the values of a key that is set; running services use the new ones within 60 s."""
    no_more(extra, environment, key, env)
    desk = KeyDesk(choose_named(environment, env), store)
    name = desk.key(key)
    if desk.state(name).status == "not_set":
        raise ConfigError(
            f"the key {name!r} is not set: there is nothing to rotate",
            f"Run: ssmd key set {desk.name} {name}{desk.option}",
        )
    return _keep(desk, name, fields, from_file, from_env, stdin, Sealing(cert, scope, output), json)


@app.command(name="list")
def list_keys(environment: str, /, *, env: EnvFile = None, json: Json = False) -> int:
    """The keys of an environment and how they stand; no values."""
    desk = KeyDesk(choose_named(environment, env))
    states = desk.states()
    rows = [_row(state) for state in states]
    if json or not rows:
        show_rows(rows, {}, as_json=json, empty=f"{environment} has no keys")
        return EXIT_DONE
    lines = [["NAME", "TYPE", "REQUIRED", "STATUS", "LAST_ROTATED", "EXPIRES"]]
    lines += [
        [
            state.name, state.type, "yes" if state.required else "no", state.status, _day(state.last_rotated),
            _day(state.expires_at),
        ]
        for state in states
    ]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    demo = desk.demo_key()
    if any(state.name == demo and state.status == "not_set" for state in states):
        talk(f"{demo}: the running stack uses the demo key, which only the simulated exchange takes")
    return EXIT_DONE


@app.command
def verify(environment: str, /, *, env: EnvFile = None, json: Json = False) -> int:
    """Check that every required key is set and has not expired. Exit code 3 when one is missing or has."""
    chosen = choose_named(environment, env)
    with checking(chosen, "key_verify", chosen.environment.spec.feed) as check:
        desk = KeyDesk(chosen)
        states, bad = _judged(desk)
        code = _verified(desk, states, bad, as_json=json)
        said = ", ".join(f"{state.name} {state.status.replace('_', ' ')}" for state in bad)
        good = f"{counted(len(states), 'key')}: all that are required are set"
        detail = {"keys": {state.name: state.status for state in states}}
        check.end(code, findings=len(bad), summary=said or good, detail=detail)
    return code


@app.command
def show(environment: str, key: str, /, *, env: EnvFile = None, json: Json = False) -> int:
    """What is known about a key; not its value."""
    desk = KeyDesk(choose_named(environment, env))
    state = desk.state(desk.key(key))
    if json:
        show_json(_row(state))
        return EXIT_DONE
    lines = {
        "Name": state.name, "Type": state.type, "Status": state.status, "Fields": ", ".join(state.fields),
        "Missing": "" if state.status != "not_set" else ", ".join(state.missing_fields),
        "Problem": state.problem,
        "Last Rotated": _moment(state.last_rotated) or ("unknown" if state.status != "not_set" else "never"),
        "Rotation Policy": f"{state.rotation_days} days" if state.rotation_days else "none",
        "Expires": _moment(state.expires_at) or ("unknown" if state.rotation_days else "never"),
        "Sealed Secret": state.sealed_secret_ref or "",
        "Required": "yes" if state.required else "no",
        "Description": state.description,
    }  # fmt: skip
    for name, text in lines.items():
        if text:
            print(f"{name}: {text}")
    return EXIT_DONE


@app.command
def delete(environment: str, key: str, /, *, yes: str | None = None, env: EnvFile = None, json: Json = False) -> int:
    """Forget a key; asks for its name.

    Parameters
    ----------
    yes
        The key's name again, in place of being asked.
    """
    from ssmd.cli import key_prompt

    desk = KeyDesk(choose_named(environment, env))
    name = desk.key(key)
    before = desk.state(name)
    if yes is None:
        key_prompt.need_terminal_for_delete(desk.name, name, desk.option)
        yes = key_prompt.typed(f"Type the name of the key to delete it ({name}): ")
    if yes != name:
        raise RefusedError(f"what was given is not {name!r}: nothing was deleted", f"Give --yes {name} to confirm.")
    gone, notes = desk.forget(name, before)
    if json:
        show_json({"environment": desk.name, "key": name, "deleted": bool(gone), "from": gone, "notes": notes})
    else:
        print(
            f"{GOOD} {name}: deleted from the {', the '.join(gone)}" if gone else f"{WAITING} {name}: nothing to delete"
        )
        for note in notes:
            talk(note)
    return EXIT_DONE


@app.command
def export(environment: str, /, *, env: EnvFile = None, json: Json = False) -> int:
    """A manifest of the keys as references, without values, for version control."""
    desk = KeyDesk(choose_named(environment, env))
    states = desk.states()
    keys: dict[str, object] = {state.name: _exported(state) for state in states}
    document = {
        "apiVersion": "ssmd/v1", "kind": "KeyManifest", "metadata": {"name": desk.name}, "spec": {"keys": keys}
    }  # fmt: skip
    for state in states:
        desk.record(state.name, "exported", {})
    if json:
        show_json(document)
    else:
        print(plain_yaml(document), end="")
    return EXIT_DONE


@app.command
def audit(
    environment: str, key: str | None = None, /, *, limit: int = 100, env: EnvFile = None, json: Json = False
) -> int:
    """Who did what to a key, newest first. Exit code 7 when the database, which has the rows, cannot be asked.

    Parameters
    ----------
    limit
        Rows at most.
    """
    if not 1 <= limit <= 1_000_000:
        raise ConfigError(f"--limit {limit} is not between 1 and 1,000,000", "Give a smaller number of rows.")
    desk = KeyDesk(choose_named(environment, env))
    found = desk.audit(desk.key(key) if key is not None else None, limit)
    rows = [msgspec.to_builtins(row) | {"at": _moment(row.at)} for row in found]
    if not json:
        rows = [row | {"details": _details(row["details"])} for row in rows]
    columns = {"at": "AT", "key": "KEY", "action": "ACTION", "actor": "ACTOR", "details": "DETAILS"}
    show_rows(rows, columns, as_json=json, empty="nothing was done to it")
    return desk.unasked.exit_code if desk.unasked else EXIT_DONE


def _keep(
    desk: KeyDesk, key: str, flags: Mapping[str, str], files: Sequence[str], variables: Sequence[str],
    stdin: str | None, sealing: Sealing, as_json: bool,
) -> int:  # fmt: skip
    definition = desk.definitions[key]
    given = KeyInput(desk.name, key, definition, desk.option)
    given.collect(flags, files, variables, stdin, environ)
    if not given.values:
        from ssmd.cli import key_prompt

        key_prompt.need_terminal(desk.name, key, desk.option)
        key_prompt.ask(given, key, definition, desk.problem_of)
    kept = desk.keep(key, given.values, given.ways, sealing)
    if as_json and kept.manifest != STDOUT:
        show_json(_row(kept.state) | {"environment": desk.name, "changed": sorted(given.values)})
    else:
        _tell_kept(desk, kept)
    return EXIT_DONE


def _tell_kept(desk: KeyDesk, kept: Kept) -> None:
    """One line on stdout (stderr when the manifest is there), and what the person has to know or do."""
    state = kept.state
    line = _line(state, datetime.now(UTC))
    (talk if kept.manifest == STDOUT else print)(line)
    if kept.manifest and kept.manifest != STDOUT:
        talk(f"sealed as {state.sealed_secret_ref} in {kept.manifest}; run: kubectl apply -f {kept.manifest}")
    elif kept.manifest == "":
        for source in desk.shadowing(state.name):
            if not source.startswith("a mounted"):
                talk(f"warning: {source} is set and is used instead; unset it")
        if given := desk.given_at_start(state.name):
            talk(
                f"warning: the running stack was started with {', '.join(given)}, and uses that instead; to use this"
                " key, run: ssmd down, then: ssmd up"
            )


def _judged(desk: KeyDesk) -> tuple[list[KeyState], list[KeyState]]:
    """All keys, and those of them that keep the environment from running."""
    states, demo = desk.states(), desk.demo_key()
    bad = [state for state in states if state.required and state.status != "set"]
    return states, [state for state in bad if state.name != demo or state.status == "expired" or state.problem]


def _verified(desk: KeyDesk, states: Sequence[KeyState], bad: Sequence[KeyState], *, as_json: bool) -> int:
    from ssmd.cli.env_report import DEMO_KEY, set_key_lines

    demo = desk.demo_key()
    if as_json:
        rows = [_row(state) | {"demo": state.name == demo and state.status == "not_set"} for state in states]
        show_json({"environment": desk.name, "ok": not bad, "keys": rows})
        return EXIT_REFUSED if bad else EXIT_DONE
    now = datetime.now(UTC)
    for state in states:
        used = state.name == demo and state.status == "not_set" and state not in bad
        print(f"{WAITING} {state.name}: {DEMO_KEY}" if used else _line(state, now), flush=True)
    for state in bad:
        talk("\n".join(set_key_lines(desk.name, state, desk.option)))
    if bad:
        return EXIT_REFUSED
    print("All required keys present.")
    return EXIT_DONE


def _line(state: KeyState, now: datetime) -> str:
    """`✓ kalshi: set (expires in 90 days)`."""
    mark = GOOD if state.status == "set" else BAD if state.required else WAITING
    days = state.expires_in_days(now)
    if state.status == "set":
        plural = "" if days == 1 else "s"
        return f"{mark} {state.name}: set" + (f" (expires in {days} day{plural})" if days is not None else "")
    if state.status == "expired":
        return f"{mark} {state.name}: expired on {_day(state.expires_at)}"
    if state.problem:
        return f"{mark} {state.name}: cannot be used ({state.problem})"
    notes = [] if state.required else ["optional"]
    if len(state.missing_fields) < len(needed_fields(state)):
        notes.append(f"missing: {', '.join(state.missing_fields)}")
    return f"{mark} {state.name}: not set" + (f" ({'; '.join(notes)})" if notes else "")


def _row(state: KeyState) -> dict[str, object]:
    row: dict[str, object] = msgspec.to_builtins(state)
    row |= {"last_rotated": _moment(state.last_rotated), "expires_at": _moment(state.expires_at)}
    return row | {"expires_in_days": state.expires_in_days(datetime.now(UTC))}


def _exported(state: KeyState) -> dict[str, object]:
    said: dict[str, object] = {"type": state.type, "required": state.required, "fields": list(state.fields)}
    if state.description:
        said["description"] = state.description
    if state.rotation_days:
        said["rotation_days"] = state.rotation_days
    said["reference"] = f"$key:{state.name}"
    if state.sealed_secret_ref:
        said["sealed_secret"] = state.sealed_secret_ref
    said["variables"] = {field: variable(state.name, field) for field in state.fields}
    return said


def _details(details: Mapping[str, str | list[str]]) -> str:
    return " ".join(f"{name}={','.join(v) if isinstance(v, list) else v}" for name, v in details.items())


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "-"


def _moment(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None
