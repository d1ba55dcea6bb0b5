"""`ssmd client key`: the API keys of the gateway's clients; a key is shown once, when it is made."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ssmd.cli.moments import moment
from ssmd.cli.opening import database_of
from ssmd.cli.options import EnvFile, Json, actor, choose
from ssmd.cli.output import GOOD, mark_line, show_json, show_rows, talk
from ssmd.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ssmd.registry.client_keys import ClientKey

app = App(name="key", help="API keys of the gateway's clients; a key is shown once, when it is made.")

_COLUMNS = {
    "id": "ID", "name": "NAME", "scopes": "SCOPES", "state": "STATE", "created_at": "CREATED", "expires_at": "EXPIRES",
    "last_used_at": "LAST_USED",
}  # fmt: skip

Name = Annotated[str, Parameter(help="Who will use it: a program, a person, a team.")]
Scopes = Annotated[
    tuple[str, ...],
    Parameter(
        name="--scope", negative=(), help="What it may do: read:live, read:history, write:feedback, admin. Repeatable."
    ),
]
Expires = Annotated[
    str | None,
    Parameter(help="Until when: a day (UTC, its end), a time, or days from now like 90d; default: for ever."),
]


@app.command
def create(*, name: Name, scope: Scopes, expires: Expires = None, env: EnvFile = None, json: Json = False) -> int:
    """Make a key and print it: it is stored nowhere, only a hash of it is."""
    from ssmd.registry.client_keys import ClientKeys

    until = _until(expires, datetime.now(UTC))
    wanted = [word.strip() for text in scope for word in text.split(",")]
    chosen = choose(env)
    with database_of(chosen) as database:
        text, key = ClientKeys(database).create(name, wanted, until, actor())
    if json:
        show_json(_row(key) | {"key": text})
        return EXIT_DONE
    print(text)
    ends = f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "until it is revoked"
    talk(f"{GOOD} key {key.id} for {key.name}: {', '.join(key.scopes)}, {ends}")
    talk("  It is not shown again. Clients send it as: Authorization: Bearer KEY")
    if chosen.environment.spec.gateway.auth == "none":
        talk("  The gateway of this environment asks nobody for a key: spec.gateway.auth is none.")
    return EXIT_DONE


@app.command(name="list")
def list_keys(*, env: EnvFile = None, json: Json = False) -> int:
    """All keys, revoked and expired ones too: what each may do, until when, and when it was last used."""
    from ssmd.registry.client_keys import ClientKeys

    with database_of(choose(env)) as database:
        rows = [_row(key) for key in ClientKeys(database).list()]
    if not json:
        rows = [row | {"scopes": ",".join(row["scopes"])} for row in rows]
    show_rows(rows, _COLUMNS, as_json=json, empty="there are no keys; to make one: ssmd client key create")
    return EXIT_DONE


@app.command
def revoke(key: str, /, *, env: EnvFile = None, json: Json = False) -> int:
    """Make a key useless: gateways refuse it within 10 s, and close its WebSockets within 30 s.

    Parameters
    ----------
    key
        Its id, as `ssmd client key list` shows it.
    """
    from ssmd.registry.client_keys import ClientKeys, key_id, without_keys

    with database_of(choose(env)) as database:
        revoked = ClientKeys(database).revoke(key_id(key) or without_keys(key), actor())
    if json:
        show_json(_row(revoked))
    else:
        mark_line(GOOD, revoked.id, f"{revoked.name}: revoked")
    return EXIT_DONE


def _until(text: str | None, now: datetime) -> datetime | None:
    """The time that `--expires` means."""
    if text is None:
        return None
    days = re.fullmatch(r"([0-9]{1,5})d", text)
    if days:
        return now + timedelta(days=int(days[1]))
    try:
        return moment("--expires", text, now.replace(year=1970))  # today means its end, too
    except ConfigError as error:
        raise ConfigError(
            error.message, "Write 2027-01-31, 2027-01-31T18:00:00Z, or days from now like 90d."
        ) from error


def _row(key: "ClientKey") -> dict[str, Any]:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    row: dict[str, Any] = {"id": key.id, "name": key.name, "scopes": list(key.scopes)}
    row |= {"state": key.state(datetime.now(UTC)), "created_by": key.created_by, "revoked_by": key.revoked_by}
    return row | {name: _written(getattr(key, name)) for name in times}


def _written(at: datetime | None) -> str | None:
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
