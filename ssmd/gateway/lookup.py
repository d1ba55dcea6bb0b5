"""Does a market exist, and what does the database know of it?"""

import asyncio
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.problems import ApiProblem, near
from ssmd.registry.interface import Market, RegistryUnavailable

COMPARED_AT_ONCE = 1_000  # names: comparing keeps all other threads waiting

Presence: TypeAlias = Literal["present", "absent", "unavailable"]


class Lookup:
    """Asks the live state first, then the database."""

    def __init__(self, hub: Hub, catalogue: Catalogue) -> None:
        self._hub = hub
        self._catalogue = catalogue

    async def metadata(self, ticker: str) -> tuple[Market | None, Presence]:
        """(the market, `present`), (None, `absent`) or, while the database is away, (None, `unavailable`).

        Raises RegistryUnavailable when the ticker was not heard live either: nobody can say whether it exists.
        """
        try:
            market = await self._catalogue.market(ticker)
        except RegistryUnavailable:
            if not self._hub.board.known(ticker):
                raise
            return None, "unavailable"
        return market, "absent" if market is None else "present"

    async def exists(self, ticker: str) -> bool:
        """Was it heard live, or is it known to the database? Errors as `metadata`."""
        return self._hub.board.known(ticker) or (await self.metadata(ticker))[0] is not None

    async def require(self, ticker: str) -> None:
        """ApiProblem 404 when it does not exist. Errors as `metadata`."""
        if not await self.exists(ticker):
            raise await self.unknown(ticker)

    async def unknown(self, ticker: str) -> ApiProblem:
        """404, with the tickers that were heard live and are nearest."""
        close = await asyncio.to_thread(_nearest, ticker, list(self._hub.board.updated_ns))
        step = f"Did you mean {' or '.join(close)}?" if close else "GET /v1/markets lists them."
        return ApiProblem(404, "unknown_market", f"no market {ticker}", step, near=close)


def _nearest(ticker: str, known: Sequence[str]) -> list[str]:
    best: list[str] = []
    for start in range(0, len(known), COMPARED_AT_ONCE):
        best = near(ticker, [*best, *known[start : start + COMPARED_AT_ONCE]])
    return best
