"""The first live trade, as any client of the gateway sees it: the proof that everything in between works."""

import asyncio
import threading
from typing import Any

import aiohttp
import msgspec


class FirstTrade:
    """Watches the gateway's stream in a thread of its own; `text` is one line for people once a trade has passed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.text = ""
        self._thread = threading.Thread(target=self._run, name="first trade", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.text = asyncio.run(self._watch())

    async def _watch(self) -> str:
        while True:
            try:
                async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0) as link:
                    async for message in link:
                        if text := trade_line(message.data):
                            return text
            except (aiohttp.ClientError, OSError):
                pass  # the gateway is not there yet, or was restarted
            await asyncio.sleep(0.3)


def trade_line(data: str | bytes) -> str:
    """`TICKER  buy 10 @ 0.45` when the message is a trade, else ""."""
    try:
        message: Any = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return ""
    if not isinstance(message, dict) or message.get("type") != "trade":
        return ""
    inside = message.get("data")
    trade = inside if isinstance(inside, dict) else message
    ticker = message.get("ticker") or message.get("symbol") or trade.get("ticker") or trade.get("symbol") or "?"
    return f"{ticker}  {trade.get('side', '')} {trade.get('size', '?')} @ {trade.get('price', '?')}"
