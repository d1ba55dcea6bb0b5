"""One suite for every transport: publishing, consuming, live subscriptions, requests, and outages."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import TYPE_CHECKING

import nats
import pytest

from ssmd.middleware.transport.interface import (
    Batch,
    Consumer,
    Delivered,
    Outgoing,
    Publisher,
    Transport,
    TransportUnavailable,
)
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.middleware.transport.nats import NatsTransport, stream_config

if TYPE_CHECKING:
    from tests.servers import NatsServer

_feeds = (f"feed-{n}" for n in count())


class Harness:
    """A transport and the switch of its broker."""

    def __init__(self, transport: Transport, down: Callable[[], None], up: Callable[[], None]) -> None:
        self.transport = transport
        self.down = down
        self.up = up


@pytest.fixture(autouse=True)
async def _room_on_the_broker(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Each stream reserves all that it may hold: without this a small disk is full after a dozen tests."""
    yield
    if "nats_broker" in request.fixturenames or "nats" in request.node.name:
        client = await nats.connect(request.getfixturevalue("nats_broker").url)
        listed = json.loads((await client.request("$JS.API.STREAM.NAMES", b"")).data)["streams"] or []
        for name in listed:
            if name.startswith("ssmd-feed-"):
                await client.request(f"$JS.API.STREAM.DELETE.{name}", b"")
        await client.close()


@pytest.fixture(params=["memory", "nats"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    if request.param == "memory":
        memory = MemoryTransport()
        yield Harness(memory, lambda: setattr(memory, "up", False), lambda: setattr(memory, "up", True))
        await memory.close()
        return
    broker: NatsServer = request.getfixturevalue("nats_broker")
    transport = NatsTransport(broker.url)
    yield Harness(transport, broker.kill, broker.start)
    await transport.close()
    try:
        _ = broker.pid
    except AssertionError:
        broker.start()


def messages(feed: str, first: int, amount: int) -> list[Outgoing]:
    return [
        Outgoing(f"{feed}.trade.T{n % 7}".encode(), f"id-{n}".encode(), f"payload {n}".encode())
        for n in range(first, first + amount)
    ]


async def settle(publisher: Publisher, acked: int) -> None:
    async with asyncio.timeout(20):
        while publisher.acked < acked:
            await publisher.wait()


async def ready(publisher: Publisher) -> None:
    async with asyncio.timeout(20):
        while not publisher.room:
            await publisher.wait()


async def answering(transport: Transport) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await transport.ping()
                break
            except TransportUnavailable:
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a condition of a callback's making
            await asyncio.sleep(0.01)


async def take(consumer: Consumer, amount: int) -> list[Delivered]:
    got: list[Delivered] = []
    async with asyncio.timeout(20):
        while len(got) < amount:
            got += await consumer.fetch(500, 1)
    return got


async def drain(transport: Transport, feed: str, amount: int, durable: str = "reader") -> list[Delivered]:
    consumer = await transport.consumer(feed, durable)
    got = await take(consumer, amount)
    await consumer.close()
    return got


async def test_what_is_published_is_consumed_in_order_without_holes(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    for start in range(0, 3000, 250):
        publisher.send(messages(feed, start, 250))
    await settle(publisher, 3000)

    got = await drain(harness.transport, feed, 3000)

    assert [m.stream_seq for m in got] == list(range(1, 3001))
    assert [m.payload for m in got] == [m.payload for m in messages(feed, 0, 3000)]
    assert got[8].subject == f"{feed}.trade.T1".encode()


async def test_looking_for_a_stream_makes_none(harness: Harness) -> None:
    feed = next(_feeds)

    assert await harness.transport.find_stream(feed) is None
    assert await harness.transport.find_stream(feed) is None
    made = await harness.transport.ensure_stream(feed)
    assert await harness.transport.find_stream(feed) == made
    harness.down()
    try:
        with pytest.raises(TransportUnavailable):
            await harness.transport.find_stream(feed)
    finally:
        harness.up()


async def test_a_repeated_message_id_is_stored_once_and_counts_as_acknowledged(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    publisher.send(messages(feed, 0, 10))
    publisher.send(messages(feed, 5, 10))
    await settle(publisher, 20)

    state = await harness.transport.ensure_stream(feed)

    assert state.last_seq == 15


async def test_a_consumer_made_anew_continues_behind_the_last_acknowledged_message(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    publisher.send(messages(feed, 0, 100))
    await settle(publisher, 100)
    consumer = await harness.transport.consumer(feed, "archiver")
    seen: list[Delivered] = []
    async with asyncio.timeout(30):
        while len(seen) < 60:
            seen += await consumer.fetch(20, 1)
    await consumer.ack_through(seen[-1].stream_seq)
    await consumer.close()

    again = await harness.transport.consumer(feed, "archiver")
    async with asyncio.timeout(30):
        redelivered = await again.fetch(5, 5)

    assert redelivered[0].stream_seq == seen[-1].stream_seq + 1
    await again.close()


async def test_fetch_returns_at_most_what_was_asked_for_and_nothing_after_its_time(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    publisher.send(messages(feed, 0, 30))
    await settle(publisher, 30)
    consumer = await harness.transport.consumer(feed, "reader")

    first = await consumer.fetch(7, 5)
    rest: list[Delivered] = []
    while batch := await consumer.fetch(100, 0.3):
        rest += batch

    assert 1 <= len(first) <= 7
    assert [m.stream_seq for m in first + rest] == list(range(1, 31))
    await consumer.close()


async def test_an_outage_delays_messages_and_loses_none(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    publisher.send(messages(feed, 0, 500))
    harness.down()
    async with asyncio.timeout(30):
        while publisher.room:
            await publisher.wait()
    assert publisher.room == 0

    harness.up()
    await ready(publisher)
    publisher.send(messages(feed, 500, 500))
    await settle(publisher, 1000)

    got = await drain(harness.transport, feed, 1000)
    assert [m.payload for m in got] == [m.payload for m in messages(feed, 0, 1000)]


async def test_live_subscribers_see_messages_and_are_told_of_an_outage(harness: Harness) -> None:
    feed = next(_feeds)
    await harness.transport.ensure_stream(feed)
    publisher = await harness.transport.publisher(feed)
    await ready(publisher)
    seen: Batch = []
    states: list[bool] = []
    subscription = await harness.transport.subscribe([f"{feed}.trade.*"], seen.extend, states.append)
    await until(lambda: states[-1:] == [True])
    await asyncio.sleep(0.05)  # the server has no answer to SUB; the state only says that it was sent
    publisher.send(messages(feed, 0, 50))
    await until(lambda: len(seen) == 50)
    harness.down()
    await until(lambda: states[-1:] == [False])
    harness.up()
    await until(lambda: states[-1:] == [True])

    assert seen == [(m.subject, m.payload) for m in messages(feed, 0, 50)]
    assert states[-2:] == [False, True]
    await subscription.close()


async def test_requests_are_answered_or_fail_clearly(harness: Harness) -> None:
    subject = f"ssmd.books.{next(_feeds)}"

    async def answer(payload: bytes) -> bytes:
        return b"books of " + payload

    with pytest.raises(TransportUnavailable, match=r"no answer|nobody"):
        await harness.transport.request(subject, b"x", 1)
    served = await harness.transport.serve(subject, answer)
    assert await harness.transport.request(subject, b"x", 5) == b"books of x"
    await served.close()


async def test_a_broker_that_is_away_is_an_error_that_says_where(harness: Harness) -> None:
    harness.down()

    with pytest.raises(TransportUnavailable):
        await harness.transport.ping()

    harness.up()
    await answering(harness.transport)


async def test_a_message_too_large_for_the_broker_does_not_hold_up_the_others(nats_broker: "NatsServer") -> None:
    transport = NatsTransport(nats_broker.url)
    feed = next(_feeds)
    publisher = await transport.publisher(feed)
    await ready(publisher)
    huge = Outgoing(f"{feed}.trade.T0".encode(), b"huge", b"x" * (1 << 20))  # with its header just above 1 MiB

    publisher.send(messages(feed, 0, 5))
    publisher.send([huge, *messages(feed, 5, 5)])
    publisher.send([huge])
    await settle(publisher, 12)
    publisher.send(messages(feed, 10, 5))
    await settle(publisher, 17)

    assert publisher.connected
    assert (await transport.ensure_stream(feed)).last_seq == 15
    await transport.close()


async def test_a_message_above_the_stream_s_own_limit_does_not_hold_up_the_others(nats_broker: "NatsServer") -> None:
    transport = NatsTransport(nats_broker.url)
    feed = next(_feeds)
    await made_by_hand(nats_broker, stream_config(feed, 1 << 26) | {"max_msg_size": 1_000})
    publisher = await transport.publisher(feed)
    await ready(publisher)

    publisher.send([*messages(feed, 0, 5), Outgoing(f"{feed}.trade.T0".encode(), b"huge", b"x" * 2_000)])
    publisher.send(messages(feed, 5, 5))
    await settle(publisher, 11)

    assert (await transport.ensure_stream(feed)).last_seq == 10
    await transport.close()


async def test_a_stream_that_lacks_subjects_is_given_them(nats_broker: "NatsServer") -> None:
    transport = NatsTransport(nats_broker.url)
    feed = next(_feeds)
    await made_by_hand(nats_broker, {"name": f"ssmd-{feed}", "subjects": [f"{feed}.trade.*"], "storage": "file"})
    publisher = await transport.publisher(feed)
    await ready(publisher)

    publisher.send([*messages(feed, 0, 5), Outgoing(f"{feed}.gap.c-1".encode(), b"gap", b"x")])
    await settle(publisher, 6)

    assert (await transport.ensure_stream(feed)).last_seq == 6
    await transport.close()


async def test_a_reader_is_told_before_it_gets_the_same_numbers_from_a_stream_made_anew(
    nats_broker: "NatsServer",
) -> None:
    transport = NatsTransport(nats_broker.url)
    feed = next(_feeds)
    await made_by_hand(nats_broker, stream_config(feed, 1 << 26))
    await publish(transport, feed, 0, 5)
    consumer = await transport.consumer(feed, "reader")
    assert [message.stream_seq for message in await take(consumer, 5)] == [1, 2, 3, 4, 5]

    nats_broker.kill()  # while the reader is busy elsewhere
    nats_broker.start()
    client = await nats.connect(nats_broker.url)
    await client.request(f"$JS.API.STREAM.DELETE.ssmd-{feed}", b"")
    await client.close()
    await made_by_hand(nats_broker, stream_config(feed, 1 << 26))
    again = NatsTransport(nats_broker.url)
    await publish(again, feed, 5, 3)

    await answering(transport)
    for _ in range(3):  # told of the lost connection, then that this is another stream, as often as it asks
        with pytest.raises(TransportUnavailable):
            await consumer.fetch(10, 5)
    fresh = await again.consumer(feed, "reader")
    assert [message.payload for message in await take(fresh, 3)] == [b"payload 5", b"payload 6", b"payload 7"]
    await transport.close()
    await again.close()


async def publish(transport: Transport, feed: str, first: int, amount: int) -> None:
    publisher = await transport.publisher(feed)
    await ready(publisher)
    publisher.send(messages(feed, first, amount))
    await settle(publisher, amount)


async def made_by_hand(broker: "NatsServer", config: dict[str, object]) -> None:
    """A stream of somebody else's making."""
    client = await nats.connect(broker.url)
    await client.request(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode())
    await client.close()
