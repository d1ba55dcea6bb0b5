"""What an error becomes for the caller, and that `ssmd --help` loads next to nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import App

from ssmd.cli import main as cli
from ssmd.cli.main import COMMANDS, build, main
from ssmd.errors import ConfigError, DataError, RefusedError, Unavailable

HEAVY = ("pydantic", "yaml", "sqlalchemy", "aiohttp", "nats", "structlog", "prometheus_client", "obstore", "capnp",
         "zstandard", "picows", "cryptography", "uvloop", "supervisor")  # fmt: skip


def with_command(monkeypatch: pytest.MonkeyPatch, command: Callable[[], object]) -> None:
    """Let the command tree hold one command, `work`."""
    app = App(name="ssmd")
    app.command(command, name="work")
    monkeypatch.setattr(cli, "build", lambda: app)


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such file", "Did you mean x?"), 2),
        (RefusedError("already up"), 3),
        (Unavailable("nobody there"), 7),
        (DataError("broken"), 1),
        (ExceptionGroup("tasks", [ValueError(), Unavailable("nobody there")]), 7),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_a_message_and_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_command(monkeypatch, raising(error))

    assert main(["work"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    if isinstance(error, ConfigError):
        assert err == "no such file\n  Did you mean x?\n"


def test_a_bug_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path))
    monkeypatch.delenv("SSMD_DEBUG", raising=False)
    with_command(monkeypatch, raising(ZeroDivisionError("oops")))

    assert main(["work"]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("This is a bug in ssmd: ZeroDivisionError: oops")
    story = (tmp_path / "log" / "bug.log").read_text()
    assert "Traceback" in story
    assert str(tmp_path / "log" / "bug.log") in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SSMD_DEBUG", "1")
    with_command(monkeypatch, raising(ConfigError("no such file")))

    assert main(["work"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dta"], 'Did you mean "data"?'),
        (["data", "verfy"], 'Did you mean "verify"?'),
        (["data", "verify", "--fed", "kalshi"], "Did you mean --feed?"),
        (["data", "verify", "--date", "yesterday"], "--date"),
        (["up", "--exchange", "paper"], "paper"),
    ],
    ids=["command", "subcommand", "option", "value", "choice"],
)
def test_wrong_usage_ends_with_2_and_help(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "--help" in err
    assert "Traceback" not in err


def test_the_exit_code_of_a_command_is_what_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, lambda: 6)

    assert main(["work"]) == 6


def test_help_and_version_load_nothing_heavy() -> None:
    code = f"""
import sys
from ssmd.cli.main import main
assert main(["--help"]) == 0
assert main(["--version"]) == 0
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr
    assert "ssmd 0." in done.stdout


def test_a_question_to_the_registry_loads_nothing_that_other_commands_need() -> None:
    code = """
import sys
import ssmd.cli.feed, ssmd.cli.opening, ssmd.registry.feeds
loaded = [name for name in ("cryptography", "aiohttp", "nats", "obstore", "capnp", "rapidfuzz") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr


def test_every_command_is_there_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name, _place, sentence in COMMANDS:
        assert sentence.endswith(".")
        assert main([name, "--help"]) == 0
        assert f"Usage: ssmd {name}" in capsys.readouterr().out
    assert set(build()) >= {name for name, *_ in COMMANDS}
