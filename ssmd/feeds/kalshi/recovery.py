"""Books that owe a snapshot: asked for it twice, then subscribed anew, then reported."""

from collections.abc import Callable, Iterable

import msgspec

from ssmd.feeds.interface import Command
from ssmd.feeds.kalshi.commands import BOOK_CHANNEL, NS_PER_S, Commands, Pending
from ssmd.feeds.kalshi.subscriptions import BookTickers

FIRST_SNAPSHOT_AFTER_NS = 15 * NS_PER_S
SNAPSHOT_AFTER_NS = 5 * NS_PER_S
MAX_TRIES = 3


class Wait(msgspec.Struct, frozen=True):
    """A book that should send a snapshot: since when, how often it was asked for, whether it ever sent one."""

    since_ns: int
    asked: int  # 0: it comes with the subscription
    heard_before: bool


class SnapshotRecovery:
    """The snapshots that a connection waits for."""

    def __init__(self, books: BookTickers, commands: Commands, batch: int, report: Callable[..., None]) -> None:
        self._books = books
        self._commands = commands
        self._batch = batch
        self._report = report
        self._waits: dict[str, Wait] = {}
        self._given_up: set[str] = set()

    def expect_first(self, tickers: Iterable[str], now_ns: int) -> None:
        """They were just subscribed: their snapshots are on the way."""
        books = self._books
        silent = [ticker for ticker in tickers if ticker in books.requested and ticker not in books.heard]
        self._expect([ticker for ticker in silent if ticker not in self._waits], now_ns, 0)

    def arrived(self, ticker: str) -> None:
        """The snapshot is there, or nobody wants it any more."""
        self._waits.pop(ticker, None)
        self._given_up.discard(ticker)

    def ask(self, tickers: Iterable[str], now_ns: int) -> list[Command]:
        """Ask for snapshots of those that are subscribed and were not asked already."""
        asked = [ticker for ticker in tickers if self._books.sid_of(ticker) is not None and not self._is_asked(ticker)]
        self._expect(asked, now_ns, 1)
        return self._update("get_snapshot", asked)

    def ask_stale(self, tickers: Iterable[str], now_ns: int) -> list[Command]:
        """`ask`, for books that are wrong, unless they wait already or were given up."""
        waiting = self._waits.keys() | self._given_up
        return self.ask(sorted(ticker for ticker in tickers if ticker not in waiting), now_ns)

    def overdue(self, now_ns: int) -> list[Command]:
        """The next step for snapshots that did not come in time."""
        late = {
            ticker: wait
            for ticker, wait in self._waits.items()
            if now_ns - wait.since_ns > (SNAPSHOT_AFTER_NS if wait.asked else FIRST_SNAPSHOT_AFTER_NS)
        }
        commands: list[Command] = []
        for asked in range(MAX_TRIES):
            tickers = [ticker for ticker, wait in late.items() if wait.asked == asked]
            self._expect(tickers, now_ns, asked + 1)
            commands += self._update("get_snapshot", tickers) if asked + 1 < MAX_TRIES else self._renew(tickers)
        self._give_up({ticker: wait for ticker, wait in late.items() if wait.asked >= MAX_TRIES})
        return commands

    def _is_asked(self, ticker: str) -> bool:
        wait = self._waits.get(ticker)
        return wait is not None and wait.asked > 0

    def _expect(self, tickers: Iterable[str], now_ns: int, asked: int) -> None:
        for ticker in tickers:
            before = self._waits.get(ticker)
            heard = ticker in self._books.heard or (before is not None and before.heard_before)
            self._waits[ticker] = Wait(now_ns, asked, heard)

    def _update(self, action: str, tickers: Iterable[str]) -> list[Command]:
        return self._commands.update(action, self._books.by_sid(tickers), self._batch)

    def _renew(self, tickers: list[str]) -> list[Command]:
        """Unsubscribe and subscribe; only the tickers concerned when others on the sid are well."""
        commands: list[Command] = []
        for sid, members in self._books.by_sid(tickers).items():
            if self._is_all(sid, members):
                commands.append(self._commands.send(Pending("unsubscribe", BOOK_CHANNEL, tuple(members), sid)))
                continue
            for action in ("delete_markets", "add_markets"):
                commands += self._update(action, members)
        return commands

    def _give_up(self, waits: dict[str, Wait]) -> None:
        """Stop asking. A subscription that spoke once and went wholly silent is a broken connection."""
        if not waits:
            return
        broken = any(
            self._is_all(sid, members) and any(waits[ticker].heard_before for ticker in members)
            for sid, members in self._books.by_sid(waits).items()
        )
        for ticker in waits:
            del self._waits[ticker]
            self._given_up.add(ticker)
        names = ", ".join(list(waits)[:5])
        self._report(f"no snapshot of {len(waits)} markets after {MAX_TRIES} tries: {names}", reconnect=broken)

    def _is_all(self, sid: int, members: list[str]) -> bool:
        return len(members) == len(self._books.of_sid(sid) or ())
