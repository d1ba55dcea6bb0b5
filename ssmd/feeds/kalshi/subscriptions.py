"""Whose books a Kalshi connection asked for and got, and which markets it heard of."""

from collections.abc import Callable, Collection, Iterable

from ssmd.feeds.kalshi.translate import is_ticker

MAX_PASSED = 200_000


class BookTickers:
    """The tickers whose books were asked for, and the subscription (sid) that carries each."""

    def __init__(self) -> None:
        self.requested: set[str] = set()
        self.heard: set[str] = set()
        self.full: set[int] = set()
        self._sid_of: dict[str, int] = {}
        self._by_sid: dict[int, set[str]] = {}

    def open_sid(self, sid: int) -> None:
        """A book subscription exists."""
        self._by_sid.setdefault(sid, set())

    def confirm(self, sid: int, tickers: Iterable[str]) -> dict[int, list[str]]:
        """The exchange carries `tickers` on `sid`; those that it carried elsewhere, by that other sid."""
        known = self._by_sid.setdefault(sid, set())
        moved: dict[int, list[str]] = {}
        for ticker in tickers:
            before = self._sid_of.get(ticker)
            if before is not None and before != sid:
                self._by_sid[before].discard(ticker)
                moved.setdefault(before, []).append(ticker)
            self._sid_of[ticker] = sid
            known.add(ticker)
        return moved

    def replace(self, sid: int, tickers: Collection[str]) -> None:
        """The exchange's full list of a subscription."""
        self.release(self._by_sid.get(sid, set()) - set(tickers))
        self.confirm(sid, tickers)

    def release(self, tickers: Iterable[str]) -> None:
        """No subscription carries `tickers` any more."""
        for ticker in tuple(tickers):
            sid = self._sid_of.pop(ticker, None)
            self.heard.discard(ticker)
            if sid is not None:
                self._by_sid[sid].discard(ticker)

    def close_sid(self, sid: int) -> tuple[str, ...]:
        """The subscription is gone; the tickers it carried."""
        tickers = self.of_sid(sid) or ()
        self.release(tickers)
        self._by_sid.pop(sid, None)
        self.full.discard(sid)
        return tickers

    def is_book_sid(self, sid: int) -> bool:
        """Whether a subscription carries books."""
        return sid in self._by_sid

    def of_sid(self, sid: int) -> tuple[str, ...] | None:
        """The tickers of a book subscription, sorted; None when it is none."""
        tickers = self._by_sid.get(sid)
        return None if tickers is None else tuple(sorted(tickers))

    def sid_of(self, ticker: str) -> int | None:
        """The subscription that carries a ticker's book."""
        return self._sid_of.get(ticker)

    @property
    def subscribed(self) -> frozenset[str]:
        """Tickers that the exchange confirmed."""
        return frozenset(self._sid_of)

    def by_sid(self, tickers: Iterable[str]) -> dict[int, list[str]]:
        """Those of `tickers` that are subscribed, by their subscription."""
        groups: dict[int, list[str]] = {}
        for ticker in tickers:
            sid = self._sid_of.get(ticker)
            if sid is not None:
                groups.setdefault(sid, []).append(ticker)
        return groups

    def with_room(self, limit: int, wanted: int) -> int | None:
        """A subscription that can take `wanted` more tickers without passing `limit`."""
        for sid, tickers in self._by_sid.items():
            if sid not in self.full and len(tickers) + wanted <= limit:
                return sid
        return None


class Discovery:
    """Markets heard of while the connection lives: which to add and which to drop at the next tick."""

    def __init__(self, wants: Callable[[str], bool], books: BookTickers, max_tickers: int) -> None:
        self._wants = wants
        self._books = books
        self._max_tickers = max_tickers
        self._passed: set[str] = set()
        self._to_add: dict[str, None] = {}
        self._to_drop: dict[str, None] = {}
        self._ended: dict[str, None] = {}
        self.left_out = 0
        """How many were wanted beyond `max_tickers`."""

    def heard(self, ticker: str) -> None:
        """A market exists; it is added when it is wanted and new."""
        if ticker in self._books.requested or ticker in self._passed or ticker in self._to_add:
            return
        if not is_ticker(ticker) or not self._wants(ticker):
            self.give_up((ticker,))
        elif len(self._books.requested) + len(self._to_add) >= self._max_tickers:
            self.left_out += 1
            self.give_up((ticker,))
        else:
            self._to_add[ticker] = None

    def activated(self, ticker: str) -> None:
        """A market trades (again): it is considered anew, whatever was thought of it before."""
        self._passed.discard(ticker)
        self.heard(ticker)

    def ended(self, ticker: str) -> None:
        """A market is over."""
        self._to_add.pop(ticker, None)
        if ticker in self._books.requested:
            self._to_drop[ticker] = None
        else:
            self.give_up((ticker,))
        if len(self._ended) < MAX_PASSED:
            self._ended[ticker] = None

    def take_ended(self) -> list[str]:
        """The markets that ended since the last call."""
        taken, self._ended = list(self._ended), {}
        return taken

    def give_up(self, tickers: Iterable[str]) -> None:
        """Do not consider these again on this connection."""
        if len(self._passed) >= MAX_PASSED:
            self._passed.clear()
        self._passed.update(tickers)

    def reconsider(self, tickers: Iterable[str]) -> None:
        """They were asked for after all."""
        self._passed.difference_update(tickers)
        for ticker in tickers:
            self._to_add.pop(ticker, None)

    def take_additions(self, limit: int) -> list[str]:
        """Up to `limit` markets to add, oldest first."""
        taken = list(self._to_add)[:limit]
        for ticker in taken:
            del self._to_add[ticker]
        return taken

    def take_drops(self) -> list[str]:
        """The ended markets that were subscribed."""
        taken, self._to_drop = list(self._to_drop), {}
        return taken
