"""The connector of an environment: its feed, its key and its exchange, put together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import structlog

from ssmd.cli.opening import Opener
from ssmd.clock import NS_PER_MS, day_of, now_ns
from ssmd.connector.exchange import Credentials, Exchange, Settings, fingerprint
from ssmd.connector.service import Connector
from ssmd.errors import Unavailable
from ssmd.feeds.catalogue import FeedParts, open_feed
from ssmd.feeds.interface import Mapper, Session
from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.registry.interface import Market, Registry, RegistryRefused
from ssmd.registry.memory import MemoryRegistry

CHANNELS = {"trade": "trade", "orderbook": "orderbook_delta", "ticker": "ticker", "status": "market_lifecycle_v2"}
"""The exchange's names for `spec.connector.channels`."""

_log = structlog.get_logger()


async def open_connector(opener: Opener, ws: str | None, rest: str | None, name: str = "") -> Connector:
    """The connector; `ws` and `rest` are stronger than spec.endpoints, and that than the registry.

    `name` is a second connector's, which has a spool folder of its own beside the usual one.
    """
    spec, home = opener.spec, opener.chosen.home
    registry = opener.registry()
    ws, rest = await endpoints(opener, registry, ws, rest)
    connector = spec.connector
    settings = Settings(
        feed=spec.feed,
        raw_bucket=spec.middleware.storage.buckets.raw,
        spool_folder=home / connector.spool.path / (f"{spec.feed}-{name}" if name else spec.feed),
        spool_max_bytes=connector.spool.max_mb << 20,
        seal_s=connector.seal_s,
        seal_bytes=connector.seal_mb << 20,
        publish_raw=connector.publish_raw,
        selects=spec.symbols.selects,
        tickers=spec.symbols.tickers,
        name=name,
    )
    client = KalshiRest(rest, environment=opener.chosen.environment.name)
    opener.defer(client.close)
    exchange = make_exchange(opener, open_feed(spec.feed, day_of(now_ns())), ws, client)
    exchange.credentials().headers()  # a missing or unusable key is an error now, not at the first connection
    return Connector(settings, exchange, opener.transport(), opener.storage(), registry)


def make_exchange(opener: Opener, parts: FeedParts, ws: str, client: KalshiRest) -> Exchange:
    """The feed as the connector needs it: signed by the key named like the feed."""
    channels = [CHANNELS[name] for name in opener.spec.connector.channels]
    name, path = opener.spec.feed, urlsplit(ws).path

    def credentials() -> Credentials:
        key_id = opener.resolver.resolve(name, "api_key").reveal()
        secret = opener.resolver.resolve(name, "api_secret").reveal()
        return Credentials(
            lambda: parts.sign(key_id, secret, "GET", path, now_ns() // NS_PER_MS), fingerprint(key_id, secret)
        )

    def session(mapper: Mapper, wants: Callable[[str], bool]) -> Session:
        return parts.new_session(mapper, wants, channels)

    markets = ListedMarkets(client) if opener.spec.symbols.sync else None
    chosen = opener.chosen
    return Exchange(
        ws, chosen.environment.name, name, credentials, parts.decoder, parts.new_mapper, session, markets,
        parts.volatile, chosen.with_name,
    )  # fmt: skip


class ListedMarkets:
    """The markets that the exchange's REST API lists as open."""

    def __init__(self, client: KalshiRest) -> None:
        self._client = client

    def open_markets(self) -> AsyncIterator[Market]:
        """See `connector.exchange.MarketSource`."""
        return self._client.markets(status="open")


async def endpoints(opener: Opener, registry: Registry, ws: str | None, rest: str | None) -> tuple[str, str]:
    """WebSocket and REST address of the exchange today."""
    chosen = opener.spec.endpoints
    ws, rest = ws or (chosen.ws if chosen else None), rest or (chosen.rest if chosen else None)
    if ws and rest:
        return ws, rest
    today = day_of(now_ns())
    try:
        known = await asyncio.to_thread(registry.feed_version, opener.spec.feed, today)
    except (Unavailable, RegistryRefused) as error:
        # The database being away, or refusing us, must not keep the feed closed: capture needs but the addresses, and
        # those that came with this version do.
        _log.error("registry away, using built-in endpoints", error=error.message, hint=error.hint)
        known = MemoryRegistry().feed_version(opener.spec.feed, today)
    return ws or known.ws, rest or known.rest
