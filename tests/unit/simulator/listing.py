"""A simulated exchange with a few made-up objects, and a client that asks it over HTTP."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from ssmd.simulator.options import SimulatorOptions
from ssmd.simulator.server import Simulator, running


def market(ticker: str, event: str, minute: int, status: str = "active", **fields: Any) -> dict[str, Any]:
    """A market created `minute` minutes after midnight on 2026-11-01."""
    created = f"2026-11-01T{minute // 60:02}:{minute % 60:02}:00Z"
    return {
        "ticker": ticker,
        "event_ticker": event,
        "status": status,
        "result": "",
        "created_time": created,
        "updated_time": created,
        "open_time": created,
        "close_time": "2026-12-01T00:00:00Z",
        "floor_strike": 92699.99,
        **fields,
    }


def event(ticker: str, series: str, **fields: Any) -> dict[str, Any]:
    return {"event_ticker": ticker, "series_ticker": series, "title": ticker, "category": "Crypto", **fields}


def series(ticker: str, **fields: Any) -> dict[str, Any]:
    more = {"title": ticker, "frequency": "daily", "category": "Crypto", "categories": ["Crypto"], "tags": ["btc"]}
    return {"ticker": ticker, **more, **fields}


SETTLED = {"status": "finalized", "result": "yes", "settlement_ts": "2026-11-03T00:00:00.5Z"}
MARKETS = [
    market("KXA-1-T1", "KXA-1", 5),
    market("KXA-1-T2", "KXA-1", 1, "inactive"),
    market("KXA-2-T1", "KXA-2", 3, **SETTLED, close_time="2026-11-02T00:00:00Z"),
    market("KXB-1-T1", "KXB-1", 4, "initialized"),
    market("KXB-2-T1", "KXB-2", 2, "determined", result="no", close_time="2026-11-02T12:00:00Z"),
    market("KXMVEX-S1-1", "KXMVEX-S1", 6, mve_collection_ticker="KXMVEX-R"),
]
EVENTS = [
    event("KXA-1", "KXA", last_updated_ts="2026-11-01T00:00:10Z"),
    event("KXA-2", "KXA"),
    event("KXB-1", "KXB", last_updated_ts="2026-11-02T00:00:00Z"),
    event("KXB-2", "KXB"),
    event("KXC-1", "KXC"),
    event("KXMVEX-S1", "KXMVEX"),
]
SERIES = [
    series("KXA", product_metadata={"x": 1}, volume_fp="5.00", last_updated_ts="2026-11-05T00:00:00Z"),
    series("KXB", categories=["World", "Politics"], category="World", tags=None),
]
GENERATED = 18
"""Markets of the generator: two windows, three series, three strikes."""


def write_objects(folder: Path) -> Path:
    """The objects above, as the pages that list them."""
    folder.mkdir(exist_ok=True)
    (folder / "markets.json").write_text(json.dumps({"cursor": "more", "markets": MARKETS}))
    (folder / "events.json").write_text(json.dumps({"events": EVENTS}))
    (folder / "series.json").write_text(json.dumps({"series": SERIES}))
    return folder


class Asked:
    """Asks a running exchange."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._session = session

    async def get(self, path: str, expected: int = 200, /, **query: Any) -> Any:
        """The body of an answer that has this status."""
        async with self._session.get(self.simulator.rest_url + path, params=query) as answer:
            body = await answer.json()
            assert answer.status == expected, str(body)[:300]
            return body

    async def order(self, order: object, expected: int = 200) -> Any:
        """Change the listing."""
        async with self._session.post(f"{self.simulator.control_url}/markets", data=json.dumps(order)) as answer:
            body = await answer.json()
            assert answer.status == expected, str(body)[:300]
            return body

    async def tickers(self, **query: Any) -> list[str]:
        """Of `/markets`, without the generated ones; all pages of at most 1000."""
        found: list[str] = []
        cursor = ""
        while True:
            body = await self.get("/markets", cursor=cursor, **query)
            found += [row["ticker"] for row in body["markets"] if not row["ticker"].startswith("TEST-")]
            cursor = body["cursor"]
            if not cursor:
                return found

    async def events(self, path: str = "/events", **query: Any) -> list[str]:
        """Of `/events`, without the generated ones."""
        body = await self.get(path, **query)
        found = [row["event_ticker"] for row in body["events"]]
        return [ticker for ticker in found if not ticker.startswith("TEST-")]


@contextlib.asynccontextmanager
async def exchange(*objects: Path, **options: Any) -> AsyncIterator[Asked]:
    """An exchange that lists these objects beside its generated markets."""
    async with running(SimulatorOptions(objects=objects, **options)) as simulator, aiohttp.ClientSession() as session:
        yield Asked(simulator, session)
