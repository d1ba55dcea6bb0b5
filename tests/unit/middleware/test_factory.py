"""Every kind that an environment file can name is opened, with its credentials, and closed with the stack."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, get_args

import pytest

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError
from ssmd.middleware import factory

KEYS = {
    "$key:broker": {"username": "me@x", "password": "p/w", "url": "nats://10.0.0.1:4222"},
    "$key:half": {"username": "me"},
    "$key:optional": {},
    "$key:store": {"access_key": "a", "secret_key": "s"},
}


class GivenSecrets:
    """The secrets above."""

    def text(self, value: str) -> str:
        return KEYS[value]["url"] if value in KEYS else value

    def fields(self, reference: str) -> Mapping[str, str]:
        return KEYS[reference]


SECRETS = GivenSecrets()

TRANSPORTS: list[Any] = [
    kinds.NatsTransport(type="nats", url="nats://127.0.0.1:4222"),
    kinds.MemoryTransport(type="memory"),
]
STORAGES: list[Any] = [
    kinds.S3Storage(type="s3", endpoint="http://127.0.0.1:8333", credentials="$key:store"),
    kinds.LocalStorage(type="local", path="storage"),
    kinds.MemoryStorage(type="memory"),
]
JOURNALS: list[Any] = [
    kinds.NatsJournal(type="nats", url="nats://127.0.0.1:4222", credentials="$key:broker"),
    kinds.FileJournal(type="file", path="journal"),
    kinds.MemoryJournal(type="memory"),
]


def kind_names(union: Any) -> set[str]:
    return {kind.__name__ for kind in get_args(get_args(union)[0])}


@pytest.mark.parametrize("config", TRANSPORTS, ids=lambda config: config.type)
async def test_every_transport_is_opened(config: kinds.Transport) -> None:
    async with AsyncExitStack() as stack:
        transport = factory.open_transport(config, SECRETS, stack)

        assert type(transport).__name__ == type(config).__name__


@pytest.mark.parametrize("config", STORAGES, ids=lambda config: config.type)
async def test_every_storage_is_opened(config: kinds.Storage, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        storage = factory.open_storage(config, SECRETS, tmp_path, stack)

        assert type(storage).__name__ == type(config).__name__


@pytest.mark.parametrize("config", JOURNALS, ids=lambda config: config.type)
async def test_every_journal_is_opened(config: kinds.Journal, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        journal = factory.open_journal(config, SECRETS, tmp_path, stack)

        assert type(journal).__name__ == type(config).__name__


async def test_a_relative_journal_path_is_meant_below_the_home(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        journal = factory.open_journal(kinds.FileJournal(type="file", path="journal"), SECRETS, tmp_path, stack)
        await journal.create_topic("a.b")

    assert (tmp_path / "journal" / "a.b.jsonl").read_bytes() == b""


def test_no_kind_is_forgotten_above() -> None:
    assert {type(config).__name__ for config in JOURNALS} == kind_names(kinds.Journal)
    assert {type(config).__name__ for config in TRANSPORTS} == kind_names(kinds.Transport)
    assert {type(config).__name__ for config in STORAGES} == kind_names(kinds.Storage)


async def test_a_relative_storage_path_is_meant_below_the_home(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        storage = factory.open_storage(kinds.LocalStorage(type="local", path="storage"), SECRETS, tmp_path, stack)
        await storage.put_once("ssmd-raw", "a/b", b"x")

    assert (tmp_path / "storage" / "ssmd-raw" / "a" / "b").read_bytes() == b"x"


def test_user_and_password_stand_in_the_url_escaped() -> None:
    config = kinds.NatsTransport(type="nats", url="$key:broker", credentials="$key:broker")

    assert factory.nats_url(config, SECRETS) == "nats://me%40x:p%2Fw@10.0.0.1:4222"


def test_an_optional_key_without_a_value_is_not_used() -> None:
    config = kinds.NatsTransport(type="nats", url="nats://127.0.0.1:4222", credentials="$key:optional")

    assert factory.nats_url(config, SECRETS) == "nats://127.0.0.1:4222"


def test_a_missing_password_is_named() -> None:
    config = kinds.NatsTransport(type="nats", url="nats://127.0.0.1:4222", credentials="$key:half")

    with pytest.raises(ConfigError, match="has no value for password"):
        factory.nats_url(config, SECRETS)
