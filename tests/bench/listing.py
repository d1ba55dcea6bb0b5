"""A whole `ssmd market sync` from an HTTP server on the loopback: the exchange and the sync are processes of their own.

What is measured: asking, reading, comparing, writing, and telling the journal, as the command does it; the exchange's
own rate limit (20 requests a second) is left out. `python -m tests.bench.listing exchange|sync …` are the two programs.
"""

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import web

from tests.bench.markets import CHANGED, PAGE, market
from tests.bench.measure import Lap

_EVENT_PAGE = 200


class Whole(NamedTuple):
    """One sync: its lap, and the most memory that its process ever held, in MiB."""

    lap: Lap
    peak_mib: float


class Exchange:
    """Lists `markets` open markets; a query `generation` on the control path changes every tenth of them."""

    def __init__(self, markets: int) -> None:
        self._markets = markets
        self._pages: list[bytes] = []
        self._events: list[bytes] = []
        self._turn(0)

    def _turn(self, generation: int) -> None:
        found = [market(number, generation).raw for number in range(self._markets)]
        self._pages = _paged("markets", found, PAGE)
        events = sorted({(row["event_ticker"], row["event_ticker"].partition("-")[0]) for row in found})
        rows = [{"event_ticker": event, "series_ticker": series, "title": event} for event, series in events]
        self._events = _paged("events", rows, _EVENT_PAGE)
        self._series = sorted({series for _, series in events})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path.removeprefix("/trade-api/v2"), request.query
        if path == "/generation":
            self._turn(int(query["is"]))
            return web.json_response({})
        if path == "/series":
            return web.json_response({"series": [{"ticker": name, "category": "Bench"} for name in self._series]})
        pages = {"/events": self._events, "/markets": self._pages}.get(path, [])
        if query.get("status") == "open" and int(query.get("cursor", "0")) < len(pages):
            return web.Response(body=pages[int(query.get("cursor", "0"))], content_type="application/json")
        return web.json_response({path[1:]: [], "cursor": ""})

    async def serve(self) -> None:
        """Print the address, and serve until killed."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        print(f"http://{host}:{port}/trade-api/v2", flush=True)
        await asyncio.Event().wait()


def _paged(name: str, rows: list[dict[str, Any]], size: int) -> list[bytes]:
    starts = range(0, len(rows), size)
    cursors = [str(number + 1) for number in range(len(starts) - 1)] + [""]
    return [
        json.dumps({name: rows[start : start + size], "cursor": cursor}, separators=(",", ":")).encode()
        for start, cursor in zip(starts, cursors, strict=True)
    ]


@contextlib.contextmanager
def exchange(markets: int) -> Iterator[str]:
    """The address of a running exchange."""
    command = [sys.executable, "-m", "tests.bench.listing", "exchange", str(markets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def laps(markets: int, url: str, database: str, nats: str) -> dict[str, Whole]:
    """A first sync, the same again, and one with a tenth changed, each in full and in a process of its own."""
    found = {}
    for name, generation, new, changed in (
        ("new", 0, markets, 0),
        ("same", 0, 0, 0),
        ("tenth", 1, 0, -(-markets // CHANGED)),
    ):
        command = [sys.executable, "-m", "tests.bench.listing", "sync", url, database, nats, str(generation)]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        if (said["new"], said["changed"], said["published"]) != (new, changed, new + changed):
            raise RuntimeError(f"{name}: {said}")
        found[name] = Whole(Lap(said["cpu_s"] / markets * 1e6, markets / said["seconds"]), said["peak_mib"])
    return found


async def sync(rest_url: str, database_url: str, nats_url: str, generation: int) -> dict[str, Any]:
    """One full sync, as the command makes it."""
    import aiohttp

    from ssmd.feeds.catalogue import open_feed
    from ssmd.feeds.kalshi.rest import KalshiRest
    from ssmd.feeds.kalshi.throttle import TokenBucket
    from ssmd.middleware.journal.nats import NatsJournal
    from ssmd.middleware.transport.nats import NatsTransport
    from ssmd.registry.database import Database
    from ssmd.registry.market_search import MarketSearch
    from ssmd.registry.security_master import SecurityMaster
    from ssmd.registry.sync_context import SyncContext
    from ssmd.secmaster.publishing import Teller
    from ssmd.secmaster.sync import SecurityMasterSync

    turn = f"{rest_url}/generation?is={generation}"
    async with aiohttp.ClientSession() as session, session.get(turn) as response:
        response.raise_for_status()
    database, parts = Database(database_url), open_feed("kalshi", datetime.now(UTC).date())
    journal, transport, master = NatsJournal(nats_url), NatsTransport(nats_url), SecurityMaster(database)
    teller = Teller(parts, master, MarketSearch(database), journal, "ssmd.journal.secmaster", transport)
    async with KalshiRest(rest_url, bucket=TokenBucket(1e6, 1_000_000)) as rest:
        cpu, wall = time.process_time(), time.perf_counter()
        report = await SecurityMasterSync(parts, rest, master, SyncContext(database), teller).sync(full=True)
        spent = {"cpu_s": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    await journal.close()
    await transport.close()
    database.close()
    counts = {"new": report.new, "changed": report.changed, "published": report.published}
    return {**counts, **spent, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(role: str, *arguments: str) -> None:
    """The exchange, or one sync; `tests.bench.rows` starts both."""
    if role == "exchange":
        asyncio.run(Exchange(int(arguments[0])).serve())
        return
    rest_url, database_url, nats_url, generation = arguments
    print(json.dumps(asyncio.run(sync(rest_url, database_url, nats_url, int(generation)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
