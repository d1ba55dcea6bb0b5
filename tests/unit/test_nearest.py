"""Did you mean: near names in whatever case they were written."""

import pytest

from ssmd.nearest import did_you_mean, nearest

KNOWN = ["kalshi", "KXBTC15M-26SEP251500-00", "Climate and Weather"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("kalhsi", "kalshi"),
        ("KALSHI", "kalshi"),
        ("kxbtc15m-26sep251500-0", "KXBTC15M-26SEP251500-00"),
        ("climate and wether", "Climate and Weather"),
        ("zzzzzzzz", ""),
        ("", ""),
        ("x" * 10_000, ""),
        ("\udc80kalshi", "kalshi"),
    ],
)
def test_the_nearest_name_is_given_as_it_is_written(word: str, found: str) -> None:
    assert nearest(word, KNOWN) == found


def test_without_a_near_name_the_other_hint_is_given() -> None:
    assert did_you_mean("KALSH", KNOWN, "other") == "Did you mean 'kalshi'?"
    assert did_you_mean("zzz", KNOWN, "other") == "other"
    assert did_you_mean("zzz", []) == ""
