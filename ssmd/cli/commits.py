"""Which git commit a file is of, when it is exactly what that commit holds."""

import os
import re
import subprocess
from pathlib import Path

_TIMEOUT_S = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(file: Path) -> tuple[str | None, str]:
    """The commit at HEAD of the file's repository, or None and why the file is not (only) what that holds."""
    folder = file.resolve().parent
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or not _COMMIT.fullmatch(head):
        return None, "the file is in no git repository"
    if _git(folder, "ls-files", "--error-unmatch", "--", file.resolve().name) is None:
        return None, "the file is not tracked by git"
    if _git(folder, "status", "--porcelain", "--", file.resolve().name) != "":
        return None, "the file has changes that are not committed"
    return head, ""


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None when it fails or is not there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
