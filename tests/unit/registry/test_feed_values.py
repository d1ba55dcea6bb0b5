"""What is refused of a feed is named, and nothing secret in it is shown."""

from datetime import date

import pytest

from ssmd.errors import ConfigError
from ssmd.registry.feed_values import FeedFacts, check_facts


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("ftp://h.example/ws?token=hunter2", "'ftp://h.example/ws?token=***' does not begin with wss://"),
        ("wss://u:hunter2@h.example:99999/", "'wss://u:***@h.example:99999/' is not a URL"),
        ("wss://u:hunter2@h.example/a b", "is not a URL"),
        ("wss:///ws?api_key=hunter2", "names no host"),
        ("wss://u:hunter2@h.example/" + "x" * 3_000, "is not a URL"),
        ("wss://u:hunter2@h.example/", "holds a user name"),
    ],
)
def test_no_error_shows_what_is_secret_in_an_address(endpoint: str, why: str) -> None:
    facts = FeedFacts(version="v1", effective_from=date(2026, 11, 1), protocol="wss", endpoint=endpoint)

    with pytest.raises(ConfigError) as refused:
        check_facts("websocket", facts)

    assert why in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert len(refused.value.message) < 200
