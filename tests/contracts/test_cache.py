"""One suite for every cache: what is kept, for how long, and counters; then what each promises on its own."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError, DataError
from ssmd.middleware.cache.interface import Cache, CacheUnavailable
from ssmd.middleware.cache.memory import ENTRY_BYTES, MemoryCache
from ssmd.middleware.cache.none import NoCache
from ssmd.middleware.cache.redis import TIMEOUT_S, RedisCache
from ssmd.middleware.factory import open_cache
from tests.servers import free_port
from tests.valkey import PASSWORD, ValkeyServer, valkey_server

HOSTILE_KEYS = [
    "", " ", "a b\r\nFLUSHALL\r\n", "*", "\x00", "日本", "'; DROP TABLE", "\udcff", "k" * 10_000, "../../x", "a:b",
]  # fmt: skip
MS = 1_000_000


class Secrets:
    """A key `$key:redis` whose password can be changed."""

    def __init__(self, password: str = PASSWORD) -> None:
        self.password = password

    def text(self, value: str) -> str:
        return value

    def fields(self, reference: str) -> Mapping[str, str]:
        assert reference == "$key:redis"
        return {"password": self.password} if self.password else {}


def redis_at(url: str, environment: str = "test", secrets: Secrets | None = None, **more: Any) -> RedisCache:
    config = kinds.RedisCache(type="redis", url=url, credentials="$key:redis", **more)
    return RedisCache(config, secrets or Secrets(), environment)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


async def opened(kind: str, request: pytest.FixtureRequest) -> Cache:
    match kind:
        case "memory":
            return MemoryCache(1 << 20)
        case "none":
            return NoCache()
        case _:
            return redis_at(request.getfixturevalue("valkey").url, request.node.name)


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    """A cache that keeps something."""
    found = await opened(request.param, request)
    yield found
    await found.close()


@pytest.fixture(params=["memory", "redis", "none"])
async def any_cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    found = await opened(request.param, request)
    yield found
    await found.close()


# -- every cache ---------------------------------------------------------------------------------------------------


async def test_what_was_never_kept_is_none(any_cache: Cache) -> None:
    assert await any_cache.get("never") is None
    assert await any_cache.get_many(["never", "ever"]) == [None, None]
    assert await any_cache.get_many([]) == []
    await any_cache.delete("never")


async def test_a_time_to_live_that_is_not_above_zero_is_refused(any_cache: Cache) -> None:
    for ttl_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="time to live"):
            await any_cache.set("k", b"v", ttl_s)
        with pytest.raises(ValueError, match="time to live"):
            await any_cache.set_if_absent("k", b"v", ttl_s)
    assert await any_cache.get("k") is None


async def test_the_first_one_gets_what_nobody_has_and_the_first_count_is_one(any_cache: Cache) -> None:
    assert await any_cache.set_if_absent("lock", b"mine", 10) is True
    assert await any_cache.increment("count") == 1


async def test_what_is_kept_is_read_byte_for_byte_whatever_its_name(cache: Cache) -> None:
    value = bytes(range(256)) * 40
    for n, key in enumerate(HOSTILE_KEYS):
        await cache.set(key, value + b"%d" % n)

    assert await cache.get_many(HOSTILE_KEYS) == [value + b"%d" % n for n in range(len(HOSTILE_KEYS))]
    assert [await cache.get(key) for key in HOSTILE_KEYS] == await cache.get_many(HOSTILE_KEYS)
    for key in HOSTILE_KEYS:
        await cache.delete(key)
        assert await cache.get(key) is None


async def test_the_last_value_counts_and_an_empty_one_is_a_value(cache: Cache) -> None:
    await cache.set("k", b"first", 0.05)
    await cache.set("k", b"")

    await asyncio.sleep(0.08)

    assert await cache.get("k") == b""


async def test_a_value_ends_with_its_time(cache: Cache) -> None:
    await cache.set("short", b"v", 0.06)
    await cache.set("long", b"v", 60)

    assert await cache.get("short") == b"v"
    await asyncio.sleep(0.09)

    assert await cache.get_many(["short", "long"]) == [None, b"v"]
    assert await cache.set_if_absent("short", b"again") is True


async def test_only_one_of_many_gets_what_nobody_has(cache: Cache) -> None:
    kept = await asyncio.gather(*(cache.set_if_absent("lock", b"%d" % n, 10) for n in range(20)))

    assert kept.count(True) == 1
    assert await cache.get("lock") == b"%d" % kept.index(True)


async def test_a_counter_counts_each_and_keeps_its_end(cache: Cache) -> None:
    assert sorted(await asyncio.gather(*(cache.increment("n") for _ in range(20)))) == list(range(1, 21))
    assert await cache.get("n") == b"20"
    await cache.set("ending", b"-3", 0.08)
    assert await cache.increment("ending") == -2

    await asyncio.sleep(0.1)

    assert await cache.increment("ending") == 1


@pytest.mark.parametrize("value", [b"", b"x", b"1.5", b" 1", b"+1", b"01", b"-0", b"9223372036854775807", b"9" * 30])
async def test_what_is_no_count_is_not_counted_on(cache: Cache, value: bytes) -> None:
    await cache.set("n", value)

    with pytest.raises(DataError, match="number"):
        await cache.increment("n")

    assert await cache.get("n") == value


# -- a dictionary as the model -------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "", "ü", "\udc80"])
VALUES = st.sampled_from([b"", b"0", b"41", b"-1", b"x", b"9223372036854775806"]) | st.binary(max_size=20)


class CacheMachine(RuleBasedStateMachine):
    """Whatever is asked in whatever order, a cache answers as a dictionary would."""

    url = ""
    runs = 0

    @initialize()
    def open(self) -> None:
        CacheMachine.runs += 1
        self.loop = asyncio.new_event_loop()
        self.now = 0
        self.model: dict[str, tuple[bytes, int | None]] = {}
        self.cache: Cache = (
            redis_at(self.url, f"run-{self.runs}") if self.url else MemoryCache(1 << 20, lambda: self.now * MS)
        )

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.cache.close())
            self.loop.close()

    def do(self, asked: Any) -> Any:
        return self.loop.run_until_complete(asked)

    def known(self, key: str) -> bytes | None:
        value, end = self.model.get(key, (None, None))
        return None if end is not None and self.now >= end else value

    @rule(key=KEYS, value=VALUES, ttl_ms=st.none() | st.integers(1, 5_000))
    def set(self, key: str, value: bytes, ttl_ms: int | None) -> None:
        ttl_ms = None if self.url else ttl_ms
        self.do(self.cache.set(key, value, None if ttl_ms is None else ttl_ms / 1_000))
        self.model[key] = value, None if ttl_ms is None else self.now + ttl_ms

    @rule(key=KEYS, value=VALUES)
    def set_if_absent(self, key: str, value: bytes) -> None:
        absent = self.known(key) is None
        assert self.do(self.cache.set_if_absent(key, value)) is absent
        if absent:
            self.model[key] = value, None

    @rule(key=KEYS)
    def increment(self, key: str) -> None:
        value = self.known(key)
        try:
            count = int(value or b"0")
            if (value is not None and b"%d" % count != value) or count >= 2**63 - 1:
                raise ValueError
        except ValueError:
            with pytest.raises(DataError):
                self.do(self.cache.increment(key))
            return
        assert self.do(self.cache.increment(key)) == count + 1
        self.model[key] = b"%d" % (count + 1), None if value is None else self.model[key][1]

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.do(self.cache.delete(key))
        self.model.pop(key, None)

    @precondition(lambda self: not self.url)
    @rule(ms=st.integers(1, 3_000))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule(keys=st.lists(KEYS, max_size=6))
    def get_many(self, keys: list[str]) -> None:
        assert self.do(self.cache.get_many(keys)) == [self.known(key) for key in keys]

    @invariant()
    def each_is_as_known(self) -> None:
        if hasattr(self, "cache"):
            assert {key: self.do(self.cache.get(key)) for key in self.model} == {k: self.known(k) for k in self.model}


def test_the_memory_cache_is_a_dictionary_with_an_end() -> None:
    run_state_machine_as_test(CacheMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


def test_a_server_is_the_same_dictionary(valkey: ValkeyServer) -> None:
    machine = type("ServerMachine", (CacheMachine,), {"url": valkey.url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


# -- memory --------------------------------------------------------------------------------------------------------


async def test_memory_is_bounded_and_what_was_not_used_for_longest_goes_first() -> None:
    size = ENTRY_BYTES + 4 * len("k0") + 1_000
    cache = MemoryCache(3 * size)
    for n in range(3):
        await cache.set(f"k{n}", bytes(1_000))
    assert await cache.get("k0") is not None  # used: k1 is next

    await cache.set("k3", bytes(1_000))

    assert [await cache.get(f"k{n}") is not None for n in range(4)] == [True, False, True, True]
    assert cache.bytes == 3 * size <= cache.max_bytes


async def test_memory_counts_what_is_replaced_ended_or_deleted_no_longer() -> None:
    now = [0]
    cache = MemoryCache(1 << 20, lambda: now[0])
    for value in (bytes(10_000), b"small", bytes(5_000)):
        await cache.set("k", value, 1)
    assert cache.bytes == ENTRY_BYTES + 4 + 5_000
    now[0] = 10**9
    assert await cache.get("k") is None
    assert cache.bytes == 0
    await cache.set("k", b"v")
    await cache.delete("k")
    assert cache.bytes == 0


async def test_memory_does_not_keep_what_is_larger_than_itself_nor_what_was_there_before_it() -> None:
    cache = MemoryCache(2_000)
    await cache.set("small", b"v")
    await cache.set("k", b"old")

    await cache.set("k", bytes(3_000))

    assert await cache.get("k") is None
    assert await cache.get("small") == b"v"


# -- a server ------------------------------------------------------------------------------------------------------


async def test_environments_do_not_see_each_others_values(valkey: ValkeyServer) -> None:
    one, other = redis_at(valkey.url, "one"), redis_at(valkey.url, "other")
    raw = redis_at(valkey.url, "one")
    try:
        await one.set("k", b"of one", 60)
        assert await other.get("k") is None
        assert await raw._client.keys("ssmd:one:*") == [b"ssmd:one:k"]
        assert 59_000 < await raw._client.pttl("ssmd:one:k") <= 60_000
    finally:
        for cache in (one, other, raw):
            await cache.close()


async def test_a_server_that_is_not_there_is_unavailable_at_once_and_shows_no_password() -> None:
    cache = RedisCache(
        kinds.RedisCache(type="redis", url=f"redis://me:{PASSWORD}@127.0.0.1:{free_port()}"), Secrets(), "test"
    )
    began = time.monotonic()
    for asked in (
        cache.get("k"), cache.get_many(["k"]), cache.set("k", b"v"), cache.set_if_absent("k", b"v"),
        cache.increment("k"), cache.delete("k"),
    ):  # fmt: skip
        with pytest.raises(CacheUnavailable, match=r"the cache at redis://127\.0\.0\.1:\d+ is away") as caught:
            await asked
        assert PASSWORD not in str(caught.value)
    await cache.close()
    assert time.monotonic() - began < 2


async def test_a_server_that_hangs_costs_the_time_out_and_is_used_again_when_it_goes_on(tmp_path: Path) -> None:
    with valkey_server(tmp_path) as server:
        cache = redis_at(server.url, max_connections=3)
        await cache.set("k", b"before")
        pid = int((await cache._client.info("server"))["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            answers = await asyncio.gather(*(cache.get("k") for _ in range(12)), return_exceptions=True)
            took = time.monotonic() - began
        finally:
            os.kill(pid, signal.SIGCONT)

        assert all(isinstance(answer, CacheUnavailable) for answer in answers)
        assert took < TIMEOUT_S + 1
        async with asyncio.timeout(10):
            while True:
                try:
                    # never the answer to another question, which one that was given up would leave in its connection
                    assert await cache.get("absent") is None
                    assert await cache.get("k") == b"before"
                    break
                except CacheUnavailable:
                    await asyncio.sleep(0.02)
        await cache.close()


async def test_a_wrong_password_is_unavailable_and_a_rotated_one_is_used_without_a_restart(
    valkey: ValkeyServer,
) -> None:
    secrets = Secrets("wrong-horse")
    cache = redis_at(valkey.url, secrets=secrets)

    with pytest.raises(CacheUnavailable) as caught:
        await cache.get("k")
    secrets.password = PASSWORD

    assert await cache.get("k") is None
    assert "wrong-horse" not in str(caught.value)
    await cache.close()


async def test_a_key_that_cannot_be_read_any_more_is_a_cache_that_is_away(valkey: ValkeyServer) -> None:
    class Locked(Secrets):
        def fields(self, reference: str) -> Mapping[str, str]:
            if not self.password:
                raise ConfigError("the key redis is not set", "ssmd key set")
            return super().fields(reference)

    secrets = Locked()
    cache = redis_at(valkey.url, secrets=secrets)
    secrets.password = ""

    with pytest.raises(CacheUnavailable, match="no credentials"):
        await cache.get("k")
    await cache.close()


# -- the factory ---------------------------------------------------------------------------------------------------


async def test_the_factory_opens_each_kind_and_closes_it(valkey: ValkeyServer) -> None:
    configs: list[kinds.Cache] = [
        kinds.MemoryCache(type="memory", max_mb=2), kinds.NoCache(type="none"),
        kinds.RedisCache(type="redis", url=valkey.url, credentials="$key:redis"),
    ]  # fmt: skip
    for config, kind, kept in zip(configs, (MemoryCache, NoCache, RedisCache), (b"v", None, b"v"), strict=True):
        async with AsyncExitStack() as stack:
            cache = open_cache(config, Secrets(), "factory", stack)
            await cache.set("k", b"v")
            assert isinstance(cache, kind)
            assert await cache.get("k") == kept
