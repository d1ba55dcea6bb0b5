"""`ssmd client`: who uses the gateway and how each keeps up, and the API keys that let them in."""

import re
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ssmd.cli.gateway_calls import GatewayCalls, KeyFile, Url
from ssmd.cli.options import EnvFile, Json, choose
from ssmd.cli.output import GOOD, mark_line, show_fields, show_json, show_rows
from ssmd.errors import EXIT_DONE, ConfigError

app = App(name="client", help="Clients of the gateway, and the API keys that let them in.")
app.command("ssmd.cli.client_key:app", name="key", help="API keys: create, list, revoke; shown once, when made.")

_COLUMNS = {"id": "ID", "state": "STATE", "buffer": "BUFFER", "lag": "LAG", "symbols": "SUBSCRIPTIONS"}
_SYMBOLS_SHOWN = 5

ClientId = Annotated[str, Parameter(help="The client's id, as `ssmd client list` shows it.")]


@app.command(name="list")
def list_clients(*, env: EnvFile = None, url: Url = None, key_file: KeyFile = None, json: Json = False) -> int:
    """Who is connected to the gateway: how full each buffer is, and how far behind."""
    clients = GatewayCalls(choose(env), url, key_file).ask("GET", "/v1/admin/clients")["clients"]
    rows = clients if json else [_row(client) for client in clients]
    show_rows(rows, _COLUMNS, as_json=json, empty="nobody is connected")
    return EXIT_DONE


@app.command
def show(
    client: ClientId, /, *, env: EnvFile = None, url: Url = None, key_file: KeyFile = None, json: Json = False
) -> int:
    """One client: its address, key, subscriptions, and what it was sent and missed."""
    found = GatewayCalls(choose(env), url, key_file).ask("GET", f"/v1/admin/clients/{_id(client)}")
    if json:
        show_json(found)
    else:
        show_fields(_fields(found))
    return EXIT_DONE


@app.command
def disconnect(
    client: ClientId,
    /,
    *,
    reason: Annotated[str, Parameter(help="What the client is told; at most 80 plain characters.")] = "by an operator",
    env: EnvFile = None,
    url: Url = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """Send a client away; it may connect again."""
    if not re.fullmatch(r"[ -~]{1,80}", reason):
        raise ConfigError(f"--reason {reason[:40]!r} cannot be sent", "Give 1 to 80 plain (ASCII) characters.")
    path = f"/v1/admin/clients/{_id(client)}/disconnect"
    found = GatewayCalls(choose(env), url, key_file).ask("POST", path, {"reason": reason})
    if json:
        show_json(found)
    else:
        mark_line(GOOD, found["id"], f"disconnected: {reason}")
    return EXIT_DONE


@app.command(name="set-mode")
def set_mode(
    client: ClientId,
    /,
    *,
    mode: Annotated[
        Literal["realtime", "conflated", "latest"],
        Parameter(help="Every message, the newest of each interval, or only what is asked for."),
    ],
    interval: Annotated[str | None, Parameter(help="Of conflated: 500ms, 2s; default: 100ms.")] = None,
    env: EnvFile = None,
    url: Url = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """Move a client to another mode; it is told by a `subscribed` message."""
    body: dict[str, object] = {"mode": mode}
    if interval is not None:
        body["interval_ms"] = _milliseconds(interval, mode)
    path = f"/v1/admin/clients/{_id(client)}/mode"
    found = GatewayCalls(choose(env), url, key_file).ask("POST", path, body)
    if json:
        show_json(found)
    else:
        every = f", every {found['interval_ms']} ms" if found["interval_ms"] else ""
        mark_line(GOOD, found["id"], f"{found['mode']}{every}")
    return EXIT_DONE


def _id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{6}", text):
        raise ConfigError(f"{text[:40]!r} is no client: an id has six hex digits", "Run: ssmd client list")
    return text


def _milliseconds(text: str, mode: str) -> int:
    if mode != "conflated":
        raise ConfigError(f"--interval belongs to --mode conflated, not to {mode}", "Leave --interval out.")
    match = re.fullmatch(r"([0-9]{1,5})(ms|s|)", text)
    found = int(match[1]) * (1_000 if match[2] == "s" else 1) if match else 0
    if not 10 <= found <= 60_000:
        raise ConfigError(f"--interval {text[:40]!r} is not 10ms to 60s", "Write 500ms or 2s.")
    return found


def _row(client: dict[str, Any]) -> dict[str, Any]:
    names = list(client["subscriptions"])
    more = client["subscribed"] - len(names[:_SYMBOLS_SHOWN])
    return {
        "id": client["id"],
        "state": client["state"],
        "buffer": f"{client['utilization']:.0%}",
        "lag": f"{client['lag_ms']}ms",
        "symbols": ", ".join(names[:_SYMBOLS_SHOWN]) + (f" and {more:,} more" if more > 0 else ""),
    }


def _fields(client: dict[str, Any]) -> dict[str, object]:
    every = f" every {client['interval_ms']} ms" if client["interval_ms"] else ""
    more = client["subscribed"] - len(client["subscriptions"])
    symbols = [f"{symbol} ({', '.join(channels)})" for symbol, channels in client["subscriptions"].items()]
    return {
        "ID": client["id"],
        "State": client["state"],
        "Address": client["address"],
        "Key": client["key"],
        "Mode": client["mode"] + every,
        "Buffer": f"{client['utilization']:.0%} ({client['messages_waiting']:,} messages, "
        f"{client['bytes_waiting']:,} bytes)",
        "Lag": f"{client['lag_ms']}ms",
        "Connected": client["connected_at"],
        "Last Message": client["last_message_at"],
        "Sent": f"{client['messages_sent']:,} messages, {client['bytes_sent']:,} bytes",
        "Dropped": f"{client['messages_dropped']:,} messages",
        "Subscriptions": "; ".join(symbols) + (f"; and {more:,} more" if more > 0 else ""),
    }
