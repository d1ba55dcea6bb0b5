"""The `capnp` command, where it is installed."""

import shutil

import pytest

from tests.conftest import missing


@pytest.fixture
def capnp_command() -> None:
    if shutil.which("capnp") is None:
        missing("the capnp command", "install the Debian package capnproto")
