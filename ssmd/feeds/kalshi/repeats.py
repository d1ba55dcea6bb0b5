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
        newer = self._newer
        count = len(newer)
        newer.add(trade_id)
        if len(newer) == count or trade_id in self._older:
            return trade_id != ""
        if count + 1 >= MAX_TRADES:
            self._older, self._newer = newer, set()
        return False


class LatestTimes(dict[str, int]):
    """The exchange's latest time on one channel by market; 0 for one that has none, and begun anew when it is full."""

    def __missing__(self, _ticker: str) -> int:
        if len(self) >= MAX_MARKETS:
            self.clear()
        return 0
