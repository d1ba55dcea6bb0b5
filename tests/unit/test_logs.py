"""Logging of commands: plain warnings on stderr, and a short command does not wait for what it does not use."""

import logging
import subprocess
import sys

import pytest
import structlog

from ssmd.logs import log_for_people

HEAVY = ("structlog.dev", "prometheus_client", "rich", "rapidfuzz", "aiohttp", "nats", "obstore", "capnp", "zstandard",
         "picows", "uvloop", "stamina", "valkey")  # fmt: skip


def run_python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_structlog_is_loaded_and_configured_when_something_is_logged() -> None:
    done = run_python("""
import sys
from ssmd.logs import load_when_needed
load_when_needed()
import structlog
assert "structlog.dev" not in sys.modules
log = structlog.get_logger()
assert "structlog.dev" in sys.modules
log.warning("disk full", path="/x")
log.info("detail")
import structlog as again
again.get_logger().error("once more")
""")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "warning: disk full  path=/x\nerror: once more\n"


def test_the_level_may_be_set_before_it_is_loaded_and_after() -> None:
    done = run_python("""
import logging
from ssmd.logs import load_when_needed, log_for_people
load_when_needed()
log_for_people(logging.INFO)
import structlog
structlog.get_logger().info("heard")
log_for_people(logging.ERROR)
structlog.get_logger().warning("not heard")
""")
    assert (done.returncode, done.stderr) == (0, "info: heard\n")


def test_a_command_that_asks_the_registry_loads_only_what_it_needs() -> None:
    done = run_python(f"""
import sys
from ssmd.logs import load_when_needed
load_when_needed()
import ssmd.cli.feed, ssmd.registry.feeds
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
""")
    assert done.returncode == 0, done.stderr


def test_details_are_said_when_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    log_for_people(logging.INFO)
    structlog.get_logger().info("migrated", applied=3)

    assert capsys.readouterr().err == "info: migrated  applied=3\n"
