"""A TCP proxy that cuts its connections after so many bytes, or at once."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator


class CuttingProxy:
    """Forwards to a port. Each connection gets the next of `cuts`: bytes from the server until it is cut."""

    def __init__(self, cuts: Iterable[int] = ()) -> None:
        self.port = 0
        self.to = 0
        self.connections = 0
        self.open = True  # else who connects is cut at once
        self._cuts: Iterator[int] = iter(cuts)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, to: int) -> None:
        self.to = to
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Cut all connections now."""
        for link in list(self._links):
            link.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._links.add(writer)
        try:
            if not self.open:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
            self._links.add(back)
            up = asyncio.create_task(_pump(reader, back, None))
            try:
                await _pump(there, writer, next(self._cuts, None))
            finally:
                up.cancel()
                back.transport.abort()
                self._links.discard(back)
        except OSError:
            return
        finally:
            writer.transport.abort()
            self._links.discard(writer)
            self._tasks.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int | None) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536 if most is None else min(65_536, most)):
            sink.write(data)
            await sink.drain()
            if most is not None:
                most -= len(data)
                if most <= 0:
                    return
