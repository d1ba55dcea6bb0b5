"""A broken environment file is refused with every problem named, whatever is wrong with it; nothing else happens."""

import json
import os
import sys
from pathlib import Path

import pytest

from ssmd.cli.main import main
from tests.data.broken_environments import BROKEN, GOOD, Broken

COMMANDS = (
    ["env", "validate", "FILE"],
    ["env", "apply", "FILE", "--yes"],
    ["env", "create", "broken", "--from", "FILE"],
)
RAW = ("should ", "after validation", "Input ", "validation error", "valid string", "discriminator", "must match ^")
"""How the library that checks the file speaks, which nobody who wrote the file has to understand."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_every_problem_of_a_broken_file_is_named(
    broken: Broken, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(broken.content)

    for command in COMMANDS:
        code = main([str(file) if word == "FILE" else word for word in command])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert [words for words in broken.says if words not in err] == [], err
        assert out == ""
        assert "Traceback" not in err
        assert "hunter2" not in err
        assert [words for words in RAW if words in err] == [], err
        assert max(map(len, err.splitlines())) < 400
        assert all(letter.isprintable() or letter == "\n" for letter in err)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("broken", BROKEN[::5], ids=lambda broken: broken.name)
def test_the_problems_are_a_list_for_programs(
    broken: Broken, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(broken.content)

    assert main(["env", "validate", str(file), "--json"]) == 2

    checks = json.loads(capsys.readouterr().out)
    assert {check["severity"] for check in checks} == {"config"}
    texts = "\n".join(f"line {check['line']}: {check['text']}" for check in checks)
    assert [words for words in broken.says if words not in texts and not words.startswith("line")] == []


def test_the_file_they_are_made_from_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)

    assert main(["env", "validate", str(file)]) == 3  # its keys are not set
    assert "Keys section present" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.yaml", "does not exist"),
        ("kalsih.yaml", "Did you mean"),
        (".", "is a folder"),
        ("nul\0.yaml", "no name of a file"),
        ("\udcff.yaml", "does not exist"),
        ("\ud800.yaml", "no name of a file"),
        ("x" * 10_000, "File name too long"),
        ("; DROP TABLE environments; --", "does not exist"),
        ("$(reboot)\n`id`.yaml", "does not exist"),
        ("\x1b[31m.yaml", "does not exist"),
        ("kalshi.yaml/x", "cannot be read"),
    ],
    ids=["missing", "near", "folder", "nul", "bad byte", "surrogate", "long", "sql", "shell", "escape", "below a file"],
)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_what_is_no_file_is_refused_in_a_short_line(
    command: list[str], name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kalshi.yaml").write_text(GOOD)
    path = name if len(name) > 1_000 else f"{tmp_path}/{name}"

    assert main([path if word == "FILE" else word for word in command]) == 2

    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert all(len(line) < 400 and line.isprintable() for line in err.splitlines())


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform != "linux", reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(GOOD)
    file.chmod(0)

    assert main(["env", "validate", str(file)]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_an_endless_file_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "validate", "/dev/zero"]) == 2
    assert "at most 1048576" in capsys.readouterr().err
