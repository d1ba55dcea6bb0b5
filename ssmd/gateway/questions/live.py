"""What was heard live of the markets that a question is about."""

from typing import NamedTuple

from ssmd.gateway.board import Board
from ssmd.gateway.market_view import SPOKEN
from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked
from ssmd.gateway.questions.matching import Live
from ssmd.market.events import SCALE
from ssmd.registry.interface import Market


class Numbers(NamedTuple):
    """What was heard live, in dollars and contracts; None: nothing was."""

    price: float | None
    volume: float | None
    spread: float | None
    open_interest: float | None


def live_of(board: Board, market: Market, side: str) -> Live:
    """Of one market: what was heard, else its metadata."""
    heard = board.statuses.get(market.ticker)
    status, result = market.status, market.result
    if heard is not None:
        status = heard.status.name.lower() if heard.status in SPOKEN else status
        result = heard.result or result
    return Live(status, result, *numbers_of(board, market.ticker, side))


def numbers_of(board: Board, ticker: str, side: str) -> Numbers:
    """Of one market; the price is that of the last trade, else the middle of the best bid and ask."""
    quote, book = board.quotes.get(ticker), board.books.get(ticker)
    bid = ask = last = None
    if book is not None and book.waiting is None:
        best_bid, best_ask = book.best_bid(), book.best_ask()
        bid, ask = best_bid and best_bid[0], best_ask and best_ask[0]
    elif quote is not None:
        bid, ask = quote.bid if quote.bid_size else None, quote.ask if quote.ask_size else None
    if trades := board.trades(ticker, 1):
        last = trades[0].price
    elif quote is not None and quote.last:
        last = quote.last
    elif bid is not None and ask is not None:
        last = (bid + ask) // 2
    price = None if last is None else (SCALE - last if side == "no" else last) / SCALE
    spread = (ask - bid) / SCALE if bid is not None and ask is not None else None
    if quote is None:
        return Numbers(price, None, spread, None)
    return Numbers(price, quote.volume / SCALE, spread, quote.open_interest / SCALE)


def fits(numbers: Numbers, asked: Asked) -> bool:
    """Are the live numbers those asked for?"""
    ranges = (asked.price, asked.volume, asked.spread, asked.open_interest)
    wished = {"volume": 1, "spread": 2, "widest_spread": 2}.get(asked.sort, 0) if asked.sort else None
    for place, (value, wanted) in enumerate(zip(numbers, ranges, strict=True)):
        if (wanted != Range() or place == wished) and value is None:
            return False
        if wanted != Range() and value is not None and not wanted.holds(value):
            return False
    return True


def live_order(numbers: Numbers, sort: str) -> float:
    """The place in the order that is asked for."""
    price, volume, spread = numbers.price or 0.0, numbers.volume or 0.0, numbers.spread or 0.0
    return {
        "least_likely": price, "volume": -volume, "spread": spread, "widest_spread": -spread
    }.get(sort, -price)  # fmt: skip
