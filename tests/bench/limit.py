"""The limit: how fast the JetStream server takes acknowledged messages from a publisher that does nothing else."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from typing import cast

import msgspec

from tests.bench.broker import FEED, Broker
from tests.bench.measure import Lap, cpu_s

SUBJECTS = 2_000
WINDOW = 8_000
_SOURCE = Path(__file__).with_name("blast.c")


class Published(msgspec.Struct):
    """What a publisher reports."""

    seconds: float
    cpu_s: float
    refused: int


class Limit:
    """The C publisher where there is a compiler, else the same in Python; `name` says which."""

    def __init__(self, folder: Path) -> None:
        self._program = _compiled(folder)
        self.name = "C publisher" if self._program else "raw Python publisher (no C compiler here)"

    async def lap(self, broker: Broker, messages: int, payload_bytes: int, *, bare: bool) -> Lap:
        """Publish; `bare`: no ids, no republishing. RuntimeError when the stream does not hold every message."""
        await broker.fresh_stream(bare=bare)
        before = cpu_s(broker.pid)
        if self._program:
            published = await self._run(broker.port, messages, payload_bytes, ids=not bare)
        else:
            published = await _publish(broker.port, messages, payload_bytes, ids=not bare)
        server = cpu_s(broker.pid) - before
        stored = await broker.stored()
        if published.refused or stored != messages:
            raise RuntimeError(f"{stored} of {messages} messages stored, {published.refused} refused")
        return Lap(published.cpu_s / messages * 1e6, messages / published.seconds, server / messages * 1e6)

    async def _run(self, port: int, messages: int, payload_bytes: int, *, ids: bool) -> Published:
        values = (port, messages, payload_bytes, SUBJECTS, WINDOW, f"{FEED}.orderbook", int(ids))
        process = await asyncio.create_subprocess_exec(
            str(self._program), *map(str, values), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, problem = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the C publisher failed: {problem.decode()}")
        return msgspec.json.decode(out, type=Published)


def _compiled(folder: Path) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / "blast"
    subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=True)
    return program


class _RawPublisher(asyncio.Protocol):
    """The same as `blast.c`: messages in large writes, acknowledgements counted by their last byte."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages
        self._sent = self._acked = 0
        self._tail = b""
        self.refused = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        transport.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.b.* 1\r\n')
        self._send()

    def _send(self) -> None:
        end = min(len(self._messages), self._acked + WINDOW)
        if end - self._sent >= min(256, len(self._messages) - self._sent) > 0:
            self._transport.write(b"".join(self._messages[self._sent : end]))
            self._sent = end

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        if data.startswith(b"INFO "):
            data = data.partition(b"\r\n")[2]
        self._acked += data.count(b"}\r\n")
        self._tail = data[-2:] if not data.endswith(b"}\r\n") else b""
        self.refused += data.count(b'"error"')
        if b"PING\r\n" in data:
            self._transport.write(b"PONG\r\n")
        self._send()
        if self._acked >= len(self._messages) and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def _publish(port: int, messages: int, payload_bytes: int, *, ids: bool) -> Published:
    payload = bytes(ord("a") + i % 26 for i in range(payload_bytes))
    lines = []
    for n in range(messages):
        head = b"NATS/1.0\r\nNats-Msg-Id: c-19a2b3c4d5e-abcdef:%d\r\n\r\n" % n if ids else b""
        sizes = b"%d %d" % (len(head), len(head) + payload_bytes) if ids else b"%d" % payload_bytes
        subject = b"%b.orderbook.%d _INBOX.b.%d" % (FEED.encode(), n % SUBJECTS, n)
        lines.append(b"%b %b %b\r\n%b%b\r\n" % (b"HPUB" if ids else b"PUB", subject, sizes, head, payload))
    wall, cpu = time.perf_counter(), time.process_time()
    loop = asyncio.get_running_loop()
    transport, publisher = await loop.create_connection(lambda: _RawPublisher(lines), "127.0.0.1", port)
    try:
        await asyncio.wait_for(publisher.done, 60)
        return Published(time.perf_counter() - wall, time.process_time() - cpu, publisher.refused)
    finally:
        transport.close()
