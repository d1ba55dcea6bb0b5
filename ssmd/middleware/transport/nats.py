"""NATS JetStream as a Transport: nats-py for streams, consumers and requests; raw connections for the data path."""

import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg

from ssmd.market.events import EVENT_TYPES
from ssmd.market.subjects import stream_name
from ssmd.middleware.transport.interface import (
    Batch,
    Consumer,
    Publisher,
    StreamState,
    Subscription,
    TransportUnavailable,
)
from ssmd.middleware.transport.nats_client import STREAM_NOT_FOUND, NatsControl, nanoseconds
from ssmd.middleware.transport.nats_consume import NatsConsumer, NatsSubscription, stream_state
from ssmd.middleware.transport.nats_publish import NatsPublisher
from ssmd.middleware.transport.nats_wire import Address

_MAX_AGE = timedelta(hours=24)
_DUPLICATE_WINDOW = timedelta(minutes=2)
_MAX_BYTES = 10 * 1024**3
_MIN_BYTES = 64 * 1024**2
_NO_ROOM = 10047

log = structlog.get_logger(component="transport")


def stream_config(feed: str, max_bytes: int) -> dict[str, Any]:
    """The JetStream settings of a feed's stream.

    The server itself repeats every message on `{feed}.normalized.{type}`, with its stream sequence as a header.
    """
    return {
        "name": stream_name(feed),
        "subjects": [f"{feed}.{kind}.*" for kind in (*EVENT_TYPES, "raw")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": nanoseconds(_MAX_AGE),
        "max_bytes": max_bytes,
        "duplicate_window": nanoseconds(_DUPLICATE_WINDOW),
        "num_replicas": 1,
        "allow_direct": True,
        "republish": {"src": f"{feed}.*.*", "dest": f"{feed}.normalized.{{{{wildcard(1)}}}}"},
    }


class NatsTransport:
    """A Transport on one or more NATS servers (`url`: comma-separated, or what says it at each connection)."""

    def __init__(self, url: Address) -> None:
        self._url = url
        self._control = NatsControl(url, "ssmd-control")
        self._closers: list[Callable[[], Awaitable[None]]] = []

    # -- control plane ------------------------------------------------------------------------------------------

    async def ensure_stream(self, feed: str) -> StreamState:
        name = stream_name(feed)
        info = await self._control.api(f"STREAM.INFO.{name}", {})
        if json.loads(info).get("error", {}).get("err_code") != STREAM_NOT_FOUND:
            state = stream_state(info)
            await self._mend(feed, json.loads(info)["config"])
            return state
        size = _MAX_BYTES
        while True:
            made = await self._control.api(f"STREAM.CREATE.{name}", stream_config(feed, size))
            code = json.loads(made).get("error", {}).get("err_code")
            if code != _NO_ROOM or size < _MIN_BYTES:
                break
            size //= 2  # a small disk: JetStream reserves the whole of max_bytes
        log.info("stream created", stream=name, max_bytes=size)
        return stream_state(made)

    async def find_stream(self, feed: str) -> StreamState | None:
        info = await self._control.api(f"STREAM.INFO.{stream_name(feed)}", {})
        if json.loads(info).get("error", {}).get("err_code") == STREAM_NOT_FOUND:
            return None
        return stream_state(info)

    async def _mend(self, feed: str, config: dict[str, Any]) -> None:
        """Let a stream that somebody else made, or an older version, take all of the feed's subjects.

        A subject that it lacks would be refused for ever, and with it everything behind it.
        """
        ours = stream_config(feed, 0)
        missing = [subject for subject in ours["subjects"] if subject not in config.get("subjects", ())]
        if not missing and config.get("republish"):
            return
        name = stream_name(feed)
        config |= {"subjects": [*config.get("subjects", ()), *missing]}
        config["republish"] = config.get("republish") or ours["republish"]
        changed = json.loads(await self._control.api(f"STREAM.UPDATE.{name}", config))
        if "error" in changed:
            raise TransportUnavailable(
                f"the stream {name} lacks settings and cannot be changed: {changed['error'].get('description')}",
                f"its subjects must be {', '.join(ours['subjects'])}; change it with the nats command, or delete it",
            )
        log.warning("stream settings completed", stream=name, subjects=missing)

    async def publisher(self, feed: str) -> Publisher:
        async def ensure() -> None:
            await self.ensure_stream(feed)

        publisher = NatsPublisher(self._url, feed, ensure)
        self._closers.append(publisher.close)
        return publisher

    async def consumer(self, feed: str, durable: str) -> Consumer:
        async def prepare() -> StreamState:
            return await self._prepare_durable(feed, durable)

        async def state() -> StreamState:
            return await self.ensure_stream(feed)

        consumer = NatsConsumer(self._url, stream_name(feed), durable, prepare, state)
        await consumer.open()
        self._closers.append(consumer.close)
        return consumer

    async def _prepare_durable(self, feed: str, durable: str) -> StreamState:
        """Make the durable anew, right behind what it acknowledged.

        So a restarted reader gets what it never acknowledged at once, instead of after `ack_wait`. A crash between
        the two steps loses the position, not a message: the next start reads the stream from its beginning.
        """
        state = await self.ensure_stream(feed)
        name = stream_name(feed)
        info = json.loads(await self._control.api(f"CONSUMER.INFO.{name}.{durable}", {}))
        config: dict[str, Any] = {
            "durable_name": durable,
            "ack_policy": "all",
            "ack_wait": nanoseconds(timedelta(minutes=30)),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "replay_policy": "instant",
            "deliver_policy": "all",
        }
        floor = info.get("ack_floor", {}).get("stream_seq", 0)
        if "error" not in info:
            await self._control.api(f"CONSUMER.DELETE.{name}.{durable}", {})
            if floor:
                config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": floor + 1}
        made = json.loads(
            await self._control.api(
                f"CONSUMER.DURABLE.CREATE.{name}.{durable}", {"stream_name": name, "config": config, "action": ""}
            )
        )
        if "error" in made:
            raise TransportUnavailable(f"cannot make the consumer {durable} of {name}: {made['error']['description']}")
        return state

    # -- live ---------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        patterns: Sequence[str],
        on_batch: Callable[[Batch], None],
        on_state: Callable[[bool], None],
    ) -> Subscription:
        subscription = NatsSubscription(self._url, patterns, on_batch, on_state)
        self._closers.append(subscription.close)
        return subscription

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        client = await self._control.connected()
        try:
            return (await client.request(subject, payload, timeout=timeout_s)).data
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise TransportUnavailable(f"no answer on {subject} within {timeout_s} s") from error

    async def serve(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> Subscription:
        client = await self._control.connected()

        async def answer(message: Msg) -> None:
            await message.respond(await handler(message.data))

        served = await client.subscribe(subject, cb=answer)
        return _Served(served)

    async def ping(self) -> None:
        await self._control.ping()

    async def close(self) -> None:
        for closer in reversed(self._closers):
            await closer()
        self._closers.clear()
        await self._control.close()


class _Served:
    def __init__(self, served: Any) -> None:
        self._served = served

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._served.unsubscribe()
