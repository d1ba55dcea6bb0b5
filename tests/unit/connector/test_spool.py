"""The write-ahead log: what was appended is read back, whatever a crash did to the end of the file."""

import errno
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


def test_a_kill_while_a_segment_is_removed_leaves_no_segment_without_its_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    segment = spool.begin(DAY)
    spool.end()
    spool.note(segment, "plan", b"{}")
    spool.note(segment, "stored", b"{}")
    unlink = Path.unlink
    gone: list[Path] = []

    def killed_after_one(path: Path, missing_ok: bool = False) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_after_one)
        with pytest.raises(KeyboardInterrupt):
            spool.remove(segment)

    assert gone == [segment.path]
    spool.close()


def test_notes_of_a_segment_that_is_gone_are_not_taken_for_those_of_its_number_s_next_bearer(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    segment = spool.begin(DAY)
    spool.end()
    spool.note(segment, "stored", b"{}")
    segment.path.unlink()
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)
    reused = again.begin(DAY)

    assert reused.number == segment.number
    assert again.read_note(reused, "stored") is None
    again.close()


def at(ns: int) -> bytes:
    return raw(b"a\nb\n", RawMeta("trades", "c-1", 2, 0, 1, ns, ns))


def test_after_the_clock_was_put_back_coverage_ends_at_the_last_frame_not_at_the_latest(tmp_path: Path) -> None:
    hour = 3_600_000_000_000
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(at(10 * hour))
    spool.append(at(9 * hour))
    spool.state.covered_ns = 10 * hour
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert again.covered()[0] == 9 * hour
    again.close()


def test_a_state_that_outlived_the_end_of_its_segment_does_not_count_as_coverage(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(at(1_000))
    spool.state.covered_ns = 1_500  # of a frame that a power cut took from the file
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert again.covered()[0] == 1_000
    again.close()


def test_after_a_drain_coverage_ends_when_it_was_said_to_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(at(1_000))
    spool.state.covered_ns, spool.state.clean = 5_000, True
    spool.close()

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert again.covered()[0] == 5_000
    again.close()


def test_a_disk_without_room_for_the_state_does_not_end_the_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.state.connection = "c-1"
    spool.save_state()

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        spool.state.connection = "c-2"
        spool.save_state()
    assert b"c-1" in (tmp_path / "kalshi" / "state.json").read_bytes()

    spool.save_state()
    assert b"c-2" in (tmp_path / "kalshi" / "state.json").read_bytes()
    spool.close()


def test_an_unreadable_state_is_as_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "kalshi", 1 << 20)
    spool.begin(DAY)
    spool.append(at(1_000))
    spool.close()
    (tmp_path / "kalshi" / "state.json").write_bytes(b"")

    again = Spool(tmp_path / "kalshi", 1 << 20)

    assert again.covered() == (1_000, "c-1")
    again.close()
