"""Is a server there? Questions with an answer in seconds, whatever the network does."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from ssmd.errors import Unavailable

LIMIT_S = 3.0
"""Seconds after which a server that has not answered is called away."""
_REACH_S = 1.4

T = TypeVar("T")


async def aside(function: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """A blocking call in a thread that nobody waits for when its time is over; TimeoutError then."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001 handed to whoever awaits
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is interested any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True).start()
    async with asyncio.timeout(limit_s):
        return await answer


async def reach(host: str, port: int, greeting: bytes = b"") -> None:
    """Return when something accepts connections there and says `greeting`; Unavailable otherwise.

    Names are looked up in time, too.
    """
    try:
        said = await aside(lambda: _connect(host, port, len(greeting)), 2 * _REACH_S)
    except (OSError, UnicodeError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", "") or str(error)
        raise Unavailable(f"{host}:{port}: {why}") from error
    if said != greeting:
        raise Unavailable(f"{host}:{port}: another program answers there")


def _connect(host: str, port: int, length: int) -> bytes:
    with socket.create_connection((host, port), timeout=_REACH_S) as link:
        return link.recv(length, socket.MSG_WAITALL) if length else b""
