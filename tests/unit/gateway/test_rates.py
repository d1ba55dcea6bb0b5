"""Message rates out of counters that are read now and then."""

import pytest

from ssmd.gateway.rates import KEPT_S, Rates


@pytest.fixture
def counters() -> dict[str, int]:
    return {"trade": 0, "orderbook": 0}


def test_rates_are_means_of_the_last_seconds(counters: dict[str, int]) -> None:
    rates = Rates(counters)
    assert rates.per_second() == 0
    rates.sample(100.0)
    for second in range(1, 21):
        counters["trade"] += 3
        counters["orderbook"] += 10 if second > 10 else 0
        rates.sample(100.0 + second)
    assert rates.per_second("trade") == 3
    assert rates.per_second() == 13
    assert rates.per_second("orderbook", 20) == 5


def test_samples_within_a_second_change_only_what_was_heard(counters: dict[str, int]) -> None:
    rates = Rates(counters)
    rates.sample(5.0)
    counters["trade"] += 1
    rates.sample(5.4)
    assert rates.heard_s == {"trade": 5.4}
    assert rates.per_second() == 0
    rates.sample(6.1)
    assert rates.per_second() == 1


def test_seconds_in_which_nobody_looked_share_what_came(counters: dict[str, int]) -> None:
    rates = Rates(counters)
    rates.sample(0.0)
    counters["trade"] = 10
    rates.sample(4.0)
    assert rates.per_second("trade", 4) == 2.5
    rates.sample(10.0 * KEPT_S)
    assert rates.per_second("trade", KEPT_S) == 0
    assert len(rates.line("trade")) == 60


def test_the_line_is_ten_minutes_and_ends_now(counters: dict[str, int]) -> None:
    rates = Rates(counters)
    rates.sample(0.0)
    for second in range(1, 31):
        counters["trade"] += 6
        rates.sample(float(second))
    line = rates.line("trade")
    assert line[-3:] == [6, 6, 6]
    assert set(line[:-3]) == {0}
    assert rates.line() == line
