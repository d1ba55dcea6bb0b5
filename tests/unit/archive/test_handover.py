"""Handovers: recorded in the raw archive, and followed by whoever makes events from it again."""

from datetime import timedelta
from pathlib import Path

import pytest

from ssmd.archive import layout
from ssmd.archive.handover import Handover, Part, read_handovers, read_parts, store_handover
from ssmd.archive.layout import HandoverObject
from ssmd.archive.normalize import normalize_day
from ssmd.archive.spill import Spill
from ssmd.clock import day_start_ns
from ssmd.errors import DataError
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import Kind, OrderBookUpdate
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.wire.normalized import decode
from tests.events import DAY, NOON
from tests.raw_archive import FEED, RAW, Frame, archive

MS = 1_000_000
NEXT = DAY + timedelta(days=1)
MIDNIGHT = day_start_ns(NEXT)


def book(connection: str, start_ns: int, count: int) -> list[Frame]:
    """A snapshot and `count - 1` changes of one book, a millisecond apart."""
    made = []
    for n in range(count):
        if n:
            body = b'"price_dollars":"0.4000","delta_fp":"1.00","side":"yes"'
            kind = "orderbook_delta"
        else:
            body, kind = b'"market_id":"m","yes_dollars_fp":[["0.4000","100.00"]]', "orderbook_snapshot"
        frame = b'{"type":"%b","sid":1,"seq":%d,"msg":{"market_ticker":"T-1",%b}}' % (kind.encode(), n + 1, body)
        made.append(Frame(connection, n, start_ns + n * MS, "orderbook", kind, frame))
    return made


async def normalized(storage: MemoryStorage, folder: Path, day: object = DAY) -> list[str]:
    """Each update of the day: connection, receive time in ms from midnight or noon, kind, size at the level."""
    with Spill(folder / "spill") as spill:
        await normalize_day(storage, RAW, FEED, day, lambda its: open_feed(FEED, its), spill)  # type: ignore[arg-type]
        messages = [message for some in spill.lists(("orderbook", "T-1")) for message in some]
    words = []
    for message in messages:
        event = decode("orderbook", message)
        assert isinstance(event, OrderBookUpdate)
        kind = "book" if event.kind is Kind.SNAPSHOT else "delta"
        words.append(f"{event.connection} {kind} {event.bids[0][1] // 1_000_000} seq {event.seq}")
    return words


def mark(connection: str, at_ns: int) -> Handover:
    return Handover(FEED, connection, at_ns)


async def test_a_record_comes_back_and_is_stored_once() -> None:
    storage = MemoryStorage()
    handover = Handover(FEED, "c-2", NOON, 7, "c-1", 12, ((3, 4),))
    key = await store_handover(storage, RAW, handover)
    assert await store_handover(storage, RAW, handover) == key

    assert await read_handovers(storage, RAW, FEED, DAY) == {HandoverObject(FEED, DAY, NOON, "c-2"): handover}
    assert layout.parse_handover(key) == handover.object
    assert b'"from":"c-1"' in await storage.get(RAW, key)
    with pytest.raises(DataError, match="another handover"):
        await store_handover(storage, RAW, Handover(FEED, "c-2", NOON, 8))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"feed":"kalshi","to":"c-9","at_ns":1}', b'{"feed":"kalshi"'])
async def test_a_record_that_is_none_is_refused_with_its_name(content: bytes) -> None:
    storage = MemoryStorage()
    key = HandoverObject(FEED, DAY, NOON, "c-2").key
    await storage.put_once(RAW, key, content)

    with pytest.raises(DataError, match="c-2"):
        await read_handovers(storage, RAW, FEED, DAY)


def test_what_a_part_takes() -> None:
    part = Part("c-2", None)
    assert not part.takes(0)
    part.take_over(Handover(FEED, "c-2", NOON, 10, "c-1", also=((3, 4), (8, 8))), DAY)
    assert [n for n in range(14) if part.takes(n)] == [3, 4, 8, 10, 11, 12, 13]
    part.last_n = 11
    assert [n for n in range(14) if part.takes(n)] == [3, 4, 8, 10, 11]


async def test_a_connection_that_stands_by_gives_no_events(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await archive(storage, tmp_path, book("c-1", NOON, 4) + book("c-2", NOON + MS // 2, 4))
    await store_handover(storage, RAW, mark("c-2", NOON + MS // 2))

    assert await normalized(storage, tmp_path) == [
        "c-1 book 100 seq 1", "c-1 delta 101 seq 2", "c-1 delta 102 seq 3", "c-1 delta 103 seq 4",
    ]  # fmt: skip


async def test_at_the_takeover_the_whole_book_comes_as_it_was_published(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await archive(storage, tmp_path, book("c-1", NOON, 4) + book("c-2", NOON + MS // 2, 6))
    await store_handover(storage, RAW, mark("c-2", NOON + MS // 2))
    await store_handover(storage, RAW, Handover(FEED, "c-2", NOON + 3 * MS, 3, "c-1", 2))

    assert await normalized(storage, tmp_path) == [
        "c-1 book 100 seq 1", "c-1 delta 101 seq 2", "c-1 delta 102 seq 3",
        "c-2 book 102 seq 3", "c-2 delta 103 seq 4", "c-2 delta 104 seq 5", "c-2 delta 105 seq 6",
    ]  # fmt: skip


@pytest.mark.parametrize("frames_before_midnight", [2, 3, 4])
async def test_a_takeover_around_midnight_gives_its_books_to_the_day_of_their_receive_time(
    tmp_path: Path, frames_before_midnight: int
) -> None:
    storage = MemoryStorage()
    start_ns = MIDNIGHT - frames_before_midnight * MS
    await archive(storage, tmp_path, book("c-1", start_ns, 2) + book("c-2", start_ns, 6))
    await store_handover(storage, RAW, mark("c-2", start_ns))
    at_ns = start_ns + 2 * MS  # of the last frame before the cut
    await store_handover(storage, RAW, Handover(FEED, "c-2", at_ns, 3, "c-1"))
    first = await normalized(storage, tmp_path)
    second = await normalized(storage, tmp_path, NEXT)

    assert first + second == [
        "c-1 book 100 seq 1", "c-1 delta 101 seq 2",
        "c-2 book 102 seq 3", "c-2 delta 103 seq 4", "c-2 delta 104 seq 5", "c-2 delta 105 seq 6",
    ]  # fmt: skip
    assert len(first) == 2 + max(0, frames_before_midnight - 2)


async def test_the_books_of_a_takeover_are_there_though_no_frame_followed_on_that_day(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await archive(storage, tmp_path, book("c-1", MIDNIGHT - 9 * MS, 2) + book("c-2", MIDNIGHT - 9 * MS, 3))
    await store_handover(storage, RAW, mark("c-2", MIDNIGHT - 9 * MS))
    await store_handover(storage, RAW, Handover(FEED, "c-2", MIDNIGHT + MS, 3, "c-1"))

    assert len(await normalized(storage, tmp_path)) == 2
    assert await normalized(storage, tmp_path, NEXT) == ["c-2 book 102 seq 3"]


async def test_a_day_without_handovers_has_no_parts() -> None:
    assert await read_parts(MemoryStorage(), RAW, FEED, DAY) == {}
