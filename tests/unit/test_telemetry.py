"""Log lines as the design shows them, a log that may lose its reader, and bounded metric labels."""

import io
import json
import logging

import pytest
import structlog
from prometheus_client import Counter, Gauge, Histogram

from ssmd import telemetry
from ssmd.logs import log_for_people
from ssmd.telemetry import configure_logging, exposition


def test_a_line_begins_with_level_ts_component_and_msg() -> None:
    out = io.StringIO()
    configure_logging("connector", stream=out)

    structlog.get_logger().info("connected", symbols=42)

    line = json.loads(out.getvalue())
    assert list(line) == ["level", "ts", "component", "msg", "symbols"]
    assert (line["level"], line["component"], line["msg"], line["symbols"]) == ("info", "connector", "connected", 42)
    assert line["ts"].endswith("Z")


def test_libraries_are_heard_from_warning_on_in_the_same_form() -> None:
    out = io.StringIO()
    configure_logging("gateway", stream=out)

    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble %d", 7)

    (line,) = map(json.loads, out.getvalue().splitlines())
    assert (line["msg"], line["logger"], line["component"]) == ("trouble 7", "library", "gateway")


class Broken(io.StringIO):
    """A pipe whose reader has died."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_has_gone_does_not_end_the_writer() -> None:
    configure_logging("connector", stream=Broken())
    before = telemetry.LOG_LINES_LOST._value.get()

    structlog.get_logger().info("still here")

    assert telemetry.LOG_LINES_LOST._value.get() > before


def test_commands_warn_in_plain_words_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log_for_people()

    structlog.get_logger().info("detail")
    structlog.get_logger().warning("disk full", path="/x")

    assert capsys.readouterr() == ("", "warning: disk full  path=/x\n")


def test_every_metric_is_named_for_ssmd_and_has_bounded_labels() -> None:
    allowed = {"feed", "type", "error_type", "reason", "bucket", "kind", "component", "endpoint", "status", "source"}
    allowed |= {"environment", "key_name"}  # what one environment file defines
    allowed |= {"role"}  # active, standby
    metrics = [value for value in vars(telemetry).values() if isinstance(value, Counter | Gauge | Histogram)]
    for metric in metrics:
        assert metric._name.startswith("ssmd_"), metric._name
        assert set(metric._labelnames) <= allowed, (metric._name, metric._labelnames)
    text, content_type = exposition()
    assert len(metrics) > 20
    assert b"ssmd_gateway_clients_connected" in text
    assert content_type.startswith("text/plain")
