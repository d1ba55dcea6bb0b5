"""zstd frames: content in small independent frames with checksums, and a decompressor that trusts none of it.

A file is a sequence of frames of about 1 MiB of content, cut between lines or messages, so that one can be read alone
and damage stays local. The decompressor walks the frames' block headers itself: a truncated frame is an error (the
library's stream reader reports an end), and a frame may neither hide its size nor claim more than 64 MiB.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import zstandard

from ssmd.errors import DataError

LEVEL = 3
FRAME_BYTES = 1 << 20
MAX_FRAME_BYTES = 64 << 20
MAX_WINDOW_BYTES = 8 << 20

_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_HEADER = 18
_RLE_BLOCK = 1
_RESERVED_BLOCK = 3


class Compressed(msgspec.Struct, frozen=True):
    """A compressed file: sha256 and size of its bytes, its number of frames, the size of its content."""

    sha256: str
    bytes: int
    frames: int
    raw_bytes: int


def compress(chunks: Iterable[bytes], path: Path, frame_bytes: int = FRAME_BYTES) -> Compressed:
    """Write `chunks` (each one or more whole lines or messages) to `path` as zstd frames; synced to disk on return.

    The same chunks give the same bytes. Memory: a frame and a chunk. DataError for a chunk above 64 MiB; OSError as
    the file system gives it.
    """
    digest, size, frames, raw = hashlib.sha256(), 0, 0, 0
    with path.open("wb") as file:
        for content, frame in _frames(chunks, frame_bytes):
            digest.update(frame)
            file.write(frame)
            size, frames, raw = size + len(frame), frames + 1, raw + content
        file.flush()
        os.fsync(file.fileno())
    return Compressed(digest.hexdigest(), size, frames, raw)


def compress_lists(lists: Iterable[Sequence[bytes]], path: Path, frame_bytes: int = FRAME_BYTES) -> Compressed:
    """What `compress` makes of the lists' chunks, one after the other; for many small chunks it is faster."""
    return compress(_joined(lists, frame_bytes), path, frame_bytes)


def _joined(lists: Iterable[Sequence[bytes]], frame_bytes: int) -> Iterator[bytes]:
    """The contents of the frames that `compress` would cut: what one cannot take begins the next."""
    waiting: list[bytes] = []
    held = 0
    for chunks in lists:
        size = sum(map(len, chunks))
        if held + size <= frame_bytes:
            waiting += chunks
            held += size
            continue
        for chunk in chunks:
            if held and held + len(chunk) > frame_bytes:
                yield b"".join(waiting)
                waiting, held = [], 0
            waiting.append(chunk)
            held += len(chunk)
    if held:
        yield b"".join(waiting)


def _frames(chunks: Iterable[bytes], frame_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(content size, frame) of each frame."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    waiting: list[bytes] = []
    held = 0
    for chunk in chunks:
        if len(chunk) > MAX_FRAME_BYTES:
            raise DataError(
                f"a record of {len(chunk)} bytes is larger than an archive frame may be ({MAX_FRAME_BYTES})"
            )
        if held and held + len(chunk) > frame_bytes:
            yield held, compressor.compress(b"".join(waiting))
            waiting, held = [], 0
        waiting.append(chunk)
        held += len(chunk)
    if held:
        yield held, compressor.compress(b"".join(waiting))


class Decompressor:
    """Chunks of one compressed object in, contents of whole frames out; counts everything on the way.

    `name` is what errors call the object.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._scanned = 0  # where in the buffer the next block header is; 0: the frame header is still to be read
        self._trailer = 0
        self.bytes = 0
        self.frames = 0
        self.raw_bytes = 0

    @property
    def counted(self) -> Compressed:
        """What went through so far."""
        return Compressed(self._digest.hexdigest(), self.bytes, self.frames, self.raw_bytes)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The contents of the frames that `chunk` completed; DataError for bytes that are no such frames."""
        self._digest.update(chunk)
        self.bytes += len(chunk)
        self._buffer += chunk
        contents = []
        while (end := self._frame_end()) is not None:
            frame = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            contents.append(self._content(frame))
        return contents

    def finish(self) -> None:
        """The object has ended; DataError when it did so within a frame."""
        if self._buffer:
            raise DataError(f"{self._name} ends within zstd frame {self.frames}: it is truncated")

    def _content(self, frame: bytes) -> bytes:
        try:
            content = self._context.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DataError(f"{self._name}: zstd frame {self.frames} is damaged ({error})") from error
        self.frames += 1
        self.raw_bytes += len(content)
        return content

    def _frame_end(self) -> int | None:
        """Where the first frame in the buffer ends; None while that cannot be known yet."""
        buffer = self._buffer
        if not self._scanned and not self._frame_header():
            return None
        while True:
            if len(buffer) < self._scanned + 3:
                return None
            header = int.from_bytes(buffer[self._scanned : self._scanned + 3], "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            if kind == _RESERVED_BLOCK:
                raise DataError(f"{self._name}: zstd frame {self.frames} is damaged (reserved block type)")
            after = self._scanned + 3 + (1 if kind == _RLE_BLOCK else size)
            if last:
                end = after + self._trailer
                return end if len(buffer) >= end else None
            if after > MAX_FRAME_BYTES * 2:
                raise DataError(f"{self._name}: zstd frame {self.frames} is longer than {MAX_FRAME_BYTES * 2} bytes")
            if len(buffer) < after:
                return None
            self._scanned = after

    def _frame_header(self) -> bool:
        """Read the frame header at the buffer's start; False while it is incomplete."""
        head = bytes(self._buffer[:_MAX_HEADER])
        if not _MAGIC.startswith(head[:4]):
            raise DataError(f"{self._name}: there is no zstd frame where frame {self.frames} should begin")
        try:
            if len(head) < 5 or len(head) < zstandard.frame_header_size(head):
                return False
            parameters = zstandard.get_frame_parameters(head)
            length = zstandard.frame_header_size(head)
        except zstandard.ZstdError as error:
            raise DataError(f"{self._name}: zstd frame {self.frames} has a damaged header ({error})") from error
        size = parameters.content_size
        if size > MAX_FRAME_BYTES:
            raise DataError(
                f"{self._name}: zstd frame {self.frames} hides its size or claims more than 64 MiB ({size})"
            )
        if not parameters.has_checksum:
            raise DataError(f"{self._name}: zstd frame {self.frames} has no checksum")
        self._scanned = length
        self._trailer = 4
        return True
