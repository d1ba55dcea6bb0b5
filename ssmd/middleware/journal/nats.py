"""A journal in NATS JetStream: one stream per topic, which keeps its entries until somebody deletes the stream."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import structlog

from ssmd.errors import ConfigError
from ssmd.middleware.journal.interface import (
    DUPLICATE_WINDOW_S,
    Entry,
    JournalUnavailable,
    NewEntry,
    TopicMissing,
    check_entries,
    check_topic,
)
from ssmd.middleware.journal.nats_link import Link
from ssmd.middleware.transport.interface import TransportUnavailable
from ssmd.middleware.transport.nats_client import STREAM_NOT_FOUND, NatsControl, nanoseconds

_WINDOW_NS = nanoseconds(timedelta(seconds=DUPLICATE_WINDOW_S))
_PAGE = 1_000

log = structlog.get_logger(component="journal")


def topic_stream(topic: str) -> str:
    """The JetStream stream of a topic: `ssmd.journal.secmaster` is kept in `ssmd-journal-secmaster`."""
    return check_topic(topic).replace(".", "-")


def topic_config(topic: str) -> dict[str, Any]:
    """The settings of a topic's stream: no limit of any kind, no message deleted or purged.

    `discard: new` is for operators who set a limit: an append beyond it fails loudly, where `old` would drop history.
    """
    return {
        "name": topic_stream(topic),
        "subjects": [topic],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_bytes": -1,
        "max_msgs": -1,
        "duplicate_window": _WINDOW_NS,
        "num_replicas": 1,
        "deny_delete": True,
        "deny_purge": True,
    }


class NatsJournal:
    """A Journal on one or more NATS servers (`url`: comma-separated); connects on first use.

    `url`, with the password in it, is the one of when it was opened: made for commands that open, use and close it. A
    service, which outlives a rotated password, would have to ask for it at every connection, as NatsTransport does.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._control = NatsControl(url, "ssmd-journal")

    async def create_topic(self, topic: str) -> None:
        info = await self._info(topic)
        if info is None:
            await self._request(f"STREAM.CREATE.{topic_stream(topic)}", topic_config(topic), "cannot make")
            log.info("topic created", topic=topic, stream=topic_stream(topic))
            return
        await self._check(topic, info["config"])

    async def append(self, topic: str, payload: bytes, *, key: str = "", id: str = "") -> int:
        return await self._append(topic, [NewEntry(key, id, payload)])

    async def append_all(self, topic: str, entries: Sequence[NewEntry]) -> None:
        await self._append(topic, entries)

    async def read(self, topic: str, from_sequence: int = 1) -> AsyncIterator[Entry]:
        end = await self.end(topic)
        if end is None:
            raise TopicMissing(topic)
        following = max(from_sequence, 1)
        if following > end:
            return
        async with Link(self._url) as link:
            while following <= end:
                consumer = await self._reader(topic, following)
                page = await link.page(topic, topic_stream(topic), consumer, min(_PAGE, end - following + 1))
                for entry in page:
                    if entry.sequence > end:
                        return
                    yield entry
                if not page:
                    return  # somebody's limit took the rest
                following = page[-1].sequence + 1

    async def end(self, topic: str) -> int | None:
        info = await self._info(topic)
        return None if info is None else int(info["state"]["last_seq"])

    async def close(self) -> None:
        await self._control.close()

    # -- JetStream ------------------------------------------------------------------------------------------------

    async def _append(self, topic: str, entries: Sequence[NewEntry]) -> int:
        """The last entry's sequence, 0 without entries."""
        check_entries(entries)
        if await self._info(topic) is None:
            raise TopicMissing(topic)
        async with Link(self._url) as link:
            return await link.append(topic, entries)

    async def _api(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = json.loads(await self._control.api(subject, body))
        except TransportUnavailable as error:
            raise JournalUnavailable(
                error.message, "start NATS (`ssmd up` does) or correct spec.middleware.journal.url"
            ) from error
        assert isinstance(answer, dict)
        return answer

    async def _request(self, subject: str, body: dict[str, Any], doing: str) -> dict[str, Any]:
        answer = await self._api(subject, body)
        if "error" in answer:
            stream = subject.split(".")[2]
            raise JournalUnavailable(
                f"{doing} the journal's stream {stream}: {answer['error'].get('description')}",
                f"See what the server says: nats stream info {stream}",
            )
        return answer

    async def _info(self, topic: str) -> dict[str, Any] | None:
        name = topic_stream(topic)
        answer = await self._api(f"STREAM.INFO.{name}", {})
        if answer.get("error", {}).get("err_code") == STREAM_NOT_FOUND:
            return None
        if "error" in answer:
            raise JournalUnavailable(f"cannot look at the stream {name}: {answer['error'].get('description')}")
        return answer

    async def _check(self, topic: str, config: dict[str, Any]) -> None:
        """A stream that is there already must keep entries; a limit that its operator set is respected, and told."""
        name = topic_stream(topic)
        wanted = {"subjects": [topic], "retention": "limits", "storage": "file", "no_ack": False, "sealed": False}
        wrong = {setting: config.get(setting) or False for setting in ("no_ack", "sealed")}
        wrong |= {setting: config.get(setting) for setting in ("subjects", "retention", "storage")}
        wrong = {setting: found for setting, found in wrong.items() if found != wanted[setting]}
        if wrong:
            told = "; ".join(f"{setting} is {found}, not {wanted[setting]}" for setting, found in wrong.items())
            raise ConfigError(
                f"the stream {name} cannot hold the journal topic {topic}: {told}",
                f"Delete it if nobody needs it (nats stream rm {name}), or name another topic.",
            )
        limits = {key: config[key] for key in ("max_age", "max_bytes", "max_msgs") if config.get(key, -1) > 0}
        if limits:
            log.warning("journal entries have limits", topic=topic, discard=config.get("discard"), **limits)
        if config.get("duplicate_window", 0) < _WINDOW_NS:
            changed = {**config, "duplicate_window": _WINDOW_NS}
            await self._request(f"STREAM.UPDATE.{name}", changed, "cannot lengthen the duplicate window of")
            log.warning("journal's duplicate window lengthened", topic=topic, seconds=DUPLICATE_WINDOW_S)

    async def _reader(self, topic: str, from_sequence: int) -> str:
        """A consumer for one page: it knows no time-out of a slow reader, and the server forgets it by itself."""
        name = topic_stream(topic)
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": from_sequence,
            "ack_policy": "none",
            "inactive_threshold": nanoseconds(timedelta(seconds=30)),
            "mem_storage": True,
            "num_replicas": 1,
        }
        made = await self._request(f"CONSUMER.CREATE.{name}", {"stream_name": name, "config": config}, "cannot read")
        return str(made["name"])
