"""Which markets are captured: what the exchange lists, written to the registry on the way."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from ssmd.connector.exchange import MarketSource, Settings
from ssmd.errors import SsmdError, TransientError
from ssmd.registry.interface import Market, Registry

LIST_EVERY_S = 60.0
ASK_AGAIN_S = 5.0

log = structlog.get_logger(component="connector")


class Markets:
    """The wanted tickers; `on_new` is told about each that was not wanted before."""

    def __init__(
        self, settings: Settings, source: MarketSource | None, registry: Registry, on_new: Callable[[list[str]], None]
    ) -> None:
        self._settings = settings
        self._source = source
        self._registry = registry
        self._on_new = on_new
        self.tickers: frozenset[str] = frozenset(settings.tickers)

    async def follow(self) -> None:
        """Ask for the list again and again, until cancelled. Between two lists, the session hears of new markets."""
        if self._source is None:
            return
        known = await self._known()
        while True:
            delay = ASK_AGAIN_S
            try:
                listed = [market async for market in self._source.open_markets()]
            except SsmdError as error:
                log.warning("markets not listed", error=error.message, from_registry=len(known))
                self._want(self.tickers | frozenset(known))
            else:
                if listed:
                    self._want(market.ticker for market in listed)
                    await self._remember(listed)
                    delay = LIST_EVERY_S
                else:  # an empty answer is no reason to give up what was wanted before
                    log.warning("the exchange lists no open market; asking again", wanted=len(self.tickers))
            await asyncio.sleep(delay)

    def _want(self, tickers: Iterable[str]) -> None:
        """Replace what is wanted: markets that are no longer listed are not asked for on the next connection."""
        wanted = frozenset(self._settings.tickers) | {t for t in tickers if self._settings.selects(t)}
        new, self.tickers = wanted - self.tickers, wanted
        if new:
            self._on_new(sorted(new))

    async def _known(self) -> list[str]:
        try:
            rows = await asyncio.to_thread(self._registry.markets, self._settings.feed, "active", 20_000)
        except TransientError as error:
            log.warning("registry unavailable, markets come from the exchange alone", error=error.message)
            return []
        return [market.ticker for market in rows]

    async def _remember(self, markets: list[Market]) -> None:
        try:
            changed = await asyncio.to_thread(self._registry.upsert_markets, self._settings.feed, markets)
        except TransientError as error:
            log.warning("markets not written down", error=error.message)
        else:
            if changed:
                log.info("markets", listed=len(markets), changed=changed)
