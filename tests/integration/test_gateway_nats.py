"""The gateway on a real NATS server: live messages, a killed and restarted broker, books handed over by request."""

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import aiohttp
import pytest

from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.market.events import Event
from ssmd.market.subjects import subject
from ssmd.middleware.transport.interface import Outgoing, Publisher
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode, event_type_of
from tests.flow.gateway_stage import WebSocketReader, until
from tests.gateway_settings import any_port
from tests.unit.gateway.events import book, delta, trade

if TYPE_CHECKING:
    from tests.servers import NatsServer

pytestmark = pytest.mark.integration


def publish(publisher: Publisher, feed: str, *events: Event) -> None:
    messages = []
    for event in events:
        ticker = getattr(event, "ticker", "")
        name = subject(feed, event_type_of(event), ticker).encode()
        messages.append(Outgoing(name, uuid4().hex.encode(), encode(event)))
    publisher.send(messages)


async def test_a_killed_broker_is_a_gap_and_the_stream_goes_on_with_the_right_book(nats_broker: "NatsServer") -> None:
    feed = f"g{uuid4().hex[:8]}"
    connector, transport = NatsTransport(nats_broker.url), NatsTransport(nats_broker.url)
    books = {"A": book("A", 1, bids=((440_000, 10**6),))}

    async def answer(_request: bytes) -> bytes:
        return b"".join(encode(update) for update in books.values())

    await connector.ensure_stream(feed)
    publisher = await connector.publisher(feed)
    await until(lambda: publisher.connected)
    await connector.serve(f"ssmd.books.{feed}", answer)
    gateway = Gateway(feed, Outside(transport, MemoryRegistry()), any_port())
    stop = asyncio.Event()
    task = asyncio.create_task(gateway.run(stop))
    try:
        await until(lambda: gateway.hub.connected and "A" in gateway.hub.board.books)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{gateway.port}/v1/stream?symbols=*") as web,
        ):
            client = WebSocketReader(web)
            assert (await client.until_type("orderbook"))["bids"] == [[0.44, 1]]
            publish(publisher, feed, *(trade("A", n) for n in range(1_000)), delta("A", 2, bids=((430_000, 10**6),)))
            while (client.seq or 0) < 1_001:
                await client.next()
            nats_broker.kill()
            assert (await client.until_type("system"))["code"] == "UPSTREAM_LOST"
            books["A"] = book("A", 9, bids=((410_000, 10**6),))
            nats_broker.start()
            assert (await client.next(30))["type"] == "gap"
            await client.until_type("orderbook")
            assert dict(client.books["A"][0]) == {0.41: 1}
            await until(lambda: publisher.connected, 30)
            publish(publisher, feed, delta("A", 10, bids=((410_000, 0), (400_000, 10**6))))
            await client.until_type("orderbook")
            assert dict(client.books["A"][0]) == {0.40: 1}
    finally:
        stop.set()
        await task
        await publisher.close()
        await connector.close()
        await transport.close()
