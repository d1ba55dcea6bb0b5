"""Completion scripts, run by the real shell where it is there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ssmd.cli.main import main
from tests.conftest import missing

ASK = """
COMP_WORDS=({words}); COMP_CWORD={index}; COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
function_name=$(complete -p ssmd | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function_name" ssmd "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ssmd", "fe"), {"feed"}),
        (("ssmd", "sch"), {"schema"}),
        (("ssmd", "feed", ""), {"create", "list", "show"}),
        (("ssmd", "feed", "show", "--as"), {"--as-of"}),
        (("ssmd", "schema", "compat", "--fr"), {"--from"}),
        (("ssmd", "completion", ""), {"bash", "fish", "zsh"}),
    ],
    ids=lambda given: " ".join(given if isinstance(given, tuple) else sorted(given)),
)
def test_bash_completes_commands_options_and_choices(
    words: tuple[str, ...], expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash") or missing("bash", "install it")
    path = tmp_path / "ssmd.bash"
    path.write_text(script("bash", capsys))
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"source {path}\n" + ASK.format(words=quoted, index=len(words) - 1)

    done = subprocess.run([bash, "--norc", "-c", asked], capture_output=True, text=True, check=False, timeout=30)

    assert done.stderr == ""
    found = {line.strip() for line in done.stdout.splitlines() if line.strip()}
    assert found >= expected
    assert all(word.startswith(words[-1]) for word in found)


@pytest.mark.parametrize(("shell", "begins"), [("zsh", "#compdef ssmd"), ("fish", "complete ")])
def test_other_shells_get_their_script(shell: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)

    assert begins in text
    assert "compat" in text


def test_a_shell_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
