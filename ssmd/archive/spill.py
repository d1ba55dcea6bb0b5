"""Group more than memory holds: small items by key, gathered in memory and spilled to one file in compressed pieces."""

import os
from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

SPILL_BYTES = 96 << 20
_LEVEL = 1
_ITEM_OVERHEAD = 50  # bytes that Python needs for a bytes object in a list
_LENGTH_BYTES = array("I").itemsize


class Spill:
    """Items by key, given back key by key in the order they were added.

    `path` is a file of its own, never seen in its folder; reading is safe from several threads. Memory: `limit_bytes`,
    and an empty list and three numbers for each key and piece.
    """

    def __init__(self, path: Path, limit_bytes: int = SPILL_BYTES) -> None:
        self._path = path
        self._limit = limit_bytes
        self._file = -1
        self._end = 0
        self._held = 0
        self._items: dict[tuple[str, str], list[bytes]] = {}
        self._pieces: dict[tuple[str, str], list[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._path.unlink()  # the space is free again with the process, however it ends
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(self, key: tuple[str, str], item: bytes) -> None:
        """Add an item; now and then this writes to the file (OSError as the file system gives it)."""
        self.taker(key).append(item)
        self.grown(1, len(item))

    def taker(self, key: tuple[str, str]) -> list[bytes]:
        """The list to append a key's items to, for those who add many; it stays the same one. `grown` must be told."""
        held = self._items.get(key)
        if held is None:
            held = self._items[key] = []
        return held

    def grown(self, items: int, size: int) -> None:
        """That many items of that many bytes in all were appended; now and then this writes, as `add` does."""
        self._held += size + items * _ITEM_OVERHEAD
        if self._held >= self._limit:
            self._write()

    def sorted_keys(self) -> list[tuple[str, str]]:
        """All keys that have items."""
        return sorted({key for key, held in self._items.items() if held} | self._pieces.keys())

    def counts(self) -> dict[str, int]:
        """Items by the first part of their key."""
        found: dict[str, int] = {}
        for (kind, _), pieces in self._pieces.items():
            found[kind] = found.get(kind, 0) + sum(count for _, _, count in pieces)
        for (kind, _), held in self._items.items():
            found[kind] = found.get(kind, 0) + len(held)
        return found

    def lists(self, key: tuple[str, str]) -> Iterator[list[bytes]]:
        """The items of a key, some at a time."""
        context = zstandard.ZstdDecompressor()
        for offset, length, count in self._pieces.get(key, ()):
            piece = context.decompress(os.pread(self._file, length, offset))
            sizes = array("I", piece[: count * _LENGTH_BYTES])
            ends = accumulate(sizes, initial=count * _LENGTH_BYTES)
            yield [piece[start:end] for start, end in pairwise(ends)]
        if held := self._items.get(key):
            yield held

    def _write(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
        pieces = []
        for key, items in self._items.items():
            if not items:
                continue
            piece = compressor.compress(array("I", map(len, items)).tobytes() + b"".join(items))
            self._pieces.setdefault(key, []).append((self._end, len(piece), len(items)))
            self._end += len(piece)
            pieces.append(piece)
            items.clear()
        data = memoryview(b"".join(pieces))
        while data:
            data = data[os.write(self._file, data) :]
        self._held = 0
