"""Every text argument of every command, given what nobody should give: a short message and its code, never a bug."""

import io
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App
from cyclopts.argument import Argument

from ssmd.cli.main import build, main
from ssmd.resources import resource
from tests.databases import Database
from tests.integration.test_registry_commands import ENVIRONMENT

pytestmark = pytest.mark.integration

HOSTILE = {
    "sql": "x'; DROP TABLE feeds; --",
    "shell": "$(touch pwned) `touch pwned` ; touch pwned | & > pwned",
    "newline": "a\nb\r\nc",
    "nul": "a\0b",
    "escape": "\x1b]0;title\x07\x1b[2J\x1b[31m",
    "direction": "a\u202eb\u2066c",
    "surrogate": "a\udcff\udc80b",
    "long": "x" * 10_000,
    "long wide": "🂡" * 10_000,
    "percent": "%s%n%(x)s{0}{x!r}%%",
    "path": "../../../../../../etc/passwd",
    "empty": "",
    "blank": "  ",
    "markup": "[red]x[/red][/]",
    "dashes": "--",
}
FITTING = {
    "--date": "2026-11-22", "--from": "v1", "--to": "v1", "--symbols": "A", "--feed": "kalshi", "ENVIRONMENT": "here",
    "KEY": "kalshi", "--ticker": "A", "--scope": "read:live", "--file": str(resource("schemas") / "trade.capnp"),
}  # fmt: skip
NAMES = {"feed": "kalshi", "env": "here", "schema": "trade"}
ALSO: dict[tuple[str, ...], dict[str, str]] = {
    ("feed", "create"): {"--endpoint": "wss://a.example", "--auth-method": "api_key", "--secret": "$key:a"},
    ("schema", "register"): {"--status": "active"},
    ("market", "history"): {"--feed": "kalshi"},
}
"""More that a command needs before it looks at the rest."""
AS_JSON = ("surrogate", "escape", "newline", "nul")
NEVER_STARTED = {("up",), ("simulate",), ("run", "connector"), ("run", "archiver"), ("run", "gateway")}
"""These run until they are told to stop; what they take is an environment file, and addresses used once it is read."""
_LONGEST_LINE = 400
_numbers = itertools.count()


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command of the program, however deep."""
    names = [name for name in app if not name.startswith("-")]
    if not names:
        yield words, app
    for name in names:
        yield from commands(app[name], (*words, name))


def takes_text(argument: Argument) -> bool:
    """Is it, or may it be, text that the command itself has to judge?"""
    kinds = (argument.hint, *get_args(argument.hint))
    return argument.parse and any(kind in (str, Path) for kind in kinds)


def cases() -> Iterator[tuple[tuple[str, ...], str]]:
    for words, app in commands(build()):
        for argument in app.assemble_argument_collection():
            # Commands of one word open the environment in their own way, the others all in the same.
            again = argument.name == "--env" and len(words) > 1 and words != ("feed", "list")
            if takes_text(argument) and words not in NEVER_STARTED and not again:
                yield words, argument.name


CASES = list(cases())


def command(words: tuple[str, ...]) -> App:
    """The command called so."""
    app = build()
    for word in words:
        app = app[word]
    return app


def fitting(words: tuple[str, ...], name: str) -> str:
    """Something that a command takes for what it must have."""
    if words == ("feed", "create") and name == "--name":
        return f"feed-{next(_numbers)}"
    if words == ("env", "create") and name == "--from":
        return os.environ["SSMD_ENV"]
    return NAMES.get(words[0], "kalshi") if name == "--name" else FITTING.get(name, "kalshi")


def command_line(words: tuple[str, ...], name: str, hostile: str, *more: str) -> list[str]:
    """The command with something fitting for what it must have, and the hostile text for one argument."""
    app = command(words)
    line, also = list(words), dict(ALSO.get(words, {}))
    positional: list[str] = []
    for argument in app.assemble_argument_collection():
        wanted = argument.name == name
        if not (wanted or argument.required or argument.name in also):
            continue
        value = hostile if wanted else also.get(argument.name) or fitting(words, argument.name)
        if argument.field_info.is_keyword_only or not argument.field_info.is_positional:
            line.append(f"{argument.name}={value}")
        else:
            positional.append(value)
    return [*line, *more, *positional]


@pytest.fixture(scope="module")
def place(postgres: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment on a real database."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "here.yaml").write_text(ENVIRONMENT.replace("URL", postgres.fresh()))
    return folder


def test_the_walk_finds_the_commands_it_is_meant_for() -> None:
    found = {words for words, _ in CASES}
    assert found >= {("feed", "create"), ("schema", "register"), ("market", "show"), ("env", "apply"), ("key", "set")}
    assert len(CASES) > 60


@pytest.mark.parametrize(("words", "name"), CASES, ids=[f"{' '.join(words)} {name}" for words, name in CASES])
def test_no_text_is_a_bug(
    words: tuple[str, ...], name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("SSMD_ENV", str(place / "here.yaml"))
    monkeypatch.setenv("SSMD_HOME", str(place / "home"))
    problems = []
    runs: list[tuple[str, tuple[str, ...]]] = [(kind, ()) for kind in HOSTILE]
    if any(argument.name == "--json" for argument in command(words).assemble_argument_collection()):
        runs += [(kind, ("--json",)) for kind in AS_JSON]
    for kind, more in runs:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        code = main(command_line(words, name, HOSTILE[kind], *more))
        said = capfd.readouterr()
        long = max((len(line) for line in said.err.splitlines()), default=0)
        if code not in (0, 1, 2, 3, 6, 7) or "Traceback" in said.err or "bug in ssmd" in said.err:
            problems.append((kind, code, said.err[-300:]))
        elif code and (long > _LONGEST_LINE or "\x1b" in said.err or "\u202e" in said.err or not (said.err or more)):
            problems.append((kind, code, f"longest line {long}: {said.err[:300]!r}"))
    assert problems == []
    assert not list(place.rglob("pwned"))


def test_nothing_of_it_harmed_the_registry(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSMD_ENV", str(place / "here.yaml"))
    shutil.rmtree(place / "home", ignore_errors=True)

    assert main(["feed", "show", "kalshi"]) == 0
    assert "Name: kalshi" in capfd.readouterr().out


@pytest.mark.parametrize("words", sorted(NEVER_STARTED), ids=" ".join)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_service_refuses_a_hostile_file_name_before_it_starts(
    words: tuple[str, ...],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSMD_HOME", str(tmp_path))
    option = "--tape" if words == ("simulate",) else "--env"

    assert main([*words, f"{option}=no-such-folder/{HOSTILE[kind]}x"]) == 2
    err = capfd.readouterr().err
    assert max(map(len, err.splitlines())) <= _LONGEST_LINE
    assert "\x1b" not in err


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("before", [[], ["feed"], ["feed", "list"], ["data", "gaps", "--date"]], ids=" ".join)
def test_hostile_words_in_place_of_commands_and_values(
    before: list[str], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main([*before, HOSTILE[kind] or "-"])
    err = capfd.readouterr().err

    assert code == 2 or (before != ["data", "gaps", "--date"] and HOSTILE[kind] == "--")
    assert max(map(len, err.splitlines()), default=0) <= _LONGEST_LINE
    assert "\x1b" not in err
