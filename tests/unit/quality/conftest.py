"""What the tests of expectations share."""

from collections.abc import Iterator

import pytest
import structlog

from ssmd.quality.judge import Judge


@pytest.fixture(scope="module")
def judge() -> Judge:
    """One for a module: Great Expectations starts slowly."""
    return Judge()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the log of whole days."""
    with structlog.testing.capture_logs():
        yield
