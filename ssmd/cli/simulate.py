"""`ssmd simulate`: the simulated exchange alone, in the foreground."""

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from ssmd.logs import log_for_people
from ssmd.simulator.faults import FAULTS
from ssmd.simulator.options import SimulatorOptions, allowed_keys
from ssmd.simulator.server import Simulator, running


def simulate(  # noqa: PLR0913 -- each is an option of the command
    *,
    host: str = "127.0.0.1",
    port: int = 19555,
    tape: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    objects: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    speed: float = 1.0,
    rate: float | None = None,
    in_turn: Annotated[bool, Parameter(negative="")] = False,
    loop: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 1,
    window_s: int = 900,
    strikes: int = 3,
    key_id: Annotated[list[str] | None, Parameter(negative="")] = None,
    public_key: Annotated[list[Path] | None, Parameter(negative="")] = None,
    ledger: Path | None = None,
    settle_s: float = 1.0,
) -> None:
    """Run an exchange that speaks Kalshi's protocol, on this machine only.

    Without --tape it plays generated 15-minute markets (TEST-…) that are always on. With --tape it plays recorded
    frames, numbered anew, as soon as a client has subscribed; afterwards it stays up, quiet, with heartbeats.
    GET /_simulator/state tells what it does; POST /_simulator/fault breaks it, for example {"fault":"abort"},
    {"fault":"close","code":1012}, {"fault":"half_open","seconds":20}, {"fault":"drop","n":5,"channel":"trade"},
    {"fault":"hostile"}, {"fault":"stall","seconds":5}, {"fault":"refuse_429","seconds":10}.
    POST /_simulator/markets changes what REST lists: {"ticker":"T","set":{"status":"finalized","result":"yes"}},
    {"remove":"T"}, {"add":{…a market, event or series…}}, {"hide":3} (that many empty lists), or a list of such orders.

    Parameters
    ----------
    host
        The loopback address to listen on; anything else is refused.
    port
        REST and WebSocket share it; 0 takes a free one.
    tape
        NDJSON files (.gz too), one {"recv_ms":…,"event":<frame>} a line; several are played side by side.
    objects
        Files or folders of recorded REST bodies ({"markets":[…]}, {"event":…,"markets":[…]}, {"series":…} …; .json or
        .gz), listed beside what is played.
    speed
        Of a tape: 1 = as recorded, 10 = ten times as fast, 0 = as fast as the clients read.
    rate
        Messages a second: of the generator (50 if not given), or of a tape instead of its recorded times.
    in_turn
        Play several tapes one after the other.
    loop
        Begin again after a tape's end (trade ids repeat).
    seed
        Of the generated markets.
    window_s
        Length of a generated market's life in seconds.
    strikes
        Generated markets per series and window.
    key_id
        Let in only this API key id; may be given several times, as during a rotation.
    public_key
        PEM file (public or private key, RSA or Ed25519) that signatures are checked with, one for all key ids or one
        for each, in the same order; without it anyone may enter.
    ledger
        File that gets one JSON line before each frame is sent.
    settle_s
        Seconds of quiet after the last subscription before a tape starts.
    """
    options = SimulatorOptions(
        host=host,
        port=port,
        keys=allowed_keys(key_id or (), public_key or ()),
        ledger=ledger,
        seed=seed,
        rate=rate,
        window_s=window_s,
        strikes=strikes,
        tapes=tuple(tape or ()),
        objects=tuple(objects or ()),
        speed=speed,
        in_turn=in_turn,
        loop=loop,
        settle_s=settle_s,
    )
    log_for_people(logging.INFO)
    uvloop.run(_until_told(options))


async def _until_told(options: SimulatorOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options) as simulator:
        print(_banner(simulator), file=sys.stderr, flush=True)
        await stop.wait()


def _banner(simulator: Simulator) -> str:
    lines = [
        "Simulated exchange (loopback only)",
        f"  WebSocket  {simulator.ws_url}",
        f"  REST       {simulator.rest_url}",
        f"  state      {simulator.control_url}/state",
        f'  break it   curl -d \'{{"fault":"abort"}}\' {simulator.control_url}/fault',
        f"             {', '.join(FAULTS)}; with n, seconds, code, channel, connection",
        f'  change it  curl -d \'{{"ticker":"T","set":{{"status":"inactive"}}}}\' {simulator.control_url}/markets',
        "  Ctrl-C ends it.",
    ]
    return "\n".join(lines)
