"""The write-ahead log: what was appended is read back, whatever a crash did to the end of the file."""

from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.connector.spool import (
    GAP,
    OUT,
    RAW,
    Position,
    RawMeta,
    Spool,
    SpoolFull,
    pack,
    pack_messages,
    read_entries,
    unpack_messages,
)
from ssmd.errors import ConfigError
from ssmd.market.events import Gap
from ssmd.middleware.transport.interface import Outgoing

DAY = date(2026, 11, 22)
META = RawMeta("trades", "c-1", 2, 0, 1, 1_000, 2_000)


def raw(body: bytes, meta: RawMeta = META) -> bytes:
    return pack(RAW, msgspec.json.encode(meta), body)


@given(
    bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=8),
    cut=st.integers(min_value=0, max_value=10_000),
)
def test_a_file_cut_anywhere_gives_a_prefix_of_its_entries(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("spool") / "x.spool"
    whole = b"".join(raw(body) for body in bodies)
    path.write_bytes(whole[: min(cut, len(whole))])

    got = [bytes(entry.body) for entry in read_entries(path)]

    assert got == bodies[: len(got)]
    if cut >= len(whole):
        assert got == bodies


@given(data=st.data())
def test_a_flipped_bit_ends_the_reading_before_the_damaged_entry(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bodies = [b"first entry", b"second entry", b"third"]
    path = tmp_path_factory.mktemp("spool") / "x.spool"
    whole = bytearray(b"".join(raw(body) for body in bodies))
    size = len(raw(bodies[0]))
    at = data.draw(st.integers(size, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(whole))

    got = [bytes(entry.body) for entry in read_entries(path)]

    # the kind stands outside the checksum: a flip there makes an entry nobody asks for, never a wrong body
    assert all(body in bodies for body in got)
    assert got[0] == bodies[0]


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=300)), max_size=20))
def test_messages_survive_packing(items: list[tuple[bytes, bytes, bytes]]) -> None:
    messages = [Outgoing(*item) for item in items]

    assert unpack_messages(memoryview(pack_messages(messages))) == messages


def test_a_new_process_finds_segments_state_and_how_far_the_last_one_came(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(raw(b"a\nb\n"))
    spool.append(raw(b"c\n", RawMeta("orderbook", "c-1", 1, 2, 2, 5_000, 5_000)))
    spool.append(pack(OUT, b"", pack_messages([Outgoing(b"s", b"i", b"p")])))
    spool.state.published = Position(1, 7)
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert [segment.number for segment in again.leftovers] == [1]
    assert again.covered() == (5_000, "c-1")
    assert again.state.published == Position(1, 7)
    assert again.begin(DAY).number == 2
    again.close()


def test_a_recorded_gap_counts_as_covered_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(raw(b"a\nb\n"))
    spool.append(pack(GAP, b"", msgspec.json.encode(Gap("kalshi", "c-1", None, 2_000, 9_000, "silence"))))
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert again.covered()[0] == 9_000
    again.close()


def test_a_full_spool_keeps_nothing_of_the_append_that_did_not_fit(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 500)
    segment = spool.begin(DAY)
    first = raw(b"x" * 50)
    spool.append(first)

    with pytest.raises(SpoolFull):
        spool.append(raw(b"y" * 400))

    assert segment.path.read_bytes() == first
    spool.append(raw(b"z"))
    assert [bytes(entry.body) for entry in read_entries(segment.path)] == [b"x" * 50, b"z"]
    spool.close()


def test_two_connectors_cannot_share_a_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)

    with pytest.raises(ConfigError, match="in use by another connector"):
        Spool(tmp_path / "kalshi", 1 << 20)

    spool.close()
    Spool(tmp_path / "kalshi", 1 << 20).close()


def test_removed_segments_leave_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    segment = spool.begin(DAY)
    spool.append(raw(b"a"))
    spool.end()
    spool.note(segment, "plan", b"{}")
    assert spool.read_note(segment, "plan") == b"{}"

    spool.remove(segment)

    assert spool.closed_bytes == 0
    assert sorted(path.name for path in (tmp_path / "kalshi").iterdir()) == ["lock"]
    spool.close()
