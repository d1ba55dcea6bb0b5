"""Objects as files `{root}/{bucket}/{key}`: written aside, synced, then linked into place, so that they appear whole.

A crash leaves at most a file in `{root}/.tmp`, which no listing shows and which writers sweep an hour
later. A key segment longer than a file name may be (an encoded ticker can have 384 characters) is split into nested
folders whose names end in `~`; `list` joins them again.
"""

import asyncio
import errno
import math
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing, StorageUnavailable
from ssmd.middleware.storage.keys import check_bucket, check_key, check_prefix

CHUNK_BYTES = 1 << 20
SEGMENT_CHARS = 240
LEFTOVER_S = 3_600
MAX_SWEPT = 10_000
"""Leftovers looked at each time: the write behind it must not wait for more."""
_TEMPORARY = ".tmp"

P = ParamSpec("P")
T = TypeVar("T")


class LocalStorage:
    """A folder on one file system (`.tmp` and the buckets must not be different mounts)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / _TEMPORARY
        self._swept_s = -math.inf

    async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """See `Storage.put_once`."""
        return await self._work(f"writing {bucket}/{key}", self._put, self._path(bucket, key), data, False)

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        """See `Storage.replace`."""
        await self._work(f"writing {bucket}/{key}", self._put, self._path(bucket, key), data, True)

    async def get(self, bucket: str, key: str) -> bytes:
        """See `Storage.get`."""
        return await self._work(f"reading {bucket}/{key}", self._path(bucket, key).read_bytes)

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """See `Storage.stream`."""
        doing = f"reading {bucket}/{key}"
        path = self._path(bucket, key)
        file = await self._work(doing, lambda: path.open("rb", buffering=0))
        try:
            while chunk := await self._work(doing, file.read, CHUNK_BYTES):
                yield chunk
        finally:
            file.close()

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        """See `Storage.list`."""
        check_bucket(bucket)
        check_prefix(prefix)
        return await self._work(f"listing {bucket}/{prefix}", _find, self._root / bucket, prefix)

    async def delete(self, bucket: str, key: str) -> None:
        """See `Storage.delete`."""
        await self._work(f"deleting {bucket}/{key}", _delete, self._path(bucket, key))

    async def ping(self) -> None:
        """Write, sync, link and remove a small file; StorageUnavailable when any of it fails."""
        await self._work("writing a test file", self._probe)

    async def close(self) -> None:
        """Nothing stays open between calls."""

    def _path(self, bucket: str, key: str) -> Path:
        return self._root / check_bucket(bucket) / "/".join(_segments(check_key(key)))

    async def _work(self, doing: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if doing.startswith("reading"):
                raise ObjectMissing(f"there is no object {doing.removeprefix('reading ')} in {self._root}") from error
            raise self._unavailable(doing, error) from error
        except OSError as error:
            raise self._unavailable(doing, error) from error

    def _unavailable(self, doing: str, error: OSError) -> StorageUnavailable:
        root = self._root
        place = "or set spec.middleware.storage.path to another folder"
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return StorageUnavailable(
                    f"storage {root} is full: {doing} failed", f"Free space (df -h {root}) {place}."
                )
            case errno.EACCES | errno.EPERM:
                return StorageUnavailable(
                    f"no permission in storage {root}: {doing} failed ({error})",
                    f'Run: sudo chown -R "$(id -un)" {root}   {place}.',
                )
            case errno.ENOTDIR:
                return StorageUnavailable(
                    f"in storage {root} a file is where a folder must be: {doing} failed ({error})",
                    f"Move it away (ls -ld {root}/*), restore the folder, {place}.",
                )
            case errno.EROFS:
                return StorageUnavailable(
                    f"storage {root} is on a read-only file system: {doing} failed",
                    f"Remount it writable (mount | grep {root}) {place}.",
                )
            case errno.EXDEV | errno.ENOTSUP | errno.EMLINK:
                return StorageUnavailable(
                    f"storage {root} cannot hard-link from {self._temporary} into its buckets: {doing} failed",
                    f"Keep the whole of {root} on one file system that has hard links (ext4, xfs, zfs, btrfs) {place}.",
                )
            case _:
                return StorageUnavailable(
                    f"storage {root}: {doing} failed ({error})",
                    f"Check the disk and the folder (ls -ld {root}) {place}.",
                )

    def _put(self, target: Path, data: bytes | Path, overwrite: bool) -> bool:
        self._sweep_now_and_then()
        if not overwrite and target.exists():
            return False
        aside = self._write_aside(data)
        try:
            _make_folders(target.parent)
            if overwrite:
                os.replace(aside, target)
            else:
                try:
                    os.link(aside, target)
                except FileExistsError:
                    return False
            _sync_folder(target.parent)
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _write_aside(self, data: bytes | Path) -> Path:
        self._sweep_now_and_then()
        aside = self._temporary / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            with aside.open("xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, CHUNK_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return aside

    def _sweep_now_and_then(self) -> None:
        _make_folders(self._temporary)
        if time.monotonic() - self._swept_s > LEFTOVER_S:
            self._swept_s = time.monotonic()
            self._sweep()

    def _sweep(self) -> None:
        """Remove what a killed process left aside more than an hour ago; nobody can be writing it any more."""
        for leftover in islice(self._temporary.iterdir(), MAX_SWEPT):
            try:
                if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                    leftover.unlink()
            except FileNotFoundError:
                continue  # another process sweeps too

    def _probe(self) -> None:
        aside = self._write_aside(b"ping\n")
        linked = aside.with_name(aside.name + "-linked")
        try:
            os.link(aside, linked)
            linked.unlink()
            _sync_folder(self._temporary)
        finally:
            aside.unlink(missing_ok=True)


def _find(base: Path, prefix: str) -> list[ObjectInfo]:
    """What is listed; NotADirectoryError when the bucket is no folder (one that is not there yet is empty)."""
    if base.exists() and not base.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(base))
    folder = prefix.rpartition("/")[0]
    start = base / "/".join(_segments(folder)) if folder else base
    return sorted(found for found in _walk(start, folder) if found.key.startswith(prefix))


def _segments(key: str) -> Iterator[str]:
    for segment in key.split("/"):
        rest = segment
        while len(rest) > SEGMENT_CHARS:
            yield rest[:SEGMENT_CHARS] + "~"
            rest = rest[SEGMENT_CHARS:]
        yield rest


def _walk(folder: Path, key: str) -> Iterator[ObjectInfo]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = f"{key[:-1]}{entry.name}" if key.endswith("~") else f"{key}/{entry.name}" if key else entry.name
        if entry.is_dir():
            yield from _walk(folder / entry.name, name)
        else:
            try:
                yield ObjectInfo(name, entry.stat().st_size)
            except FileNotFoundError:
                continue  # deleted since the folder was read


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    _sync_folder(path.parent)


def _make_folders(folder: Path) -> None:
    """Make `folder` and its parents; each new one is durable in the one above it."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
