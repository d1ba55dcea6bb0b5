"""One suite for every journal: order, idempotence, reading, limits; then what files and NATS promise on their own."""

import asyncio
import json
import multiprocessing
import os
from collections.abc import AsyncIterator
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import pytest
from structlog.testing import capture_logs

from ssmd.clock import NS_PER_S, now_ns
from ssmd.errors import ConfigError, DataError
from ssmd.middleware.journal.file import FileJournal
from ssmd.middleware.journal.interface import (
    DUPLICATE_WINDOW_S,
    ID_HEADER,
    MAX_PAYLOAD_BYTES,
    Entry,
    Journal,
    JournalUnavailable,
    NewEntry,
    TopicMissing,
)
from ssmd.middleware.journal.memory import MemoryJournal
from ssmd.middleware.journal.nats import NatsJournal, topic_config

if TYPE_CHECKING:
    from tests.servers import NatsServer

_topics = (f"test.journal.topic-{n}" for n in count())


@pytest.fixture(params=["memory", "file", "nats"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    opened: Journal
    match request.param:
        case "memory":
            opened = MemoryJournal()
        case "file":
            opened = FileJournal(tmp_path / "journal")
        case _:
            opened = NatsJournal(request.getfixturevalue("nats_broker").url)
    yield opened
    await opened.close()


@pytest.fixture
async def topic(journal: Journal) -> str:
    name = next(_topics)
    await journal.create_topic(name)
    return name


async def all_of(journal: Journal, topic: str, from_sequence: int = 1) -> list[Entry]:
    return [entry async for entry in journal.read(topic, from_sequence)]


def batch(first: int, amount: int) -> list[NewEntry]:
    return [NewEntry(f"KX-{n % 7}", f"id-{n}", b'{"n":%d}' % n) for n in range(first, first + amount)]


# -- every journal ------------------------------------------------------------------------------------------------


async def test_entries_are_read_in_the_order_of_appending(journal: Journal, topic: str) -> None:
    before = now_ns()
    sequences = [await journal.append(topic, b"payload %d" % n, key=f"K{n}", id=f"i{n}") for n in range(5)]

    entries = await all_of(journal, topic)

    assert sequences == [1, 2, 3, 4, 5]
    assert [(e.sequence, e.topic, e.key, e.payload) for e in entries] == [
        (n + 1, topic, f"K{n}", b"payload %d" % n) for n in range(5)
    ]
    assert [e.headers[ID_HEADER] for e in entries] == [f"i{n}" for n in range(5)]
    times = [e.time_ns for e in entries]
    assert times == sorted(times)
    assert before - NS_PER_S < times[0] < now_ns() + NS_PER_S


async def test_an_id_appended_again_is_the_entry_that_is_there(journal: Journal, topic: str) -> None:
    first = await journal.append(topic, b"one", id="a")
    await journal.append(topic, b"two", id="b")

    assert await journal.append(topic, b"one", id="a") == first
    await journal.append_all(topic, [NewEntry("", "b", b"two"), NewEntry("", "c", b"three"), NewEntry("", "c", b"x")])

    assert [e.payload for e in await all_of(journal, topic)] == [b"one", b"two", b"three"]


async def test_entries_without_an_id_are_all_kept(journal: Journal, topic: str) -> None:
    assert [await journal.append(topic, b"same") for _ in range(3)] == [1, 2, 3]

    entries = await all_of(journal, topic)

    assert [e.payload for e in entries] == [b"same"] * 3
    assert all(ID_HEADER not in e.headers and e.key == "" for e in entries)


async def test_ten_thousand_entries_at_once_keep_their_order(journal: Journal, topic: str) -> None:
    await journal.append_all(topic, batch(0, 6_000))
    await journal.append_all(topic, batch(0, 10_000))  # as after a crash in the middle

    entries = await all_of(journal, topic)

    assert await journal.end(topic) == 10_000
    assert [e.sequence for e in entries] == list(range(1, 10_001))
    assert [NewEntry(e.key, e.headers[ID_HEADER], e.payload) for e in entries] == batch(0, 10_000)


async def test_an_empty_batch_appends_nothing(journal: Journal, topic: str) -> None:
    await journal.append_all(topic, [])

    assert await journal.end(topic) == 0
    assert await all_of(journal, topic) == []


async def test_reading_begins_at_any_sequence(journal: Journal, topic: str) -> None:
    await journal.append_all(topic, batch(0, 2_500))

    assert [e.sequence for e in await all_of(journal, topic, 2_490)] == list(range(2_490, 2_501))
    assert [e.sequence for e in await all_of(journal, topic, -3)] == list(range(1, 2_501))
    assert await all_of(journal, topic, 2_501) == []


async def test_a_reader_stops_at_the_end_as_of_its_first_step(journal: Journal, topic: str) -> None:
    await journal.append_all(topic, batch(0, 10))
    seen = []
    async for entry in journal.read(topic):
        seen.append(entry.sequence)
        await journal.append(topic, b"more")

    assert seen == list(range(1, 11))
    assert await journal.end(topic) == 20


async def test_topics_are_apart(journal: Journal, topic: str) -> None:
    other = next(_topics)
    await journal.create_topic(other)
    await journal.append(topic, b"here", id="same")
    await journal.append(other, b"there", id="same")

    assert [e.payload for e in await all_of(journal, topic)] == [b"here"]
    assert [e.payload for e in await all_of(journal, other)] == [b"there"]


async def test_making_a_topic_again_keeps_its_entries(journal: Journal, topic: str) -> None:
    await journal.append(topic, b"kept")
    await journal.create_topic(topic)

    assert [e.payload for e in await all_of(journal, topic)] == [b"kept"]


async def test_an_unknown_topic_has_no_end_and_takes_and_gives_nothing(journal: Journal) -> None:
    unknown = next(_topics)

    assert await journal.end(unknown) is None
    with pytest.raises(TopicMissing, match=unknown):
        await journal.append(unknown, b"x")
    with pytest.raises(TopicMissing, match=unknown):
        await journal.append_all(unknown, batch(0, 2))
    with pytest.raises(TopicMissing, match=unknown):
        await all_of(journal, unknown)
    assert await journal.end(unknown) is None


@pytest.mark.parametrize("name", ["", "a b", "a.*", "a.>", "../x", "a..b", "ü", "a\nb", "x" * 201])
async def test_a_topic_must_be_words_with_dots(journal: Journal, name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a journal topic"):
        await journal.create_topic(name)
    with pytest.raises(ConfigError, match="is not the name of a journal topic"):
        await journal.append(name, b"x")
    with pytest.raises(ConfigError, match="is not the name of a journal topic"):
        await journal.end(name)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{}",
        b' {"a" : 1 }',
        b'{"a" :  1.50, "a":2}',
        b'{"a":1}\n',
        b'{\n"a":1}',
        b'"\\u0000 \xc3\xbc"',
        b"\xff\x00\r\n\x1b[31m",
        b"NaN",
        b"[" * 5_000,
        bytes(range(256)),
        b"9" * MAX_PAYLOAD_BYTES,
        b"\x00" * MAX_PAYLOAD_BYTES,
    ],
    ids=range(14),
)
async def test_payloads_come_back_byte_for_byte(journal: Journal, topic: str, payload: bytes) -> None:
    await journal.append(topic, payload, key="k", id="i")
    await journal.append(topic, b"after")

    assert [e.payload for e in await all_of(journal, topic)] == [payload, b"after"]


async def test_large_entries_are_read_in_many_pages(journal: Journal, topic: str) -> None:
    payloads = [bytes([n]) * 900_000 for n in range(40)]
    await journal.append_all(topic, [NewEntry("", f"{n}", payload) for n, payload in enumerate(payloads)])

    assert [e.payload for e in await all_of(journal, topic)] == payloads


@pytest.mark.parametrize("text", ['KX "a"', "a\r\nNats-Msg-Id: b", "%41", " spaces ", "ü%€\x00", "x" * 1_024, "k: v"])
async def test_keys_and_ids_are_any_text(journal: Journal, topic: str, text: str) -> None:
    await journal.append(topic, b"x", key=text, id=text)
    await journal.append(topic, b"x", key=text, id=text)

    (entry,) = await all_of(journal, topic)

    assert (entry.key, entry.headers[ID_HEADER]) == (text, text)


@pytest.mark.parametrize(
    "bad",
    [
        NewEntry("", "", b"x" * (MAX_PAYLOAD_BYTES + 1)),
        NewEntry("x" * 1_025, "", b""),
        NewEntry("", "ü" * 513, b""),
        NewEntry("\udcff", "", b""),
    ],
    ids=["payload", "key", "id", "surrogate"],
)
async def test_an_entry_that_cannot_be_stored_stops_the_batch_before_it_begins(
    journal: Journal, topic: str, bad: NewEntry
) -> None:
    with pytest.raises(DataError, match="journal entry"):
        await journal.append_all(topic, [*batch(0, 10), bad])

    assert await journal.end(topic) == 0


async def test_appends_side_by_side_all_arrive(journal: Journal, topic: str) -> None:
    sequences = await asyncio.gather(*(journal.append(topic, b"%d" % n) for n in range(50)))

    assert sorted(sequences) == list(range(1, 51))
    assert sorted(int(e.payload) for e in await all_of(journal, topic)) == list(range(50))


# -- files --------------------------------------------------------------------------------------------------------


def _append_many(folder: Path, name: str, who: int, together: Barrier) -> None:
    async def work() -> None:
        journal = FileJournal(folder)
        together.wait(60)
        for start in range(0, 200, 10):
            await journal.append_all(
                name, [NewEntry(f"{who}", f"shared-{n}", b"%d" % n) for n in range(start, start + 5)]
            )
            await journal.append_all(name, [NewEntry(f"{who}", f"{who}-{n}", b"own") for n in range(start, start + 5)])

    asyncio.run(work())


async def test_processes_that_append_to_the_same_file_lose_and_repeat_nothing(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    await journal.create_topic("t")
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(3)
    writers = [spawn.Process(target=_append_many, args=(tmp_path, "t", who, together)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        await asyncio.to_thread(writer.join)

    entries = await all_of(journal, "t")

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [e.sequence for e in entries] == list(range(1, 401))  # 100 shared, 3 × 100 own
    ids = [e.headers[ID_HEADER] for e in entries]
    assert len(set(ids)) == 400
    assert await journal.append("t", b"x", id="shared-0") == ids.index("shared-0") + 1


async def test_a_line_torn_by_a_crash_is_neither_read_nor_kept(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    await journal.create_topic("t")
    await journal.append_all("t", batch(0, 3))
    file = tmp_path / "t.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"sequence":4,"time_ns":1790000000000000000,"key":"' + b"torn" * 2_000)

    again = FileJournal(tmp_path)
    assert [e.sequence for e in await all_of(again, "t")] == [1, 2, 3]
    assert await again.end("t") == 3
    with capture_logs() as logs:
        assert await again.append("t", b"4", id="four") == 4

    assert [line["event"] for line in logs] == ["torn entry removed"]
    assert [e.sequence for e in await all_of(journal, "t")] == [1, 2, 3, 4]
    assert file.read_bytes().startswith(whole + b'{"sequence":4,')
    assert file.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("cut", [1, 5_000])
async def test_a_file_that_holds_only_a_torn_line_is_empty(tmp_path: Path, cut: int) -> None:
    journal = FileJournal(tmp_path)
    await journal.create_topic("t")
    (tmp_path / "t.jsonl").write_bytes(b"\x00" * cut)

    assert await journal.end("t") == 0
    assert await journal.append("t", b"x") == 1
    assert [e.payload for e in await all_of(journal, "t")] == [b"x"]


async def test_the_file_is_json_lines_for_people(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, clock_ns=lambda: 1_790_000_000_123_456_789)
    await journal.create_topic("ssmd.journal.secmaster")
    await journal.append("ssmd.journal.secmaster", b'{"ticker":"KX-1"}', key="KX-1", id="m-1")
    await journal.append("ssmd.journal.secmaster", b"\xff")

    assert (tmp_path / "ssmd.journal.secmaster.jsonl").read_text() == (
        '{"sequence":1,"time_ns":1790000000123456789,"key":"KX-1","id":"m-1","payload":{"ticker":"KX-1"}}\n'
        '{"sequence":2,"time_ns":1790000000123456789,"key":"","id":"","payload_b64":"/w=="}\n'
    )


async def test_an_id_older_than_the_window_may_be_used_again(tmp_path: Path) -> None:
    now = [now_ns()]
    journal = FileJournal(tmp_path, clock_ns=lambda: now[0])
    await journal.create_topic("t")
    await journal.append("t", b"x", id="a")
    now[0] += (DUPLICATE_WINDOW_S - 1) * NS_PER_S
    assert await journal.append("t", b"x", id="a") == 1
    now[0] += 2 * NS_PER_S
    assert await journal.append("t", b"x", id="a") == 2
    assert await FileJournal(tmp_path, clock_ns=lambda: now[0]).append("t", b"x", id="a") == 2


async def test_a_line_that_is_no_entry_is_an_error_that_names_file_and_place(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    await journal.create_topic("t")
    await journal.append("t", b"x")
    file = tmp_path / "t.jsonl"
    good = file.read_bytes()
    file.write_bytes(good + b"garbage\n")

    for attempt in (all_of(journal, "t"), journal.append("t", b"y"), FileJournal(tmp_path).end("t")):
        with pytest.raises(DataError, match=rf"t\.jsonl has a line at byte {len(good)} that is no entry"):
            await attempt
    assert file.read_bytes() == good + b"garbage\n"


async def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path)
    await journal.create_topic("t")
    await journal.append("t", b"x")
    before = (tmp_path / "t.jsonl").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(JournalUnavailable, match="No space left on device"):
            await journal.append_all("t", batch(0, 100))

    assert (tmp_path / "t.jsonl").read_bytes() == before
    assert await journal.append("t", b"y") == 2


async def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"(?s)cannot make the journal .*spec\.middleware\.journal\.path"):
        await FileJournal(tmp_path / "file" / "journal").create_topic("t")


# -- NATS ---------------------------------------------------------------------------------------------------------


async def _server_says(broker: "NatsServer", subject: str, body: dict[str, object]) -> dict[str, object]:
    client = await nats.connect(broker.url)
    answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode())
    await client.close()
    decoded = json.loads(answer.data)
    assert isinstance(decoded, dict)
    return decoded


async def test_entries_outlive_the_broker(nats_broker: "NatsServer") -> None:
    journal = NatsJournal(nats_broker.url)
    topic = next(_topics)
    await journal.create_topic(topic)
    await journal.append_all(topic, batch(0, 1_000))
    nats_broker.kill()
    try:
        attempts = (
            journal.append(topic, b"x", id="late"),
            journal.append_all(topic, batch(1_000, 5)),
            all_of(journal, topic),
            journal.end(topic),
            journal.create_topic(topic),
        )
        for attempt in attempts:
            with pytest.raises(JournalUnavailable):
                await attempt
    finally:
        nats_broker.start()
    sequence = 0
    async with asyncio.timeout(20):
        while not sequence:
            try:
                sequence = await journal.append(topic, b"x", id="late")
            except JournalUnavailable:
                await asyncio.sleep(0.1)

    assert sequence == 1_001
    assert [e.payload for e in await all_of(journal, topic)] == [e.payload for e in batch(0, 1_000)] + [b"x"]
    await journal.close()


async def test_a_broker_killed_in_a_batch_is_an_error_and_the_repeat_completes_it(nats_broker: "NatsServer") -> None:
    journal = NatsJournal(nats_broker.url)
    topic = next(_topics)
    await journal.create_topic(topic)
    appending = asyncio.create_task(journal.append_all(topic, batch(0, 50_000)))
    async with asyncio.timeout(20):
        while not await journal.end(topic):  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0)
    nats_broker.kill()
    with pytest.raises(JournalUnavailable, match="went away"):
        await appending
    nats_broker.start()
    async with asyncio.timeout(60):
        while True:
            try:
                await journal.append_all(topic, batch(0, 50_000))
                break
            except JournalUnavailable:
                await asyncio.sleep(0.1)

    assert [e.payload for e in await all_of(journal, topic)] == [e.payload for e in batch(0, 50_000)]
    await journal.close()


async def test_a_topic_stream_keeps_its_entries(nats_broker: "NatsServer") -> None:
    topic = next(_topics)  # no other test's: what is in it counts
    stream = topic.replace(".", "-")
    journal = NatsJournal(nats_broker.url)
    await journal.create_topic(topic)
    await journal.append(topic, b"x")

    info = await _server_says(nats_broker, f"STREAM.INFO.{stream}", {})
    purged = await _server_says(nats_broker, f"STREAM.PURGE.{stream}", {})
    removed = await _server_says(nats_broker, f"STREAM.MSG.DELETE.{stream}", {"seq": 1})

    config = info["config"]
    assert isinstance(config, dict)
    kept = {name: config.get(name) for name in ("retention", "storage", "max_age", "max_msgs", "max_bytes", "discard")}
    assert kept == {
        "retention": "limits", "storage": "file", "max_age": 0, "max_msgs": -1, "max_bytes": -1, "discard": "new",
    }  # fmt: skip
    assert config["duplicate_window"] == DUPLICATE_WINDOW_S * NS_PER_S
    assert "error" in purged
    assert "error" in removed
    assert await journal.end(topic) == 1
    await journal.close()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"retention": "workqueue"}, "retention is workqueue, not limits"),
        ({"storage": "memory"}, "storage is memory, not file"),
        ({"subjects": ["elsewhere.one"]}, r"subjects is \['elsewhere.one'\]"),
        ({"no_ack": True}, "no_ack is True, not False"),
    ],
)
async def test_a_stream_that_would_lose_entries_is_refused(
    nats_broker: "NatsServer", setting: dict[str, object], told: str
) -> None:
    topic = next(_topics)
    config = {**topic_config(topic), **setting, "deny_purge": False, "deny_delete": False}
    made = await _server_says(nats_broker, f"STREAM.CREATE.{config['name']}", config)
    assert "error" not in made
    journal = NatsJournal(nats_broker.url)

    with pytest.raises(ConfigError, match=told):
        await journal.create_topic(topic)
    await journal.close()
    await _server_says(nats_broker, f"STREAM.DELETE.{config['name']}", {})


async def test_a_short_duplicate_window_is_lengthened_and_limits_are_told(nats_broker: "NatsServer") -> None:
    topic = next(_topics)
    config = {**topic_config(topic), "duplicate_window": 120 * NS_PER_S, "max_msgs": 3}
    await _server_says(nats_broker, f"STREAM.CREATE.{config['name']}", config)
    journal = NatsJournal(nats_broker.url)

    with capture_logs() as logs:
        await journal.create_topic(topic)
    info = await _server_says(nats_broker, f"STREAM.INFO.{config['name']}", {})

    assert [line["event"] for line in logs] == [
        "journal entries have limits",
        "journal's duplicate window lengthened",
    ]
    found = info["config"]
    assert isinstance(found, dict)
    assert (found["duplicate_window"], found["max_msgs"]) == (DUPLICATE_WINDOW_S * NS_PER_S, 3)
    with pytest.raises(JournalUnavailable, match="maximum messages exceeded"):
        await journal.append_all(topic, batch(0, 4))  # loud, where `discard: old` would drop history
    assert [e.payload for e in await all_of(journal, topic)] == [e.payload for e in batch(0, 3)]
    await journal.close()
