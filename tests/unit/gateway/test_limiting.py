"""Limits of requests: exact within a window, no double portion at its edge, bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.config.environment import RequestLimits
from ssmd.gateway.limiting import Heads, RequestLimiter, Windows, neighbourhood


class Time:
    """A clock that is set."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def limiter(time: Time, **limits: int) -> RequestLimiter:
    return RequestLimiter(RequestLimits(**limits), time)


def granted(limiter: RequestLimiter, who: str, tries: int) -> int:
    return sum(not limiter.spend(who).refused for _ in range(tries))


def test_a_burst_ends_at_its_limit_and_another_client_has_its_own() -> None:
    limits = limiter(Time(), burst=5)
    assert granted(limits, "a", 20) == 5
    assert limits.spend("a").refused == "5 requests per second"
    assert granted(limits, "b", 20) == 5


def test_what_the_burst_refuses_is_not_charged_to_the_minute() -> None:
    time = Time()
    limits = limiter(time, burst=1, requests_per_minute=10)
    assert granted(limits, "a", 1_000) == 1
    time.now += 2
    left = limits.spend("a")
    assert (left.limit, left.remaining) == (10, 8)


def test_the_longer_limits_hold_without_the_burst() -> None:
    limits = limiter(Time(), burst=1, requests_per_minute=7)
    refused = [limits.spend("a", burst=False).refused for _ in range(9)]
    assert refused == [""] * 7 + ["7 requests per minute"] * 2


def test_the_hour_is_counted_over_its_minutes() -> None:
    time = Time(3_600.0 * 100)
    limits = limiter(time, burst=1_000, requests_per_minute=10, requests_per_hour=25)
    total = 0
    for _ in range(58):
        total += granted(limits, "a", 10)
        time.now += 61
    assert total == 25
    assert limits.spend("a").refused == "25 requests per hour"


@given(st.floats(0, 1e6), st.integers(1, 50), st.lists(st.floats(0, 40), max_size=300))
def test_no_window_of_a_minute_ever_has_twice_the_limit(start: float, limit: int, pauses: list[float]) -> None:
    time = Time(start)
    limits = limiter(time, burst=1_000_000, requests_per_minute=limit)
    granted_at: list[float] = []
    for pause in pauses:
        time.now += pause / 10
        if not limits.spend("a").refused:
            granted_at.append(time.now)
    for first in granted_at:
        assert sum(first <= at < first + 60 for at in granted_at) <= 2 * limit - 1 or limit == 1


def test_the_edge_of_a_window_gives_no_second_portion() -> None:
    time = Time(60.0 * 1_000 + 59.9)
    limits = limiter(time, burst=1_000, requests_per_minute=100)
    assert granted(limits, "a", 200) == 100
    time.now += 0.2
    assert granted(limits, "a", 200) <= 1


@pytest.mark.parametrize("offset", [0.0, 10.0, 59.0])
def test_who_waits_as_long_as_told_gets_in(offset: float) -> None:
    time = Time(60.0 * 1_000 + offset)
    limits = limiter(time, burst=1_000, requests_per_minute=10)
    for _ in range(50):
        left = limits.spend("a")
        if left.refused:
            assert 1 <= left.reset_s <= 61
            assert left.headers()["Retry-After"] == str(left.reset_s)
            time.now += left.reset_s
            assert not limits.spend("a").refused
        else:
            assert "Retry-After" not in left.headers()


def test_a_million_clients_cost_bounded_memory() -> None:
    time = Time()
    windows = Windows(time, most=100)
    for number in range(10_000):
        assert windows.acquire_sliding_window_entry(f"client {number}", 1, 60)
    assert len(windows) == 100
    assert not windows.acquire_sliding_window_entry("client 9999", 1, 60)


def test_heads_are_counted_in_and_out() -> None:
    heads = Heads(2)
    assert [heads.enter("a") for _ in range(3)] == [True, True, False]
    assert heads.enter("b")
    heads.leave("a")
    assert heads.enter("a")
    for who in ("a", "a", "b"):
        heads.leave(who)
    assert heads._here == {}


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_line_is_one_address(address: str, who: str) -> None:
    assert neighbourhood(address) == who
