"""The state of some markets, once."""

import asyncio
import json
import ssl
from collections.abc import Sequence

import aiohttp

from ssmd.client.address import Address, connection_refused
from ssmd.client.errors import GatewayAway, GatewayError, NotAllowed, refusal
from ssmd.client.events import MarketState, OrderBook, Other, Status, Ticker, Trade, decode
from ssmd.client.following import BUSY, KEY_WRONG, LATEST

MAX_MESSAGE_BYTES = 64 << 20


async def take_snapshot(address: Address, symbols: Sequence[str], timeout_s: float) -> dict[str, MarketState]:
    """By ticker, over a connection of its own. GatewayError and its kinds when there is no answer."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession() as session,
            session.ws_connect(
                address.url("/v1/stream"), headers=address.headers, compress=0, max_msg_size=MAX_MESSAGE_BYTES,
                ssl=address.tls or True,
            ) as socket,
        ):  # fmt: skip
            await socket.send_str(json.dumps({"action": "snapshot", "symbols": list(symbols), "id": LATEST}))
            return await _answer(socket)
    except aiohttp.WSServerHandshakeError as error:
        retry_after = None if error.headers is None else error.headers.get("Retry-After")
        raise refusal(error.status, {}, f"{address}/v1/stream", retry_after) from None
    except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
        raise connection_refused(address, error) from None


async def _answer(socket: aiohttp.ClientWebSocketResponse) -> dict[str, MarketState]:
    found: dict[str, dict[str, object]] = {}
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        part = decode(message.data)
        if isinstance(part, OrderBook | Trade | Ticker | Status):
            name = {OrderBook: "book", Trade: "trade", Ticker: "quote", Status: "status"}[type(part)]
            found.setdefault(part.ticker, {})[name] = part
        elif isinstance(part, Other) and part.type == "snapshot" and part.id == LATEST:
            return {ticker: MarketState(ticker, **parts) for ticker, parts in found.items()}  # type: ignore[arg-type]
        elif isinstance(part, Other) and part.type == "error" and part.code != "no_book":
            if part.code in KEY_WRONG:
                raise NotAllowed(part.message, part.next, code=part.code, status=401)
            kind = GatewayAway if part.code in BUSY else GatewayError
            raise kind(part.message, part.next, code=part.code)
    raise GatewayAway("the gateway ended the connection before it answered", "Ask again in a few seconds.")
