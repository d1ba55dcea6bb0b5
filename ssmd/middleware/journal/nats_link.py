"""A raw connection of the NATS journal: a batch appended with pipelined acknowledgements, a page of entries read."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex
from types import TracebackType
from urllib.parse import quote, unquote

from ssmd.errors import DataError
from ssmd.middleware.journal.interface import ID_HEADER, Entry, JournalUnavailable, NewEntry
from ssmd.middleware.transport.interface import TransportUnavailable
from ssmd.middleware.transport.nats_wire import NatsWire, Received, open_wire

KEY_HEADER = "Ssmd-Key"

_IN_FLIGHT = 2_000
_CHUNK = 250
_MAX_UNSENT = 4 * 1024 * 1024
_PAGE_BYTES = 16 * 1024 * 1024
_SILENT_S = 10.0
_READABLE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"
"""What may stand in a header as it is; the rest becomes `%XX`, so that no key can end a line."""


class Link:
    """Open it with `async with`; one thing at a time. JournalUnavailable when the server is or goes away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wire: NatsWire | None = None
        self._inbox = b"_INBOX.%b." % token_hex(8).encode()
        self._arrived = asyncio.Event()
        self._lost = False
        self._received: list[Received] = []
        self._pages = 0

    async def __aenter__(self) -> "Link":
        try:
            self._wire = await open_wire(self._url, "ssmd-journal", self._on_batch, self._on_lost)
        except TransportUnavailable as error:
            raise JournalUnavailable(
                error.message, "start NATS (`ssmd up` does) or correct spec.middleware.journal.url"
            ) from error
        self._wire.write(b"SUB %b* 1\r\n" % self._inbox)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _on_batch(self, batch: list[Received]) -> None:
        self._received += batch
        self._arrived.set()

    def _on_lost(self) -> None:
        self._lost = True
        self._arrived.set()

    def _open(self) -> NatsWire:
        assert self._wire is not None
        return self._wire

    async def _next(self, doing: Callable[[], str]) -> list[Received]:
        """What arrived since the last call, at least one message."""
        try:
            async with asyncio.timeout(_SILENT_S):
                while not self._received:
                    if self._lost:
                        raise JournalUnavailable(f"the NATS server went away while {doing()}", "Run it again.")
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError as error:
            raise JournalUnavailable(f"NATS said nothing for {_SILENT_S:.0f} s while {doing()}") from error
        received, self._received = self._received, []
        return received

    # -- appending ------------------------------------------------------------------------------------------------

    async def append(self, topic: str, entries: Sequence[NewEntry]) -> int:
        """Append in order; the last entry's sequence (0 without entries) when the server has stored all of them."""
        wire = self._open()
        headers = [_headers(entry) for entry in entries]
        for entry, head in zip(entries, headers, strict=True):
            if len(head) + len(entry.payload) > wire.max_payload:
                raise DataError(
                    f"a journal entry of {len(entry.payload)} bytes (key {entry.key[:80]!r}) is larger than this NATS "
                    f"server takes ({wire.max_payload} bytes)",
                    "Raise max_payload in the server's configuration.",
                )
        subject = topic.encode()
        written = acked = sequence = 0
        while acked < len(entries):
            while written < len(entries) and written - acked <= _IN_FLIGHT - _CHUNK and wire.unsent <= _MAX_UNSENT:
                stop = min(written + _CHUNK, len(entries))
                wire.write(
                    b"".join(self._put(subject, i, headers[i], entries[i].payload) for i in range(written, stop))
                )
                written = stop
            for message in await self._next(lambda: f"storing {len(entries)} entries of {topic}"):
                sequence = _sequence(message, topic)
                acked += 1
        return sequence

    def _put(self, subject: bytes, index: int, head: bytes, payload: bytes) -> bytes:
        return b"HPUB %b %b%d %d %d\r\n%b%b\r\n" % (
            subject, self._inbox, index, len(head), len(head) + len(payload), head, payload,
        )  # fmt: skip

    # -- reading --------------------------------------------------------------------------------------------------

    async def page(self, topic: str, stream: str, consumer: str, count: int) -> list[Entry]:
        """At most `count` entries from where the consumer stands; fewer when they are large, none at the end.

        The consumer is deleted afterwards.
        """
        body = json.dumps({"batch": count, "max_bytes": _PAGE_BYTES, "no_wait": True}).encode()
        request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}".encode()
        self._pages += 1
        inbox = b"%bp%d" % (self._inbox, self._pages)  # the word that ends a page may come after its last entry
        self._open().write(b"PUB %b %b %d\r\n%b\r\n" % (request, inbox, len(body), body))
        entries: list[Entry] = []
        ended = False
        while len(entries) < count and not ended:
            for message in await self._next(lambda: f"reading {topic}"):
                if message.reply:  # the subject is the topic
                    entries.append(_entry(topic, message))
                elif message.subject == inbox:
                    _check_end(message.headers, topic)
                    ended = True
        self._open().write(b"PUB $JS.API.CONSUMER.DELETE.%b.%b 0\r\n\r\n" % (stream.encode(), consumer.encode()))
        return entries


def _headers(entry: NewEntry) -> bytes:
    lines = ["NATS/1.0"]
    if entry.id:
        lines.append(f"{ID_HEADER}: {quote(entry.id, safe=_READABLE)}")
    if entry.key:
        lines.append(f"{KEY_HEADER}: {quote(entry.key, safe=_READABLE)}")
    return "\r\n".join([*lines, "", ""]).encode()


def _sequence(ack: Received, topic: str) -> int:
    """The stored (or, for a repeated id, the earlier) entry's sequence."""
    if not ack.payload:
        status = ack.headers.split(b"\r\n")[0].decode("ascii", "replace")
        raise JournalUnavailable(
            f"NATS did not take an entry of {topic}: {status}", "Is JetStream up? Run: ssmd doctor"
        )
    answer = json.loads(ack.payload)
    if "error" in answer:
        raise JournalUnavailable(
            f"NATS did not store an entry of {topic}: {answer['error'].get('description')}",
            f"See its limits: nats stream info {topic.replace('.', '-')}",
        )
    return int(answer["seq"])


def _check_end(headers: bytes, topic: str) -> None:
    """A page ends with 404 or 408 (nothing more), or 409 when it is full; anything else is trouble."""
    status = headers.split(b"\r\n")[0]
    if status[9:12] in (b"404", b"408") or status[13:] in (b"Batch Completed", b"Message Size Exceeds MaxBytes"):
        return
    raise JournalUnavailable(f"NATS ended the reading of {topic}: {status.decode('ascii', 'replace')}", "Run it again.")


def _entry(topic: str, message: Received) -> Entry:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>; newer servers put domain
    # and account in front, and a token behind
    words = message.reply.split(b".")
    at = 5 if len(words) == 9 else 7
    headers = dict(_fields(message.headers.split(b"\r\n")[1:]))
    key = headers.pop(KEY_HEADER, "")
    return Entry(int(words[at]), int(words[at + 2]), topic, key, message.payload, headers)


def _fields(lines: Iterable[bytes]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            yield name, unquote(value.strip()) if name in (ID_HEADER, KEY_HEADER) else value.strip()
