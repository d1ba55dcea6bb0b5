"""What a stream client's requests do: subscribe, unsubscribe, snapshot, query, ping."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import structlog

from ssmd.clock import NS_PER_MS
from ssmd.errors import SsmdError
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.client import SYMBOLS_PER_CLIENT, Client
from ssmd.gateway.hub import Hub
from ssmd.gateway.limiting import Allowance
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.wire import client as wire
from ssmd.wire.requests import ALL_SYMBOLS, CHANNELS, MAX_SYMBOLS, Mode, Request, RequestError, parse_request

NAMED = 10

Answers: TypeAlias = Callable[[str], Awaitable[dict[str, Any]]]
"""Answers a question in words. SsmdError when it cannot."""

log = structlog.get_logger()


class Actions:
    """Follows the requests of all clients. `questions` None: nobody here can answer questions in words."""

    def __init__(
        self, hub: Hub, catalogue: Catalogue, clock: Callable[[], int], questions: Answers | None = None
    ) -> None:
        self.questions = questions
        self._hub = hub
        self._catalogue = catalogue
        self._clock = clock

    async def follow(self, client: Client, data: str, spend: Callable[[], Allowance]) -> None:
        """Follow one message; what cannot be followed is answered with an error. `spend` counts it."""
        request_id = None
        allowance = spend()
        try:
            request = parse_request(data)
            request_id = request.id
            if allowance.refused:
                hint = f"Ask again in {allowance.reset_s} s."
                raise RequestError("too_many_requests", f"more than {allowance.refused}", request.id, hint)
            await self._follow(client, request)
        except RequestError as error:
            answer = wire.error(error.code, error.message, error.id if request_id is None else request_id, error.next)
            self._hub.fanout.answer(client, answer)

    async def begin(self, client: Client, request: Request) -> None:
        """Follow the subscription in the URL of a new connection."""
        try:
            await self.subscribe(client, request)
        except RequestError as error:
            self._hub.fanout.answer(client, wire.error(error.code, error.message, request.id, error.next))

    async def subscribe(self, client: Client, request: Request) -> None:
        """Add pairs: the answer, then the whole books that are new to the client, then live messages; no hole."""
        hub = self._hub
        unknown = await self._catalogue.unlisted(self._unheard(request.symbols))
        if client.leaving:
            return
        before = client.subscription
        after = before.plus(request.symbols, request.channels or CHANNELS)
        if request.mode is not None:
            after = after.in_mode(request.mode, request.interval_ms)
        if len(after.wanted) > SYMBOLS_PER_CLIENT:
            raise RequestError(
                "too_many_symbols", f"at most {SYMBOLS_PER_CLIENT} symbols for one client, not {len(after.wanted)}",
                next='Subscribe to ["*"] instead, or connect once more.',
            )  # fmt: skip
        if request.from_seq is None:
            self.change(client, after, request, unknown)
            return
        if before:
            raise RequestError("bad_from_seq", "from_seq belongs to the first subscribe of a connection")
        if hub.fanout.resumable(after, request.from_seq):
            hub.fanout.resume(client, after, request.from_seq)
            hub.fanout.answer(client, _subscribed(after, request.from_seq, unknown, request, resumed=True))
            hub.fanout.replay(client)
        else:
            self.change(client, after, request, unknown)

    def change(
        self, client: Client, after: Subscription, request: Request | None = None, unknown: Iterable[str] = ()
    ) -> None:
        """Give a client this subscription and tell it; what it did not have before follows whole."""
        hub, before = self._hub, client.subscription
        seq = hub.fanout.move(client, after)
        asked = request or Request("subscribe")
        resumed = None if asked.from_seq is None else False
        hub.fanout.answer(client, _subscribed(after, seq, unknown, asked, resumed=resumed))
        if asked.from_seq is not None:
            hub.fanout.answer(client, wire.resume_failed(min(asked.from_seq + 1, seq), seq))
        for notice in hub.impaired(after):
            hub.fanout.answer(client, notice)
        hub.fanout.owe(client, hub.new_books(before, after))

    def set_mode(self, client: Client, mode: Mode, interval_ms: int = 0) -> None:
        """Move a client to another mode, as an operator; it is told by a `subscribed` message."""
        self.change(client, client.subscription.in_mode(mode, interval_ms))

    async def _follow(self, client: Client, request: Request) -> None:
        if request.action == "subscribe":
            try:
                await self.subscribe(client, request)
            except RequestError as error:
                raise RequestError(error.code, error.message, request.id, error.next) from error
        elif request.action == "unsubscribe":
            self._unsubscribe(client, request)
        elif request.action == "snapshot":
            self._snapshot(client, request)
        elif request.action == "query":
            await self._query(client, request)
        else:
            self._hub.fanout.answer(client, wire.pong(self._clock() // NS_PER_MS, request.id))

    def _unsubscribe(self, client: Client, request: Request) -> None:
        hub, before = self._hub, client.subscription
        after = before.minus(request.symbols, request.channels or CHANNELS)
        if before.every and ALL_SYMBOLS not in request.symbols and after == before:
            raise RequestError(
                "bad_symbol", "subscribed to *: single symbols cannot be left out", request.id, "Unsubscribe * first."
            )
        gone = [
            (channel, ticker)
            for channel, ticker in client.due
            if channel in before.channels(ticker) and channel not in after.channels(ticker)
        ]
        for piece in gone:
            del client.due[piece]
        seq = hub.fanout.move(client, after)
        hub.fanout.answer(client, wire.unsubscribed(after.named(), seq, request.id))

    def _snapshot(self, client: Client, request: Request) -> None:
        """Book, last trade, quote and status of each symbol, in any mode, and the end of the answer."""
        hub = self._hub
        symbols = request.symbols or self._subscribed_symbols(client, request)
        channels = request.channels or CHANNELS
        pieces: list[Piece] = []
        missing: list[str] = []
        for symbol in symbols:
            known = [(channel, symbol) for channel in channels if hub.has((channel, symbol))]
            pieces += known
            if not known:
                missing.append(symbol)
        named = request.symbols or client.subscription.symbols
        bookless = [symbol for symbol in named if symbol != ALL_SYMBOLS] if "orderbook" in channels else ()
        without = [symbol for symbol in bookless if not hub.has(("orderbook", symbol))]
        if without:
            names = ", ".join(without[:NAMED]) + (" …" if len(without) > NAMED else "")
            hub.fanout.answer(client, wire.error("no_book", f"no book for {names} at the moment", request.id))
        hub.fanout.owe(client, [*pieces, ("answer", wire.snapshot_end(symbols, missing, request.id))])

    def _subscribed_symbols(self, client: Client, request: Request) -> list[str]:
        """What a snapshot without symbols is of; with `*`, all that is known now."""
        symbols = client.subscription.symbols
        if not symbols:
            raise RequestError("bad_symbols", "nothing is subscribed, so snapshot needs symbols", request.id)
        if ALL_SYMBOLS in symbols and self._hub.board.size <= MAX_SYMBOLS:
            symbols = sorted(self._hub.board.tickers() | set(symbols) - {ALL_SYMBOLS})
        if ALL_SYMBOLS in symbols or len(symbols) > MAX_SYMBOLS:
            message = f"a snapshot of all that is subscribed is more than {MAX_SYMBOLS} symbols"
            raise RequestError("too_many_symbols", message, request.id, f"Name up to {MAX_SYMBOLS} symbols.")
        return symbols

    async def _query(self, client: Client, request: Request) -> None:
        if self.questions is None:
            raise RequestError("not_available", "this gateway cannot answer questions in words", request.id)
        try:
            answer = await self.questions(request.natural_language)
        except SsmdError as error:
            log.warning("question not answered", error=error.message)
            raise RequestError("not_available", "the question cannot be answered now", request.id) from error
        self._hub.fanout.answer(client, wire.answered(answer, request.id))

    def _unheard(self, symbols: Iterable[str]) -> list[str]:
        return [symbol for symbol in symbols if symbol != ALL_SYMBOLS and not self._hub.board.known(symbol)]


def _subscribed(
    after: Subscription, seq: int, unknown: Iterable[str], request: Request, *, resumed: bool | None
) -> bytes:
    return wire.subscribed(
        after.named(), seq, list(unknown), request.id, mode=after.mode, interval_ms=after.interval_ms, resumed=resumed
    )
