"""A real nats-server for the measurements, configured as the local stack configures it."""

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats

from ssmd.local.nats_server import configuration, find_server, wait_ready
from ssmd.market.subjects import stream_name
from ssmd.middleware.transport.nats import stream_config
from tests.servers import free_port

FEED = "kalshi"
_MAX_BYTES = 2 * 1024**3


class Broker:
    """The running server: where it is, and its streams."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"nats://127.0.0.1:{port}"

    async def fresh_stream(self, *, bare: bool = False) -> None:
        """Delete the feed's stream and make it anew, with ssmd's settings; `bare` leaves the republishing out."""
        config = stream_config(FEED, _MAX_BYTES)
        if bare:
            del config["republish"]
        name = stream_name(FEED)
        await self.api(f"STREAM.DELETE.{name}", {})
        made = await self.api(f"STREAM.CREATE.{name}", config)
        if "error" in made:
            raise RuntimeError(f"stream not made: {made['error']}")

    async def stored(self) -> int:
        """How many messages the stream holds."""
        info = await self.api(f"STREAM.INFO.{stream_name(FEED)}", {})
        return int(info["state"]["messages"])

    async def api(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        """A JetStream API request (`$JS.API.{subject}`)."""
        async with self.client() as client:
            answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=30)
        return dict(json.loads(answer.data))

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A nats-py connection."""
        client = await nats.connect(self.url, pending_size=64 << 20)
        try:
            yield client
        finally:
            await client.close()


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A server in `folder` on a free port, killed at the end."""
    folder.mkdir(parents=True)
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(configuration("127.0.0.1", port, folder / "store"))
    process = subprocess.Popen([find_server(), "-c", config, "-l", folder / "log"])
    try:
        wait_ready("127.0.0.1", port)
        yield Broker(port, process.pid)
    finally:
        process.kill()
        process.wait()
