"""Group more than memory holds: small items by key, gathered in memory and spilled to one file in compressed pieces."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

SPILL_BYTES = 96 << 20
_LEVEL = 1
_ITEM_OVERHEAD = 50  # bytes that Python needs for a bytes object in a list


class Spill:
    """Items by key, given back key by key in the order they were added.

    `path` is a file of its own, removed on exit; reading is safe from several threads. Memory: `limit_bytes`, and an
    index of two numbers for each key and piece.
    """

    def __init__(self, path: Path, limit_bytes: int = SPILL_BYTES) -> None:
        self._path = path
        self._limit = limit_bytes
        self._file = -1
        self._end = 0
        self._held = 0
        self._items: dict[tuple[str, str], list[bytes]] = {}
        self._pieces: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)

    def add(self, key: tuple[str, str], item: bytes) -> None:
        """Add an item; now and then this writes to the file (OSError as the file system gives it)."""
        held = self._items.get(key)
        if held is None:
            self._items[key] = [item]
        else:
            held.append(item)
        self._held += len(item) + _ITEM_OVERHEAD
        if self._held >= self._limit:
            self._write()

    def sorted_keys(self) -> list[tuple[str, str]]:
        """All keys."""
        return sorted(self._items.keys() | self._pieces.keys())

    def blobs(self, key: tuple[str, str]) -> Iterator[bytes]:
        """The items of a key, joined to larger blobs (an item is never cut)."""
        context = zstandard.ZstdDecompressor()
        for offset, length in self._pieces.get(key, ()):
            yield context.decompress(os.pread(self._file, length, offset))
        if held := self._items.get(key):
            yield b"".join(held)

    def _write(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
        pieces = []
        for key, items in self._items.items():
            piece = compressor.compress(b"".join(items))
            self._pieces.setdefault(key, []).append((self._end, len(piece)))
            self._end += len(piece)
            pieces.append(piece)
        data = memoryview(b"".join(pieces))
        while data:
            data = data[os.write(self._file, data) :]
        self._items.clear()
        self._held = 0
