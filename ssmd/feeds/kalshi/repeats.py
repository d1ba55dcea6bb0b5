"""What came before on a connection: ids of trades and times of markets, in bounded memory."""

MAX_TRADES = 65_536
MAX_MARKETS = 200_000


class RecentTrades:
    """The ids of the last trades: at least `MAX_TRADES`, at most twice as many."""

    def __init__(self) -> None:
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def repeated(self, trade_id: str) -> bool:
        """Did this id come before? It has, from now on. Never so for a trade without one."""
        if trade_id in self._newer or trade_id in self._older:
            return True
        if trade_id:
            self._newer.add(trade_id)
            if len(self._newer) >= MAX_TRADES:
                self._older, self._newer = self._newer, set()
        return False


class LatestTimes:
    """The exchange's latest time on one channel, for each market."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}

    def backwards(self, ticker: str, exchange_ns: int) -> bool:
        """Is this time before one that came earlier? 0 says that the exchange gave none."""
        latest = self._latest
        if exchange_ns >= latest.get(ticker, 0):
            if len(latest) >= MAX_MARKETS:
                latest.clear()
            latest[ticker] = exchange_ns
            return False
        return exchange_ns > 0
