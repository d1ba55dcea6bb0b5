"""Recorded frames played again: the field text stays verbatim, only `sid` and `seq` are numbered anew.

A tape is NDJSON, plain or gzipped, one line `{"recv_ms":…,"event":<frame>}`. The first pass learns which markets there
are; the second plays, a few lines at a time, so that a tape of any length needs little memory.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ssmd.errors import ConfigError
from ssmd.simulator.book import Book
from ssmd.simulator.fixed import parse_fixed, rfc3339
from ssmd.simulator.source import Message, Row
from ssmd.simulator.tape_lines import LINE, TICKER, TapeLine, parse_line, read_lines
from ssmd.simulator.tape_markets import event_row, market_row, series_row

log = structlog.get_logger()

_KEPT_TRADES = 100_000
_NS_PER_MS = 1_000_000


class _OrderbookMsg(msgspec.Struct, gc=False):
    market_ticker: str
    market_id: str = ""
    clock: int | None = None
    price_dollars: str = "0"
    delta_fp: str = "0"
    side: str = "yes"
    yes_dollars_fp: list[tuple[str, str]] = []
    no_dollars_fp: list[tuple[str, str]] = []


class _OrderbookFrame(msgspec.Struct, gc=False):
    msg: _OrderbookMsg


class _TradeMsg(msgspec.Struct, gc=False):
    trade_id: str
    market_ticker: str
    yes_price_dollars: str
    no_price_dollars: str
    count_fp: str
    taker_side: str | None = None
    taker_outcome_side: str | None = None
    taker_book_side: str | None = None
    is_block_trade: bool = False
    ts: int = 0
    ts_ms: int | None = None


class _TradeFrame(msgspec.Struct, gc=False):
    msg: _TradeMsg


class _TickerFrame(msgspec.Struct, gc=False):
    msg: msgspec.Raw


class TapePlayer:
    """Plays tapes side by side (all start together) or in turn, by recorded time, by rate, or as fast as possible."""

    def __init__(
        self, files: tuple[Path, ...], *, now_ns: int, speed: float, rate: float | None, in_turn: bool, loop: bool
    ) -> None:
        self._files = files
        self._speed = speed
        self._rate = rate
        self._in_turn = in_turn
        self._loop = loop
        self._books: dict[str, Book] = {}
        self._tickers: dict[str, int] = {}
        self._first_ms: list[int] = []
        self._last_ms: list[int] = []
        self._latest_ticker: dict[str, bytes] = {}
        self._trades: deque[_TradeMsg] = deque(maxlen=_KEPT_TRADES)
        self._opened_ns = now_ns
        self._started_ns: int | None = None
        self._total = 0
        self._played = 0
        self._skipped = 0
        self._rounds = 0
        self._unreadable = 0
        self._decode_book = msgspec.json.Decoder(_OrderbookFrame).decode
        self._decode_trade = msgspec.json.Decoder(_TradeFrame).decode
        self._decode_ticker = msgspec.json.Decoder(_TickerFrame).decode
        self._survey()
        self._lines = self._schedule()
        self._next = next(self._lines, None)

    @property
    def unpaced(self) -> bool:
        return self._rate is None and self._speed == 0

    def take(self, now_ns: int, limit: int) -> list[Message]:
        if self._started_ns is None:
            self._started_ns = now_ns
        due_ms = (now_ns - self._started_ns) / _NS_PER_MS * self._speed
        if self._rate is not None:
            limit = min(limit, int((now_ns - self._started_ns) * self._rate / 1e9) - self._played)
        by_time = self._rate is None and self._speed > 0
        messages: list[Message] = []
        while self._next is not None and len(messages) < limit and not (by_time and self._next[0] > due_ms):
            line = self._next[2]
            self._follow(line)
            messages.append(line.message)
            self._next = next(self._lines, None)
        self._played += len(messages)
        if self._next is None and self._loop and self._total:
            self._again(now_ns)
        return messages

    def progress(self) -> dict[str, Any]:
        return {
            "source": "tape",
            "frames": self._total,
            "played": self._played,
            "skipped_lines": self._skipped,
            "unreadable_frames": self._unreadable,
            "rounds": self._rounds,
            "finished": self._next is None,
        }

    def snapshot_body(self, ticker: str) -> bytes | None:
        book = self._books.get(ticker)
        return None if book is None else book.body(ticker)

    def ticker_body(self, ticker: str, now_ns: int) -> bytes | None:
        return self._latest_ticker.get(ticker)

    def book_levels(self, ticker: str, depth: int) -> dict[str, list[list[str]]] | None:
        book = self._books.get(ticker)
        return None if book is None else {f"{side}_dollars": book.levels(side, depth) for side in ("yes", "no")}

    def markets(self) -> list[Row]:
        return [market_row(ticker, index, self._opened_ns, self._books[ticker]) for ticker, index in self._items()]

    def events(self) -> list[Row]:
        seen = dict.fromkeys(market_row(ticker, 0, 0, None)["event_ticker"] for ticker in self._tickers)
        return [event_row(ticker, self._opened_ns) for ticker in seen]

    def series(self) -> list[Row]:
        seen = dict.fromkeys(event["series_ticker"] for event in self.events())
        return [series_row(ticker, self._opened_ns) for ticker in seen]

    def trades(self) -> list[Row]:
        return [_trade_row(trade) for trade in self._trades]

    def _items(self) -> list[tuple[str, int]]:
        return list(self._tickers.items())

    def _survey(self) -> None:
        """Learn the markets and how each book stood when the recording began (its first snapshot)."""
        seen: set[bytes] = set()
        for file in self._files:
            times: list[int] = []
            latest = b""
            for raw in read_lines(file):
                found = TICKER.search(raw)
                if times and found is not None and found[1] in seen:
                    self._total += 1
                    latest = raw
                elif (line := parse_line(raw)) is not None:
                    self._total += 1
                    times.append(line.recv_ms)
                    seen.add(b"" if found is None else found[1])
                    self._learn(line)
            if (start := LINE.match(latest)) is not None:
                times.append(int(start[1]))
            self._first_ms.append(times[0] if times else 0)
            self._last_ms.append(times[-1] if times else 0)
        if not self._total:
            names = ", ".join(str(file) for file in self._files)
            raise ConfigError(f"no frame to play in {names}", 'A tape line is {"recv_ms":…,"event":{"type":…,"sid":…}}')

    def _learn(self, line: TapeLine) -> None:
        ticker = line.message.ticker
        if ticker and ticker not in self._tickers:
            self._tickers[ticker] = len(self._tickers)
            self._books[ticker] = Book("", None)
            if line.message.type == "orderbook_snapshot":
                self._follow(line)

    def _schedule(self) -> Iterator[tuple[float, int, TapeLine]]:
        """Lines with their time since the start in milliseconds, in order of play."""
        offset = 0
        runs = []
        for index, file in enumerate(self._files):
            runs.append(self._run(file, index, offset - self._first_ms[index]))
            if self._in_turn:
                offset += self._last_ms[index] - self._first_ms[index]
        if self._in_turn:
            for run in runs:
                yield from run
        else:
            yield from heapq.merge(*runs, key=lambda item: item[:2])

    def _run(self, file: Path, index: int, shift_ms: int) -> Iterator[tuple[float, int, TapeLine]]:
        at = float("-inf")
        for raw in read_lines(file):
            line = parse_line(raw)
            if line is None:
                self._skipped += 1
                continue
            at = max(at, line.recv_ms + shift_ms)  # a recorder's clock may step back; order is what counts
            yield (at, index, line)

    def _again(self, now_ns: int) -> None:
        self._rounds += 1
        self._played = 0
        self._started_ns = now_ns
        self._lines = self._schedule()
        self._next = next(self._lines, None)

    def _follow(self, line: TapeLine) -> None:
        """Keep the exchange's own state: books, latest ticker, trades."""
        kind = line.message.type
        try:
            if line.message.channel == "orderbook_delta":
                self._follow_book(kind, self._decode_book(line.event).msg)
            elif kind == "trade":
                self._trades.append(self._decode_trade(line.event).msg)
            elif kind == "ticker":
                self._latest_ticker[line.message.ticker] = bytes(self._decode_ticker(line.event).msg)
        except (msgspec.DecodeError, ValueError) as error:
            self._unreadable += 1
            log.warning("tape frame not understood", type=kind, ticker=line.message.ticker, error=str(error)[:200])

    def _follow_book(self, kind: str, msg: _OrderbookMsg) -> None:
        book = self._books[msg.market_ticker]
        book.market_id = msg.market_id or book.market_id
        book.clock = msg.clock
        if kind == "orderbook_delta":
            book.change(msg.side, parse_fixed(msg.price_dollars), parse_fixed(msg.delta_fp))
            return
        book.yes = {parse_fixed(price): parse_fixed(size) for price, size in msg.yes_dollars_fp}
        book.no = {parse_fixed(price): parse_fixed(size) for price, size in msg.no_dollars_fp}


def _trade_row(trade: _TradeMsg) -> Row:
    side = trade.taker_outcome_side or trade.taker_side or "yes"
    return {
        "trade_id": trade.trade_id,
        "ticker": trade.market_ticker,
        "count_fp": trade.count_fp,
        "yes_price_dollars": trade.yes_price_dollars,
        "no_price_dollars": trade.no_price_dollars,
        "taker_side": side,
        "taker_outcome_side": side,
        "taker_book_side": trade.taker_book_side or ("bid" if side == "yes" else "ask"),
        "created_time": rfc3339((trade.ts_ms or trade.ts * 1000) * _NS_PER_MS),
        "is_block_trade": trade.is_block_trade,
    }
