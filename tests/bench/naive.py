"""What one writes first: json, floats, pycapnp with keyword arguments. The baseline of every row."""

import json
from typing import Any

from ssmd.wire.normalized import STRUCTS

_SIDES = {"yes": "buy", "no": "sell"}


def millionths(text: str) -> int:
    """A decimal string as an integer of millionths, through a float (right for all values of the tape)."""
    return round(float(text) * 1_000_000)


class NaiveNormalizer:
    """Frame to (subject, Cap'n Proto bytes), with a dict of books; what ssmd's decoder, mapper and encoder do."""

    def __init__(self, feed: str, connection: str) -> None:
        self._feed = feed
        self._connection = connection
        self._books: dict[tuple[str, str], dict[int, int]] = {}

    def normalize(self, frame: bytes, received_ns: int) -> tuple[str, bytes] | None:
        """The event of a frame; None for acknowledgements."""
        return self.normalize_fields(json.loads(frame), received_ns)

    def normalize_fields(self, fields: dict[str, Any], received_ns: int) -> tuple[str, bytes] | None:
        """The event of a decoded frame."""
        body = fields["msg"]
        kind = fields["type"]
        if kind == "subscribed":
            return None
        common: dict[str, Any] = {
            "exchangeTime": body.get("ts_ms", 0) * 1_000_000,
            "receivedTime": received_ns,
            "ticker": body["market_ticker"],
            "connection": self._connection,
            "sid": fields["sid"],
            "seq": fields.get("seq", 0),
        }
        subject_type, event = self._event(kind, body, common)
        ticker = common["ticker"].replace(".", "%2E")
        return f"{self._feed}.{subject_type}.{ticker}", event.to_bytes()

    def _event(self, kind: str, body: dict[str, Any], common: dict[str, Any]) -> tuple[str, Any]:
        if kind == "trade":
            return "trade", STRUCTS["trade"].new_message(
                **common,
                price=millionths(body["yes_price_dollars"]),
                size=millionths(body["count_fp"]),
                side=_SIDES[body["taker_outcome_side"]],
                tradeId=body["trade_id"],
                block=body["is_block_trade"],
            )
        if kind == "ticker":
            return "ticker", STRUCTS["ticker"].new_message(
                **common,
                bid=millionths(body["yes_bid_dollars"]),
                bidSize=millionths(body["yes_bid_size_fp"]),
                ask=millionths(body["yes_ask_dollars"]),
                askSize=millionths(body["yes_ask_size_fp"]),
                last=millionths(body["price_dollars"]),
                lastSize=millionths(body["last_trade_size_fp"]),
                volume=millionths(body["volume_fp"]),
                openInterest=millionths(body["open_interest_fp"]),
            )
        change = self._change if kind == "orderbook_delta" else self._replace
        bids, asks = change(body)
        return "orderbook", STRUCTS["orderbook"].new_message(
            **common,
            kind="delta" if kind == "orderbook_delta" else "snapshot",
            bids=[{"price": price, "size": size} for price, size in bids],
            asks=[{"price": price, "size": size} for price, size in asks],
            clock=body.get("clock", 0),
        )

    def _change(self, body: dict[str, Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        side = body["side"]
        book = self._books.setdefault((body["market_ticker"], side), {})
        price = millionths(body["price_dollars"])
        if side == "no":
            price = 1_000_000 - price
        size = book.get(price, 0) + millionths(body["delta_fp"])
        if size > 0:
            book[price] = size
        else:
            book.pop(price, None)
        return ([(price, size)], []) if side == "yes" else ([], [(price, size)])

    def _replace(self, body: dict[str, Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        bids = {millionths(price): millionths(size) for price, size in body.get("yes_dollars_fp", [])}
        asks = {1_000_000 - millionths(price): millionths(size) for price, size in body.get("no_dollars_fp", [])}
        self._books[body["market_ticker"], "yes"] = bids
        self._books[body["market_ticker"], "no"] = asks
        return sorted(bids.items(), reverse=True), sorted(asks.items())
