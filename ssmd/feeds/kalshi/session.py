"""Kalshi's WebSocket protocol without sockets: which commands to send, given what came.

All-market channels (trade, ticker, lifecycle) are subscribed one command each; books in commands of at most 256
tickers. The exchange keeps one sid per channel and connection and merges further subscribes into it (`ok`), an older
or other exchange may give a new sid (`subscribed`): both answers are right. Markets that appear while the connection
lives are added from lifecycle frames, trades and quotes; determined and settled ones are dropped.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ssmd.feeds.interface import Command, Decoded, SessionProblem
from ssmd.feeds.kalshi.commands import ANSWER_AFTER_NS, BOOK_CHANNEL, NS_PER_S, Commands, Pending, batches
from ssmd.feeds.kalshi.messages import (
    ErrorMessage,
    Lifecycle,
    Ok,
    Snapshot,
    Subscribed,
    Ticker,
    TradeMessage,
    Unsubscribed,
)
from ssmd.feeds.kalshi.recovery import MAX_TRIES, SnapshotRecovery
from ssmd.feeds.kalshi.signing import sign_headers as sign_headers
from ssmd.feeds.kalshi.subscriptions import BookTickers, Discovery
from ssmd.feeds.kalshi.translate import is_ticker

DEFAULT_CHANNELS = ("trade", "ticker", BOOK_CHANNEL, "market_lifecycle_v2")
BATCH = 256
ADDS_PER_TICK = 10 * BATCH
SMALLEST_SPLIT = 16
MAX_TEXT = 200

AUTH_REQUIRED, CHANNEL_FAILED, OVERFLOW, MARKET_LIMIT, UNKNOWN_SID = 9, 10, 25, 26, 7
TERMINAL = frozenset({AUTH_REQUIRED, CHANNEL_FAILED, OVERFLOW})
PASSING = frozenset({1, 18, 27})  # unable to process, command timeout, command rate
BAD_MARKETS = frozenset({11, 14})  # invalid parameter, market ticker required: one ticker may spoil the batch


def _want_all(_ticker: str) -> bool:
    return True


class KalshiSession:
    """The protocol of one connection; see `feeds.interface.Session`.

    `wants` decides which tickers heard of while running are added. `stale_tickers` (the mapper's) is asked at each
    tick, so that a book that became unreadable gets a new snapshot. At most `max_tickers` books are asked for.
    """

    def __init__(
        self,
        wants: Callable[[str], bool] = _want_all,
        channels: Sequence[str] = DEFAULT_CHANNELS,
        stale_tickers: Callable[[], frozenset[str]] = frozenset,
        max_tickers: int = 20_000,
        batch: int = BATCH,
    ) -> None:
        self._channels = tuple(channels)
        self._stale_tickers = stale_tickers
        self._max_tickers = max_tickers
        self._batch = batch
        self._books = BookTickers()
        self._commands = Commands()
        self._recovery = SnapshotRecovery(self._books, self._commands, batch, self._report)
        self._discovery = Discovery(wants, self._books, max_tickers)
        self._channel_of_sid: dict[int, str] = {}
        self._tried: dict[str, int] = {}
        """How often a ticker was subscribed anew because the exchange had let go of it."""
        self._problems: list[SessionProblem] = []
        self._handlers: dict[str, Callable[[Any, int], list[Command]]] = {
            "subscribed": self._subscribed,
            "ok": self._ok,
            "unsubscribed": self._unsubscribed,
            "error": self._error,
        }
        if BOOK_CHANNEL in self._channels:
            self._handlers |= {
                "orderbook_snapshot": self._snapshot,
                "trade": self._market_heard,
                "ticker": self._market_heard,
                "market_lifecycle_v2": self._lifecycle,
                "multivariate_market_lifecycle": self._lifecycle,
            }

    def start(self, tickers: Sequence[str]) -> list[Command]:
        """The commands that subscribe a fresh connection: all-market channels and books of `tickers`."""
        channels = [channel for channel in self._channels if channel != BOOK_CHANNEL]
        commands = [self._commands.send(Pending("subscribe", channel)) for channel in channels]
        return commands + self.add_tickers(tickers)

    def receive(self, decoded: Decoded, now_ns: int) -> list[Command]:
        """Follow a frame; the commands it calls for."""
        handler = self._handlers.get(decoded.type)
        if handler is None or decoded.problem:
            return []
        return handler(decoded.message, now_ns)

    def add_tickers(self, tickers: Sequence[str]) -> list[Command]:
        """Subscribe the books of more tickers (already requested ones are ignored)."""
        if BOOK_CHANNEL not in self._channels:
            return []
        requested = self._books.requested
        new = [ticker for ticker in dict.fromkeys(tickers) if ticker not in requested and is_ticker(ticker)]
        room = max(0, self._max_tickers - len(requested))
        if len(new) > room:
            self._discovery.left_out += len(new) - room
            new = new[:room]
        requested.update(new)
        self._discovery.reconsider(new)
        commands = []
        for group in batches(new, self._batch):
            sid = self._books.with_room(self._batch, len(group))
            action = "subscribe" if sid is None else "add_markets"
            commands.append(self._commands.send(Pending(action, BOOK_CHANNEL, group, sid)))
        return commands

    def drop_tickers(self, tickers: Sequence[str]) -> list[Command]:
        """Give up the books of tickers; those not acknowledged yet are given up when they are."""
        dropped = [ticker for ticker in dict.fromkeys(tickers) if ticker in self._books.requested]
        self._books.requested.difference_update(dropped)
        self._discovery.give_up(dropped)
        for ticker in dropped:
            self._recovery.arrived(ticker)
        return self._delete(dropped)

    def take_ended(self) -> list[str]:
        """The markets whose lifecycle said since the last call that they are determined or settled."""
        return self._discovery.take_ended()

    def request_snapshots(self, sid: int, tickers: Sequence[str], now_ns: int) -> list[Command]:
        """Ask for fresh books after a gap on `sid`: `tickers`, and those of `sid` that never sent one."""
        silent = [ticker for ticker in self._books.of_sid(sid) or () if ticker not in self._books.heard]
        asked = [ticker for ticker in dict.fromkeys([*tickers, *silent]) if ticker in self._books.requested]
        return self._recovery.ask(asked, now_ns)

    def tick(self, now_ns: int) -> list[Command]:
        """Call about once a second: new and ended markets, retries, what was not answered, stale books."""
        commands = self._commands.due(now_ns)
        for pending in self._commands.overdue(now_ns):
            commands += self._unanswered(pending, now_ns)
        commands += self._recovery.overdue(now_ns)
        commands += self._recovery.ask_stale(self._stale_tickers(), now_ns)
        commands += self.drop_tickers(self._discovery.take_drops())
        commands += self._subscribe_missing()
        commands += self.add_tickers(self._discovery.take_additions(ADDS_PER_TICK))
        if self._discovery.left_out:
            self._report(
                f"{self._discovery.left_out} more markets are wanted than the {self._max_tickers} books of a connection"
            )
            self._discovery.left_out = 0
        return commands

    def take_problems(self) -> list[SessionProblem]:
        """What the exchange refused since the last call."""
        problems, self._problems = self._problems, []
        return problems

    @property
    def requested_tickers(self) -> frozenset[str]:
        """Tickers whose book was asked for."""
        return frozenset(self._books.requested)

    @property
    def subscribed_tickers(self) -> frozenset[str]:
        """Tickers whose subscription the exchange acknowledged."""
        return self._books.subscribed

    @property
    def heard_tickers(self) -> frozenset[str]:
        """Tickers from which a snapshot came on this connection."""
        return frozenset(self._books.heard)

    def sid_tickers(self, sid: int) -> tuple[str, ...] | None:
        """The tickers of a book subscription; None when it covers all markets or is unknown."""
        return self._books.of_sid(sid)

    # -- what is asked for --------------------------------------------------------------------------------------

    def _delete(self, tickers: Iterable[str]) -> list[Command]:
        names = tuple(tickers)
        commands = self._commands.update("delete_markets", self._books.by_sid(names), self._batch)
        self._books.release(names)
        return commands

    def _subscribe(self, tickers: Iterable[str]) -> list[Command]:
        names = [ticker for ticker in tickers if ticker in self._books.requested]
        return [self._commands.send(Pending("subscribe", BOOK_CHANNEL, part)) for part in batches(names, self._batch)]

    def _report(self, message: str, *, reconnect: bool = False) -> None:
        self._problems.append(SessionProblem(message, reconnect))

    # -- what comes ---------------------------------------------------------------------------------------------

    def _market_heard(self, message: TradeMessage | Ticker, _now_ns: int) -> list[Command]:
        ticker = message.msg.market_ticker
        if ticker not in self._books.requested:
            self._discovery.heard(ticker)
        return []

    def _lifecycle(self, message: Lifecycle, _now_ns: int) -> list[Command]:
        body = message.msg
        if body.event_type == "activated":
            self._discovery.activated(body.market_ticker)
        elif body.event_type == "created":
            self._discovery.heard(body.market_ticker)
        elif body.event_type in ("determined", "settled"):
            self._discovery.ended(body.market_ticker)
        return []

    def _snapshot(self, message: Snapshot, _now_ns: int) -> list[Command]:
        ticker = message.msg.market_ticker
        if ticker not in self._books.requested or message.sid is None:
            return []
        self._books.heard.add(ticker)
        self._recovery.arrived(ticker)
        if self._books.sid_of(ticker) != message.sid:
            self._books.confirm(message.sid, (ticker,))
        return []

    def _answered(self, message: Subscribed) -> Pending | None:
        return self._commands.answered(message.id)

    def _subscribed(self, message: Subscribed, now_ns: int) -> list[Command]:
        msg = message.msg
        pending = self._answered(message)
        sid = msg.get("sid") if isinstance(msg, dict) else None
        if type(sid) is not int:
            self._report("a `subscribed` answer without a sid")
            return []
        channel = msg.get("channel")
        self._channel_of_sid[sid] = channel if isinstance(channel, str) else pending.channel if pending else ""
        if self._channel_of_sid[sid] != BOOK_CHANNEL:
            return []
        self._books.open_sid(sid)
        return [] if pending is None else self._confirmed(sid, pending.tickers, now_ns)

    def _ok(self, message: Ok, now_ns: int) -> list[Command]:
        """A change of a subscription; `market_tickers` is its full list."""
        pending = self._answered(message)
        msg = message.msg
        sid = message.sid
        if sid is None or (pending.channel != BOOK_CHANNEL if pending else not self._books.is_book_sid(sid)):
            return []
        asked = pending.tickers if pending is not None and pending.adds else ()
        listed = msg.get("market_tickers") if isinstance(msg, dict) else None
        if not isinstance(listed, list):
            return self._confirmed(sid, asked, now_ns)
        names = {ticker for ticker in listed if isinstance(ticker, str)}
        missing = [ticker for ticker in asked if ticker not in names and ticker in self._books.requested]
        if missing:
            self._tried.update(dict.fromkeys(missing, MAX_TRIES))
            self._report(f"the exchange left out {len(missing)} of {len(asked)} markets: {', '.join(missing[:5])}")
        commands = self._confirmed(sid, [ticker for ticker in asked if ticker in names], now_ns)
        # Commands under way may change it again: what they add is not taken as gone, what they remove not as here.
        coming, going = self._commands.under_way(sid)
        here = {
            ticker
            for ticker in names - going
            if ticker in self._books.requested and self._books.sid_of(ticker) in (sid, None)
        }
        kept = {ticker for ticker in self._books.of_sid(sid) or () if ticker in coming}
        self._books.replace(sid, here | kept)
        if pending is None or pending.adds:
            left = sorted(names - self._books.requested - going - set(asked))
            self._books.confirm(sid, left)
            commands += self._delete(left)
        return commands

    def _confirmed(self, sid: int, tickers: Iterable[str], now_ns: int) -> list[Command]:
        """`tickers` are on `sid`; first snapshots are on their way, tickers dropped meanwhile are given up."""
        names = tuple(tickers)
        commands = [
            self._commands.send(Pending("delete_markets", BOOK_CHANNEL, tuple(twice), other))
            for other, twice in self._books.confirm(sid, names).items()
        ]
        self._recovery.expect_first(names, now_ns)
        return commands + self._delete([ticker for ticker in names if ticker not in self._books.requested])

    def _unsubscribed(self, message: Unsubscribed, _now_ns: int) -> list[Command]:
        pending = self._answered(message)
        sid = message.sid if message.sid is not None else pending.sid if pending else None
        if sid is None:
            return []
        channel = self._channel_of_sid.pop(sid, BOOK_CHANNEL if self._books.is_book_sid(sid) else "")
        tickers = self._books.close_sid(sid) or (pending.tickers if pending else ())
        if pending is None and channel:
            self._report(f"the exchange ended the subscription {sid} of {channel}; subscribing again")
        if channel and channel != BOOK_CHANNEL:
            return [self._commands.send(Pending("subscribe", channel))]
        return self._subscribe(tickers)

    def _error(self, message: ErrorMessage, now_ns: int) -> list[Command]:
        pending = self._answered(message)
        code, text = _code_and_text(message.msg)
        said = f"the exchange answered error {code} ({text})" + (f" to {pending}" if pending else "")
        if code in TERMINAL:
            self._report(said, reconnect=True)
            return []
        if pending is not None and code in PASSING and pending.tries < MAX_TRIES:
            self._commands.retry(pending, now_ns)
            return []
        if pending is None or pending.channel != BOOK_CHANNEL:
            self._report(said)
            return []
        return self._book_error(code, said, pending)

    def _book_error(self, code: int, said: str, pending: Pending) -> list[Command]:
        tickers = pending.tickers
        if code == UNKNOWN_SID and pending.sid is not None:
            lost = self._books.close_sid(pending.sid)
            return self._subscribe(dict.fromkeys([*lost, *tickers]))
        if pending.adds:
            if code == MARKET_LIMIT and pending.sid is not None:
                self._books.full.add(pending.sid)
                return self._subscribe(tickers)
            smallest = SMALLEST_SPLIT if code == MARKET_LIMIT else 1
            if code in BAD_MARKETS | {MARKET_LIMIT} and len(tickers) > smallest:
                half = len(tickers) // 2
                return [
                    self._commands.send(Pending(pending.action, BOOK_CHANNEL, part, pending.sid))
                    for part in (tickers[:half], tickers[half:])
                ]
        if pending.adds:
            self._tried.update(dict.fromkeys(tickers, MAX_TRIES))
        self._report(f"{said}: {', '.join(tickers[:5])}")
        return []

    # -- what does not come -------------------------------------------------------------------------------------

    def _unanswered(self, pending: Pending, now_ns: int) -> list[Command]:
        heard = bool(pending.tickers) and self._books.heard.issuperset(pending.tickers)
        if pending.action == "get_snapshot" or (pending.adds and heard):
            return []  # a snapshot is an answer
        again = pending.adds and pending.tries == 1
        # An exchange that answers others but not this one is better than a connection that is closed for ever again.
        mute = not self._commands.any_answered
        self._report(
            f"{pending} was not answered within {ANSWER_AFTER_NS // NS_PER_S} s",
            reconnect=pending.adds and not again and mute,
        )
        if again:
            return [self._commands.repeat(pending, now_ns)]
        return self._subscribe(pending.tickers) if pending.action == "unsubscribe" else []

    def _subscribe_missing(self) -> list[Command]:
        """Subscribe what was asked for, is not subscribed and not under way: a few times, then it is left out."""
        missing = self._books.requested - self._books.subscribed
        if not missing:
            return []
        missing -= self._commands.all_tickers()
        again = sorted(ticker for ticker in missing if self._tried.get(ticker, 0) < MAX_TRIES)
        for ticker in again:
            self._tried[ticker] = self._tried.get(ticker, 0) + 1
        return self._subscribe(again)


def _code_and_text(msg: object) -> tuple[int, str]:
    """The code (0 when there is none) and text of an error frame's `msg`, whatever its shape."""
    if not isinstance(msg, dict):
        return 0, str(msg)[:MAX_TEXT]
    code = msg.get("code")
    return (code if type(code) is int else 0), str(msg.get("msg", msg))[:MAX_TEXT]
