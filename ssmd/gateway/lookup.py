"""Does a market exist, and what does the database know of it?"""

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.problems import ApiProblem, near
from ssmd.registry.interface import Market, RegistryUnavailable

COMPARED_AT_ONCE = 1_000  # names: comparing keeps all other threads waiting

Presence: TypeAlias = Literal["present", "absent", "unavailable"]


class Metadata(NamedTuple):
    """A market as the database knows it. `as_known_ns`: it is away, and said so then."""

    market: Market | None
    presence: Presence
    as_known_ns: int | None = None


class Lookup:
    """Asks the live state first, then the database."""

    def __init__(self, hub: Hub, catalogue: Catalogue) -> None:
        self._hub = hub
        self._catalogue = catalogue

    async def metadata(self, ticker: str) -> Metadata:
        """The market is `present` or `absent`, or `unavailable`: the database is away and nothing is remembered.

        Raises RegistryUnavailable when the ticker was not heard live either: nobody can say whether it exists.
        """
        try:
            known = await self._catalogue.known_market(ticker)
        except RegistryUnavailable:
            if not self._hub.board.known(ticker):
                raise
            return Metadata(None, "unavailable")
        presence: Presence = "absent" if known.value is None else "present"
        return Metadata(known.value, presence, known.at_ns if known.stale else None)

    async def exists(self, ticker: str) -> bool:
        """Was it heard live, or is it known to the database? Errors as `metadata`."""
        return self._hub.board.known(ticker) or (await self.metadata(ticker)).market is not None

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
