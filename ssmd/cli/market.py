"""`ssmd market`: what the registry knows about markets."""

from typing import Any

from cyclopts import App
from rapidfuzz import process

from ssmd.cli.opening import registry_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import show_json, show_rows
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.registry.interface import Market, Registry

app = App(name="market", help="Markets the registry knows.")
_PAGE = 1000
_COLUMNS = {"ticker": "TICKER", "status": "STATUS", "close_time": "CLOSES", "title": "TITLE"}


@app.command(name="list")
def list_markets(
    *, env: EnvFile = None, feed: Feed = None, status: str | None = None, limit: int = 100, json: Json = False
) -> int:
    """List markets by ticker.

    Parameters
    ----------
    status
        The exchange's word: active, closed, determined, finalized, ...
    limit
        At most so many; 0 means all.
    """
    chosen = choose(env)
    with registry_of(chosen) as registry:
        markets = _all(registry, chosen.feed(feed), status, limit)
    show_rows([_row(market) for market in markets], _COLUMNS, as_json=json, empty="no markets are known")
    return EXIT_DONE


@app.command
def show(ticker: str, *, env: EnvFile = None, feed: Feed = None, json: Json = False) -> int:
    """Show one market, with everything the exchange says about it."""
    chosen = choose(env)
    name = chosen.feed(feed)
    with registry_of(chosen) as registry:
        market = registry.market(name, ticker)
        if market is None:
            near = process.extractOne(ticker, [m.ticker for m in registry.markets(name)], score_cutoff=70)
            hint = f"Did you mean {near[0]}?" if near else "Run: ssmd market list"
            raise ConfigError(f"the registry knows no market {ticker!r} of {name}", hint)
    fields = _row(market) | {"raw": market.raw}
    if json:
        show_json(fields)
    else:
        rows = [{"field": key, "value": value} for key, value in {**fields, **market.raw}.items() if key != "raw"]
        show_rows(rows, {"field": "FIELD", "value": "VALUE"}, as_json=False, empty="")
    return EXIT_DONE


def _all(registry: Registry, feed: str, status: str | None, limit: int) -> list[Market]:
    found: list[Market] = []
    while not limit or len(found) < limit:
        wanted = min(_PAGE, limit - len(found)) if limit else _PAGE
        page = registry.markets(feed, status, wanted, found[-1].ticker if found else "")
        found += page
        if len(page) < wanted:
            break
    return found


def _row(market: Market) -> dict[str, Any]:
    return {
        "ticker": market.ticker,
        "status": market.status,
        "open_time": market.open_time,
        "close_time": market.close_time,
        "result": market.result,
        "event_ticker": market.event_ticker,
        "title": market.title,
    }
