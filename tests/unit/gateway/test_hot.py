"""Hot questions: fresh for a moment, one at a time, and each row of the design's table of degradation."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.clock import NS_PER_S
from ssmd.errors import DataError
from ssmd.gateway import hot as hot_module
from ssmd.gateway.hot import FRESH_S, KEPT_S, Hot, Known, stale_headers
from ssmd.middleware.cache.interface import CacheUnavailable
from ssmd.middleware.cache.memory import MemoryCache
from ssmd.registry.interface import Market, RegistryUnavailable

NOW = 1_795_000_000 * NS_PER_S


class Clock:
    """The wall clock, which tests move; the cache's own goes along."""

    def __init__(self) -> None:
        self.ns = NOW

    def __call__(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * NS_PER_S)


class FailingCache(MemoryCache):
    """A cache whose server can be away; it counts how often it is asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(1 << 20, clock)
        self.away = False
        self.asked = 0

    def _check(self) -> None:
        self.asked += 1
        if self.away:
            raise CacheUnavailable("the cache at redis://cache.test is away: refused")

    async def get(self, key: str) -> bytes | None:
        self._check()
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self._check()
        return await super().get_many(keys)

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        self._check()
        await super().set(key, value, ttl_s)


class Database:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self) -> int:
        self.asked += 1
        answer = self.asked
        await self.answers.wait()
        if self.away:
            raise RegistryUnavailable("the database is away")
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> FailingCache:
    return FailingCache(clock)


@pytest.fixture
async def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(hot_module, "CACHE_REST_S", 0.02)
    monkeypatch.setattr(hot_module, "DATABASE_REST_S", 0.0)
    return Database()


async def test_an_answer_is_fresh_for_a_moment(clock: Clock, cache: FailingCache, database: Database) -> None:
    hot = Hot(cache, clock)

    assert await hot.read("q", int, database) == Known(1, NOW)
    clock.pass_s(FRESH_S - 0.001)
    assert await hot.read("q", int, database) == Known(1, NOW)
    clock.pass_s(0.001)
    assert await hot.read("q", int, database) == Known(2, clock.ns)
    assert (await hot.read("another", int, database)).value == 3


async def test_what_one_gateway_asked_another_need_not(clock: Clock, cache: FailingCache, database: Database) -> None:
    await Hot(cache, clock).read("q", int, database)
    assert await Hot(cache, clock).read("q", int, database) == Known(1, NOW)


async def test_many_who_want_the_same_ask_once(clock: Clock, cache: FailingCache, database: Database) -> None:
    hot = Hot(cache, clock)
    database.answers.clear()
    waiting = [asyncio.create_task(hot.read("q", int, database)) for _ in range(100)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()  # the one for whom the question was put goes away
    database.answers.set()

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert database.asked == 1
    assert found[1:] == [Known(1, NOW)] * 99
    assert isinstance(found[0], asyncio.CancelledError)


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)

    async def refuse() -> int:
        database.asked += 1
        await asyncio.sleep(0)
        raise DataError("no")

    found = await asyncio.gather(*(hot.read("q", int, refuse) for _ in range(5)), return_exceptions=True)

    assert [type(error) for error in found] == [DataError] * 5
    assert (await hot.read("q", int, database)).value == 2


# -- the table of degradation --------------------------------------------------------------------------------------


async def test_while_the_cache_is_away_it_is_bypassed_and_the_database_is_asked_each_time(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    cache.away = True

    answers = [(await hot.read("q", int, database)).value for _ in range(5)]

    assert answers == [1, 2, 3, 4, 5]
    assert (hot.state, hot.available) == ("away", False)
    assert cache.asked == 1  # it rests: nobody waits for its time-out again and again


async def test_a_cache_that_is_back_is_used_again(clock: Clock, cache: FailingCache, database: Database) -> None:
    hot = Hot(cache, clock)
    cache.away = True
    await hot.read("q", int, database)
    cache.away = False
    clock.pass_s(1)
    await hot.ping()

    assert hot.state == "connected"
    assert [(await hot.read("q", int, database)).value for _ in range(3)] == [2, 2, 2]


async def test_while_the_database_is_away_the_last_answer_is_given_and_marked(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    await hot.read("q", int, database)
    database.away = True
    clock.pass_s(KEPT_S - 1)

    assert await hot.read("q", int, database) == Known(1, NOW, stale=True)
    assert stale_headers(NOW, clock.ns) == {"Age": "3599", "Warning": '110 ssmd "Response is Stale"'}
    with pytest.raises(RegistryUnavailable):
        await hot.read("never asked", int, database)
    clock.pass_s(2)
    with pytest.raises(RegistryUnavailable):
        await hot.read("q", int, database)


async def test_a_database_that_is_back_answers_unmarked(clock: Clock, cache: FailingCache, database: Database) -> None:
    hot = Hot(cache, clock)
    await hot.read("q", int, database)
    clock.pass_s(10)
    database.away = True
    assert (await hot.read("q", int, database)).stale
    database.away = False

    assert await hot.read("q", int, database) == Known(3, clock.ns)


async def test_a_database_that_does_not_answer_is_not_asked_again_at_once_for_what_is_remembered(
    clock: Clock, cache: FailingCache, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_module, "DATABASE_REST_S", 60.0)
    hot = Hot(cache, clock)
    for question in ("a", "b"):
        await hot.read(question, int, database)
    clock.pass_s(10)
    database.away = True

    assert [(await hot.read(question, int, database)).stale for question in "aabb"] == [True] * 4
    assert database.asked == 3


async def test_with_cache_and_database_away_nobody_invents_an_answer(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    await hot.read("q", int, database)
    clock.pass_s(10)
    cache.away = database.away = True

    with pytest.raises(RegistryUnavailable):
        await hot.read("q", int, database)


async def test_without_a_cache_everything_is_asked(clock: Clock, database: Database) -> None:
    hot = Hot(None, clock)

    assert [(await hot.read("q", int, database)).value for _ in range(2)] == [1, 2]
    await hot.ping()
    assert hot.state == "none"


async def test_a_rare_answer_is_remembered_for_as_long_as_is_said(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    await hot.read("q", int, database, kept_s=60)
    database.away = True
    clock.pass_s(59)
    assert (await hot.read("q", int, database, kept_s=60)).stale
    clock.pass_s(1)
    with pytest.raises(RegistryUnavailable):
        await hot.read("q", int, database, kept_s=60)


# -- what may stand in a cache -------------------------------------------------------------------------------------


async def test_that_something_does_not_exist_is_remembered_for_a_moment_only(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)

    async def nothing() -> int | None:
        database.asked += 1
        return None

    assert [(await hot.read("q", int | None, nothing)).value for _ in range(3)] == [None] * 3
    assert database.asked == 1
    clock.pass_s(FRESH_S)
    database.away = True
    with pytest.raises(RegistryUnavailable):
        await hot.read("q", int | None, database)
    assert cache.bytes == 0


@pytest.mark.parametrize("garbage", [b"", b"{", b"null", b'{"value":"x","at_ns":1}', b"\xff" * 9, b"[" * 5_000])
async def test_garbage_in_the_cache_is_as_good_as_nothing(
    clock: Clock, cache: FailingCache, database: Database, garbage: bytes
) -> None:
    hot = Hot(cache, clock)
    await hot.read("q", int, database)
    for key in list(cache._entries):
        await cache.set(key, garbage)

    assert (await hot.read("q", int, database)).value == 2
    assert (await hot.read("q", int, database)).value == 2


async def test_an_answer_of_the_future_is_not_believed_for_longer(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    clock.pass_s(3_000)
    await hot.read("q", int, database)
    clock.ns = NOW  # this gateway's clock is behind the other's

    assert await hot.read("q", int, database) == Known(2, NOW)


async def test_what_no_json_can_hold_is_shown_and_not_kept(
    clock: Clock, cache: FailingCache, database: Database
) -> None:
    hot = Hot(cache, clock)
    odd = Market("T", "E", "t", "active", None, None, "", {"x": object()})

    async def ask() -> Market:
        return odd

    assert (await hot.read("q", Market, ask)).value is odd
    assert cache.bytes == 0


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(raw=st.dictionaries(texts, values, max_size=5), ticker=texts, close_time=st.none() | texts)
def test_a_market_comes_out_of_the_cache_as_it_went_in(raw: dict[str, object], ticker: str, close_time: str) -> None:
    market = Market(ticker, "E", "title", "active", None, close_time, "", raw)

    async def check() -> None:
        cache = MemoryCache(1 << 20)

        async def ask() -> Market:
            return market

        async def never() -> Market:
            raise AssertionError("asked twice")

        await Hot(cache, lambda: NOW).read("q", Market, ask)
        again = await Hot(cache, lambda: NOW).read("q", Market, never)
        assert msgspec.json.encode(again.value) == msgspec.json.encode(market)

    asyncio.run(check())
