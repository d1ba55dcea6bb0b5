"""zstd frames: cut between chunks, the same every time, and never half believed."""

import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ssmd.archive.frames import MAX_FRAME_BYTES, Compressed, Decompressor, compress
from ssmd.errors import DataError


def decompress(data: bytes, step: int = 1 << 20) -> tuple[list[bytes], Compressed]:
    reader = Decompressor("bucket/key")
    contents = [content for i in range(0, len(data), step) for content in reader.feed(data[i : i + step])]
    reader.finish()
    return contents, reader.counted


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(1, 2000), st.integers(1, 500))
def test_what_went_in_comes_out_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], frame_bytes: int, step: int
) -> None:
    path = tmp_path_factory.mktemp("frames") / "x"

    made = compress(chunks, path, frame_bytes)

    contents, counted = decompress(path.read_bytes(), step)
    assert b"".join(contents) == b"".join(chunks)
    assert counted == made
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(len(content) <= max(frame_bytes, max(map(len, chunks))) for content in contents)


def test_frames_are_cut_between_chunks_and_stand_alone(tmp_path: Path) -> None:
    lines = [b"%06d %s\n" % (n, b"x" * 100) for n in range(1000)]

    made = compress(lines, tmp_path / "x", 10_000)

    contents, _ = decompress((tmp_path / "x").read_bytes())
    assert len(contents) == made.frames >= 10
    assert all(content.endswith(b"\n") for content in contents)


@pytest.mark.parametrize("step", [1000, 131_072, 1 << 20], ids=["crumbs", "blocks", "whole"])
def test_frames_of_many_blocks_are_put_together_from_any_pieces(tmp_path: Path, step: int) -> None:
    pick = random.Random(5)
    chunks = [pick.randbytes(700_000), bytes(900_000), b"abc" * 400_000, pick.randbytes(5)]

    made = compress(chunks, tmp_path / "x")

    contents, counted = decompress((tmp_path / "x").read_bytes(), step)
    assert b"".join(contents) == b"".join(chunks)
    assert counted == made
    assert made.frames == 4


def test_a_frame_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    head = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(1000))[:7]
    endless = Decompressor("bucket/key")
    block = (100_000 << 3).to_bytes(3, "little") + bytes(100_000)  # raw blocks, none of them the last

    endless.feed(head + block * 1300)
    with pytest.raises(DataError, match="longer than"):
        endless.feed(block * 50)


def test_the_same_chunks_give_the_same_bytes(tmp_path: Path) -> None:
    lines = [b"%d\n" % (n * n) for n in range(50_000)]

    first = compress(lines, tmp_path / "a", 100_000)
    second = compress(iter(lines), tmp_path / "b", 100_000)

    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_zstd_library_reads_the_file_as_any_other(tmp_path: Path) -> None:
    compress([b"one\n", b"two\n"], tmp_path / "x", 4)

    with (tmp_path / "x").open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        assert reader.read() == b"one\ntwo\n"


def test_compressing_takes_the_memory_of_a_frame(tmp_path: Path) -> None:
    chunk = b"x" * 65_536
    tracemalloc.start()
    compress((chunk for _ in range(800)), tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 << 20


def archived(tmp_path: Path) -> bytes:
    compress([b"%05d,%05d\n" % (n, n * 7919 % 99991) for n in range(3000)], tmp_path / "x", 10_000)
    return (tmp_path / "x").read_bytes()


def test_a_truncated_file_is_found_wherever_it_ends(tmp_path: Path) -> None:
    whole = archived(tmp_path)
    ends = {len(frame) for frame in _prefixes(whole)}

    for end in range(1, len(whole), 37):
        if end not in ends:
            with pytest.raises(DataError, match="bucket/key ends within zstd frame"):
                decompress(whole[:end])


def _prefixes(whole: bytes) -> list[bytes]:
    """The file up to each frame's end."""
    found, rest = [], whole
    while rest:
        reader = zstandard.ZstdDecompressor().decompressobj()
        reader.decompress(rest)
        rest = reader.unused_data
        found.append(whole[: len(whole) - len(rest)])
    return found


def test_a_flipped_bit_never_changes_the_content_unseen(tmp_path: Path) -> None:
    whole = archived(tmp_path)
    contents, counted = decompress(whole)
    harmless = 0

    for position in range(0, len(whole), 29):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        try:
            found, recounted = decompress(bytes(damaged))
        except DataError:
            continue
        harmless += 1  # zstd has bits that mean nothing; the sha256 sees those too
        assert found == contents
        assert recounted.sha256 != counted.sha256

    assert harmless < 10


def test_a_frame_that_claims_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(MAX_FRAME_BYTES + 1))

    with pytest.raises(DataError, match="64 MiB"):
        decompress(bomb)


def test_a_frame_that_hides_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)

    with pytest.raises(DataError, match="hides its size"):
        decompress(compressor.compress(b"content"))


def test_a_frame_without_checksum_is_refused() -> None:
    with pytest.raises(DataError, match="no checksum"):
        decompress(zstandard.ZstdCompressor(write_checksum=False).compress(b"content"))


@pytest.mark.parametrize("data", [b"hello", b"\x28", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\xff" * 9, bytes(20)])
def test_bytes_that_are_no_frames_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="bucket/key"):
        decompress(data)


def test_a_chunk_larger_than_a_frame_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="larger than an archive frame"):
        compress([bytes(MAX_FRAME_BYTES + 1)], tmp_path / "x")
