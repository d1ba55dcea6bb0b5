"""WebSocket clients that read and discard: `python -m tests.bench.sink PORT CLIENTS`, a process of its own.

Prints `ready` when all are connected; then answers each line on stdin with `least most`: bytes read per client.
"""

import asyncio
import sys
from typing import cast

import uvloop

UPGRADE = (
    b"GET /v1/stream?symbols=* HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_BUFFER = memoryview(bytearray(1 << 18))  # shared: nothing is kept


class Reader(asyncio.BufferedProtocol):
    """One client; `received` counts what came behind the answer to the upgrade."""

    def __init__(self) -> None:
        self.received = 0
        self.upgraded = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(UPGRADE)  # uvloop's is none by inheritance

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self.upgraded.done():
            self.received += nbytes
            return
        head, end, rest = bytes(_BUFFER[:nbytes]).partition(b"\r\n\r\n")
        if not end or b" 101 " not in head:
            self.upgraded.set_exception(RuntimeError(f"not upgraded: {head[:200]!r}"))
        else:
            self.received = len(rest)
            self.upgraded.set_result(None)


async def _main(port: int, clients: int) -> None:
    loop = asyncio.get_running_loop()
    readers = []
    for _ in range(clients):
        _, reader = await loop.create_connection(Reader, "127.0.0.1", port)
        await reader.upgraded
        readers.append(reader)
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        counts = [reader.received for reader in readers]
        print(min(counts), max(counts), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
