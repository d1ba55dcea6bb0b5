"""`ssmd connector`: capture chosen symbols, after the registry was asked whether they and their feed exist."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from ssmd.cli.opening import Opener, database_of
from ssmd.cli.options import Chosen, EnvFile, choose
from ssmd.cli.validation import available_feeds, feed_not_found, quoted, validation_failed

if TYPE_CHECKING:
    from ssmd.registry.database import Database
    from ssmd.runtime import Service

app = App(name="connector", help="Start a connector for chosen symbols, checked against the registry first.")
_MAX_LISTED = 20


@app.command
def start(
    *,
    feed: Annotated[str, Parameter(name="--feed")],
    symbols: Annotated[str, Parameter(name="--symbols")],
    env: EnvFile = None,
    ws: str | None = None,
    rest: str | None = None,
    admin_port: int | None = None,
) -> int:
    """Capture only the given symbols of a feed, in the foreground; SIGTERM drains it.

    Feed and symbols are looked up in the registry first; nothing is started when one of them is unknown.

    Parameters
    ----------
    feed
        The feed, as the registry knows it.
    symbols
        Tickers, separated by commas.
    ws
        WebSocket address of the exchange, instead of spec.endpoints and the registry.
    rest
        REST address of the exchange, instead of spec.endpoints and the registry.
    admin_port
        Port of /metrics and /health; default: the environment's, or free.
    """
    chosen = choose(env)
    tickers = tuple(dict.fromkeys(text.strip() for text in symbols.split(",") if text.strip()))
    with database_of(chosen) as database:
        check(database, feed, tickers)
    return _capture(_only(chosen, feed, tickers), ws, rest, admin_port)


def check(database: "Database", feed: str, tickers: tuple[str, ...]) -> None:
    """Raise `Validation failed`, with everything that is wrong at once, unless the feed and all symbols are known."""
    from ssmd.feeds.catalogue import FEEDS
    from ssmd.nearest import nearest
    from ssmd.registry.feeds import FeedCatalogue
    from ssmd.registry.tickers import known_tickers, unknown_tickers

    feeds = FeedCatalogue(database).list(doing="look up the feed and the symbols to capture")
    found = next((listed for listed in feeds if listed.name == feed), None)
    if found is None:
        raise feed_not_found(feed, feeds)
    problems = []
    if found.status != "active":
        problems.append(f"Feed '{feed}' is {found.status}")
    if found.version is None:
        problems.append(f"Feed '{feed}' has no version that holds today (run: ssmd feed show {feed})")
    if feed not in FEEDS:
        problems.append(f"Feed '{feed}' is registered, but this version of ssmd cannot speak its protocol")
    if not tickers:
        problems.append("No symbol is given")
    there = available_feeds(feeds)
    if missing := unknown_tickers(database, feed, tickers):
        known = known_tickers(database, feed)
        for ticker in missing[:_MAX_LISTED]:
            problems.append(f"Symbol {quoted(ticker)} not found among the markets of feed '{feed}'")
            if guess := nearest(ticker, known):
                problems.append(f"Did you mean '{guess}'?")
        if len(missing) > _MAX_LISTED:
            problems.append(f"{len(missing) - _MAX_LISTED:,} more symbols not found")
        counted = f"{len(known):,} known. Run: ssmd market list" if known else "none known. Run: ssmd market sync"
        there = f"\n\nMarkets of {feed}: {counted}"
    problems += _unlisted(database, feed, tickers)
    if problems:
        raise validation_failed(problems, there)


def _unlisted(database: "Database", feed: str, tickers: tuple[str, ...]) -> list[str]:
    """What is wrong with markets that are known, and that the exchange no longer has."""
    from ssmd.registry.tickers import unlisted_tickers

    found = unlisted_tickers(database, feed, tickers)
    problems = [
        f"Symbol {quoted(ticker)} is no longer listed by the exchange (run: ssmd market show {ticker})"
        for ticker in found[:_MAX_LISTED]
    ]
    more = len(found) - _MAX_LISTED
    return [*problems, f"{more:,} more symbols are no longer listed"] if more > 0 else problems


def _only(chosen: Chosen, feed: str, tickers: tuple[str, ...]) -> Chosen:
    """The environment with this feed and no other symbols than these."""
    from ssmd.config.environment import Symbols

    spec = chosen.environment.spec
    narrowed = spec.model_copy(update={"feed": feed, "symbols": Symbols(sync=False, tickers=tickers)})
    return chosen._replace(environment=chosen.environment.model_copy(update={"spec": narrowed}))


def _capture(chosen: Chosen, ws: str | None, rest: str | None, admin_port: int | None) -> int:
    from ssmd.runtime import run_service
    from ssmd.telemetry import configure_logging

    async def open_service(stack: AsyncExitStack) -> "Service":
        from ssmd.cli.exchange import open_connector

        return await open_connector(Opener(chosen, stack), ws, rest)

    spec = chosen.environment.spec
    configure_logging("connector")
    port = admin_port or spec.connector.metrics_port or 0
    return run_service("connector", open_service, chosen.home, spec.gateway.host, port)
