"""Shared by all tests: what happens when a server or a system package is missing."""

import os
from typing import NoReturn

import pytest


def missing(what: str, how: str) -> NoReturn:
    """Skip at home, fail in CI: `what` is not there, `how` says how to get it."""
    message = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
