"""`ssmd market sync`: the security master of an environment, its exchange and its journal, put together."""

import asyncio
import signal
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ssmd.cli.checking import checking
from ssmd.cli.opening import Opener, database_of
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import GOOD, WAITING, mark_line, show_json
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, ConfigError, FatalError

if TYPE_CHECKING:
    from ssmd.registry.database import Database
    from ssmd.secmaster.sync import SyncReport

MAX_URL = 2_000
COMBOS = "KXMVE"
"""Tickers of multivariate markets begin so; there are thousands a day, and they are synced where they are named."""


def sync(
    *,
    full: Annotated[
        bool, Parameter(negative=(), help="List everything; otherwise what has changed, in full once a day.")
    ] = False,
    accept: Annotated[bool, Parameter(negative=(), help="Also when far fewer markets are listed than before.")] = False,
    rest: Annotated[str | None, Parameter(help="REST address of the exchange; default: the environment's.")] = None,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Bring the registry up to what the exchange lists: series, events, markets; changes go to journal and stream.

    Exit code 3: the exchange suddenly lists far fewer markets, nothing was changed. 6: done, but something was left
    out or could not be published. 7: the exchange is away, nothing was changed.
    """
    import msgspec

    chosen = choose(env)
    name = chosen.feed(feed)
    with database_of(chosen) as database, checking(chosen, "secmaster_sync", name) as check:
        try:
            report = asyncio.run(_sync(chosen, name, database, rest, full=full, accept=accept))
        except asyncio.CancelledError as error:
            hint = "See how far it came: ssmd market syncs. Run it again: what was stored is whole, the rest follows."
            raise FatalError("the sync was ended by SIGTERM", hint) from error
        code = EXIT_FINDINGS if report.findings else EXIT_DONE
        said = msgspec.to_builtins(report)
        check.end(code, findings=len(report.findings), summary=f"{_listed(report)}; {_done(report)}", detail=said)
    if json:
        show_json(said)
    else:
        _show(report)
    return code


async def _sync(
    chosen: Chosen, feed: str, database: "Database", rest: str | None, *, full: bool, accept: bool
) -> "SyncReport":
    from ssmd.cli.sync_progress import sync_progress
    from ssmd.clock import day_of, now_ns
    from ssmd.feeds.catalogue import open_feed
    from ssmd.registry.market_search import MarketSearch
    from ssmd.registry.security_master import SecurityMaster
    from ssmd.registry.sync_context import SyncContext
    from ssmd.secmaster.publishing import Teller
    from ssmd.secmaster.sync import SecurityMasterSync

    spec, task = chosen.environment.spec, asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that the book hears of it
    parts = open_feed(feed, day_of(now_ns()))
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        address = await rest_address(opener, feed, rest)
        client = parts.new_rest(address, environment=chosen.environment.name)
        stack.push_async_callback(client.close)
        master, topic = SecurityMaster(database), spec.middleware.journal.topics.secmaster
        teller = Teller(parts, master, MarketSearch(database), opener.journal(), topic, opener.transport())
        named = (*spec.symbols.include, *spec.symbols.tickers)
        combos = any(name.startswith(COMBOS) for name in named)
        syncing = SecurityMasterSync(parts, client, master, SyncContext(database), teller, combos=combos)
        with sync_progress() as progress:
            return await syncing.sync(full=full, accept=accept, progress=progress)


async def rest_address(opener: Opener, feed: str, given: str | None) -> str:
    """What was given, else the exchange of the stack that runs here, else the environment's or the registry's."""
    from ssmd.cli.exchange import endpoints
    from ssmd.local.home import Home

    if given is not None:
        return _checked(given)
    if feed == opener.spec.feed:
        record = Home(opener.chosen.home).read_record()
        if record and record.environment == opener.chosen.environment.name and record.supervisord.alive and record.rest:
            return record.rest
        return (await endpoints(opener, opener.registry(), None, None))[1]
    from ssmd.clock import day_of, now_ns

    return (await asyncio.to_thread(opener.registry().feed_version, feed, day_of(now_ns()))).rest


def _checked(url: str) -> str:
    from urllib.parse import urlsplit

    from ssmd.config.values import masked
    from ssmd.registry.values import printable

    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and len(url) <= MAX_URL
    except ValueError:
        usable = False
    if not usable:
        message = f"--rest {printable(masked(url), 80)!r} is no address"
        raise ConfigError(message, "Write https://host/path, up to and without the resource's path.")
    return url


def _show(report: "SyncReport") -> None:
    listed = f"{report.kind} sync: {_listed(report)} ({report.open_markets:,} open)"
    mark_line(GOOD, report.feed, f"{listed}; {_done(report)}")
    for finding in report.findings:
        mark_line(WAITING, "left", finding)


def _listed(report: "SyncReport") -> str:
    return f"{report.series:,} series, {report.events:,} events, {report.markets:,} markets listed"


def _done(report: "SyncReport") -> str:
    return (
        f"{report.new:,} new, {report.changed:,} changed, {report.settled:,} settled, {report.unlisted:,} unlisted, "
        f"{report.published:,} published in {report.seconds:.1f} s"
    )
