"""Questions to a small security master in memory, with a live board that tests can feed."""

from collections.abc import Iterable

from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.questions.answers import Answer, Questions
from ssmd.market.events import SCALE, MarketStatus, Quote, Status
from ssmd.registry.interface import Market, Registry
from ssmd.registry.memory import MemoryRegistry
from tests.data.question_markets import NOW, markets

NOW_NS = int(NOW.timestamp()) * 1_000_000_000


class Asking:
    """A registry, a hub, and what they are asked."""

    def __init__(self, listed: Iterable[Market] | None = None, registry: Registry | None = None) -> None:
        self.registry = registry or MemoryRegistry()
        self.registry.upsert_markets("kalshi", list(markets() if listed is None else listed))
        self.hub = Hub("kalshi", clock=lambda: NOW_NS)
        self.questions = Questions(Catalogue("kalshi", self.registry, lambda: NOW_NS), self.hub, lambda: NOW_NS)

    async def ask(self, text: str, limit: int = 100) -> Answer:
        return await self.questions.answer(text, limit)

    async def tickers(self, text: str) -> list[str]:
        """Of the answer, which must be understood."""
        answer = await self.ask(text)
        assert answer.understood, answer
        return [row.ticker for row in answer.results]

    def quote(self, ticker: str, cents: float, *, spread: float = 1, volume: int = 0, open_interest: int = 0) -> None:
        """A last trade in cents, and a best bid just below it."""
        last, wide = round(cents * SCALE / 100), round(spread * SCALE / 100)
        quote = Quote(
            0, NOW_NS, ticker, "c", 1, 1, last - wide, SCALE, last, SCALE, last, SCALE,
            volume * SCALE, open_interest * SCALE,
        )  # fmt: skip
        self.hub.board.take(quote)

    def settle(self, ticker: str, result: str) -> None:
        """The feed told it; the database does not know yet."""
        status = MarketStatus(
            exchange_ns=NOW_NS, received_ns=NOW_NS, ticker=ticker, connection="c", sid=1, seq=1, status=Status.SETTLED,
            result=result, settlement_value=SCALE,
        )  # fmt: skip
        self.hub.board.take(status)
