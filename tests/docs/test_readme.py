"""The README is a test: what it names exists, and what exists is named in it."""

import re
import tomllib
from pathlib import Path

import pytest

from ssmd.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NAMED = sorted({" ".join(m) for m in re.findall(r"`ssmd ([a-z]+)(?: ([a-z]+)\b)?", README)})


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"ssmd {name}" in README


@pytest.mark.parametrize("words", NAMED)
def test_every_command_in_the_readme_exists(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^(make [a-z]+)", README, re.MULTILINE))))
def test_every_make_target_in_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_folders_of_the_readme_exist() -> None:
    table = README[README.index("## Where things live") : README.index("## Add an exchange")]

    named = re.findall(r"^\| `([a-z]+)/`", table, re.MULTILINE)

    assert len(named) >= 5
    assert [folder for folder in named if not (ROOT / folder).is_dir()] == []


def test_the_change_log_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_tracked_requirement_names_an_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith(("-i", "--index", "--find-links"))]
        assert all("--hash=sha256:" in line or "==" in line or not line.strip() for line in lines)
