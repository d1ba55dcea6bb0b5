"""Answers to requests for the current books (`ssmd.books.{feed}`): so a gateway can begin in the middle of a day."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from ssmd.errors import TransientError
from ssmd.feeds.interface import Mapper
from ssmd.market.events import Gap
from ssmd.middleware.transport.interface import Subscription, Transport
from ssmd.wire import normalized

MAX_BYTES = 6 * 1024 * 1024
"""An answer stays below the broker's largest message (8 MiB); the asker goes on after its last ticker."""
RETRY_S = 1.0


class BooksAfter(msgspec.Struct, frozen=True):
    """A request for the next page of all books: tickers after this one. The other request is a list of tickers."""

    after: str


async def serve_books(transport: Transport, feed: str, mapper: Callable[[], Mapper | None]) -> None:
    """Answer until cancelled; `mapper` gives the current connection's, None while there is none."""

    async def answer(request: bytes) -> bytes:
        return books(request, mapper())

    served: Subscription | None = None
    while served is None:
        try:
            served = await transport.serve(f"ssmd.books.{feed}", answer)
        except TransientError:  # the publisher reports the broker's absence
            await asyncio.sleep(RETRY_S)
    try:
        await asyncio.Event().wait()
    finally:
        with contextlib.suppress(TransientError):
            await served.close()


def books(request: bytes, mapper: Mapper | None) -> bytes:
    """Concatenated snapshots, by ticker; b"" for a malformed request or while there is no connection."""
    try:
        asked = msgspec.json.decode(request or b"[]", type=list[str] | BooksAfter)
    except msgspec.DecodeError:
        return b""
    if mapper is None:
        return b""
    tickers, after = (None, asked.after) if isinstance(asked, BooksAfter) else (asked or None, "")
    snapshots = [event for event in mapper.snapshots(tickers) if not isinstance(event, Gap) and event.ticker > after]
    out, size = [], 0
    for event in sorted(snapshots, key=lambda event: event.ticker):
        out.append(normalized.encode(event))
        size += len(out[-1])
        if size > MAX_BYTES:
            break
    return b"".join(out)
