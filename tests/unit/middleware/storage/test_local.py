"""The local storage: what a crash leaves, and what each trouble with the disk is called."""

import errno
import os
import time
from pathlib import Path

import pytest

from ssmd.middleware.storage import local
from ssmd.middleware.storage.interface import StorageUnavailable
from ssmd.middleware.storage.local import LocalStorage


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize(
    ("number", "said", "fix"),
    [
        (errno.ENOSPC, "is full", "df -h"),
        (errno.EDQUOT, "is full", "df -h"),
        (errno.EACCES, "no permission", "chown"),
        (errno.EROFS, "read-only", "mount"),
        (errno.EIO, "Input/output error", "Check the disk"),
    ],
    ids=["full", "quota", "permission", "read-only", "broken"],
)
async def test_a_failing_disk_is_named_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, fix: str
) -> None:
    storage = LocalStorage(tmp_path)
    await storage.put_once("bucket", "day/old", b"old")
    refuse(monkeypatch, "fsync", number)

    with pytest.raises(StorageUnavailable, match=said) as caught:
        await storage.put_once("bucket", "day/new", b"new")

    assert str(tmp_path) in caught.value.message
    assert fix in caught.value.hint
    assert await storage.get("bucket", "day/old") == b"old"
    assert not list((tmp_path / ".tmp").iterdir())


async def test_a_failed_write_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    with monkeypatch.context() as broken:
        refuse(broken, "link", errno.ENOSPC)
        with pytest.raises(StorageUnavailable):
            await storage.put_once("bucket", "k", b"v")
    assert await storage.list("bucket", "") == []

    assert await storage.put_once("bucket", "k", b"v")

    assert await storage.get("bucket", "k") == b"v"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOTSUP], ids=["two mounts", "no hard links"])
async def test_ping_finds_a_file_system_that_cannot_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, "link", number)

    with pytest.raises(StorageUnavailable, match="one file system"):
        await LocalStorage(tmp_path).ping()


async def test_a_root_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")

    with pytest.raises(StorageUnavailable):
        await LocalStorage(tmp_path / "root").ping()


async def test_what_a_killed_process_left_is_never_listed_and_swept_an_hour_later(tmp_path: Path) -> None:
    aside = tmp_path / ".tmp"
    aside.mkdir()
    old, young = aside / "1-dead", aside / "2-writing"
    for leftover in (old, young):
        leftover.write_bytes(b"half an obj")
    then = time.time() - 3_660
    os.utime(old, (then, then))
    storage = LocalStorage(tmp_path)

    await storage.put_once("bucket", "k", b"v")

    assert [entry.key for entry in await storage.list("bucket", "")] == ["k"]
    assert not old.exists()
    assert young.exists()

    os.utime(young, (then, then))
    await LocalStorage(tmp_path).put_once("bucket", "k", b"v")  # it is there: nothing is written, and yet swept
    assert not young.exists()


async def test_a_sweep_looks_at_so_many_leftovers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MAX_SWEPT", 10)
    then = time.time() - 3_660
    for n in range(25):
        (tmp_path / ".tmp").mkdir(exist_ok=True)
        (tmp_path / ".tmp" / str(n)).write_bytes(b"")
        os.utime(tmp_path / ".tmp" / str(n), (then, then))

    await LocalStorage(tmp_path).put_once("bucket", "k", b"v")

    assert len(list((tmp_path / ".tmp").iterdir())) == 15


async def test_a_bucket_that_is_a_file_is_unavailable_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_bytes(b"x")
    storage = LocalStorage(tmp_path)

    assert await storage.list("other", "") == []
    for prefix in ("", "kalshi/2026/", "k"):
        with pytest.raises(StorageUnavailable, match="a file is where a folder must be"):
            await storage.list("bucket", prefix)


async def test_an_object_is_the_file_that_its_key_says(tmp_path: Path) -> None:
    await LocalStorage(tmp_path).put_once("ssmd-raw", "kalshi/2026/11/22/trades-00.jsonl.zst", b"x")

    assert (tmp_path / "ssmd-raw/kalshi/2026/11/22/trades-00.jsonl.zst").read_bytes() == b"x"
