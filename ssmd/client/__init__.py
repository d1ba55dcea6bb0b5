"""The Python client of the gateway: `from ssmd.client import Client`."""

from ssmd.client.books import Book
from ssmd.client.client import Client
from ssmd.client.documents import Candle, Market, Missing
from ssmd.client.errors import GatewayAway, GatewayError, IncompleteData, NoBook, NotAllowed
from ssmd.client.events import (
    BookState,
    Event,
    Gap,
    Level,
    MarketState,
    Notice,
    OrderBook,
    Status,
    Subscribed,
    Ticker,
    Trade,
)
from ssmd.client.rows import Rows
from ssmd.client.running import run
from ssmd.client.stream import Stream

__all__ = [
    "Book", "BookState", "Candle", "Client", "Event", "Gap", "GatewayAway", "GatewayError", "IncompleteData", "Level",
    "Market", "MarketState", "Missing", "NoBook", "NotAllowed", "Notice", "OrderBook", "Rows", "Status", "Stream",
    "Subscribed", "Ticker", "Trade", "run",
]  # fmt: skip
