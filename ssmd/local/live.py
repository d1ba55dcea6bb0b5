"""The first live trade, as any client of the gateway sees it: the proof that everything in between works."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

_RETRY_S = 0.3


class FirstTrade:
    """Watches the gateway's stream in a thread of its own, as long as the context lasts.

    `text` is one line for people once a trade has passed, "" before, and for ever where the gateway asks for a key.
    """

    def __init__(self, url: str) -> None:
        self.text = ""
        self._shut = False
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="first trade", daemon=True)

    def __enter__(self) -> "FirstTrade":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # it has seen its trade, and the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(2.0)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            self._task = self._loop.create_task(self._watch())
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    async def _watch(self) -> None:
        while not (self.text or self._shut):
            with contextlib.suppress(aiohttp.ClientError, OSError):  # the gateway is not there yet, or was restarted
                await self._listen()
            if not self.text:
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        # Whatever its certificate says: it is the gateway that was just started here, and it is only looked at.
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0, ssl=False) as link:
            async for message in link:
                self.text = trade_line(message.data)
                self._shut = _wants_key(message.data)
                if self.text or self._shut:
                    return


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


def _wants_key(data: str | bytes) -> bool:
    try:
        message: Any = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return False
    return isinstance(message, dict) and message.get("type") == "error" and message.get("code") == "no_key"
