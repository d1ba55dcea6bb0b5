"""One line of `ssmd env validate` and what follows from all of them: the marks, the words, the exit code."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Literal, TextIO, TypeAlias

import msgspec

from ssmd.cli.output import BAD, GOOD, WAITING, cell, show_json
from ssmd.config.loading import InvalidEnvironment
from ssmd.errors import EXIT_CONFIG, EXIT_DONE, EXIT_REFUSED, EXIT_UNAVAILABLE, RefusedError
from ssmd.keys.state import KeyState

Severity: TypeAlias = Literal["good", "note", "config", "refused", "unavailable"]

ENVIRONMENT, KEYS = "environment", "keys"
DEMO_KEY = "the demo key, which only the simulated exchange takes"
_HEADINGS = {ENVIRONMENT: "Validating environment...", KEYS: "Checking key status..."}
_MARKS: dict[Severity, str] = {"good": GOOD, "note": WAITING}
_CODES: tuple[tuple[Severity, int], ...] = (
    ("config", EXIT_CONFIG), ("refused", EXIT_REFUSED), ("unavailable", EXIT_UNAVAILABLE),
)  # fmt: skip
_PLACEHOLDERS = ("xxx", "yyy", "zzz")
_COLOURS = {GOOD: "\x1b[32m", WAITING: "\x1b[33m", BAD: "\x1b[31m"}


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `fix` is what to do about it; `severity` says what kind of trouble it is.

    `config`: the file is wrong; `refused`: something is not as it must be; `unavailable`: a server is away.
    """

    section: str
    text: str
    severity: Severity = "good"
    fix: str = ""
    path: str = ""
    line: int | None = None

    @property
    def mark(self) -> str:
        """✓, ○ or ✗."""
        return _MARKS.get(self.severity, BAD)


class KeyNotSet(RefusedError):
    """Required keys have no value; said in the design's two lines per key."""

    def __init__(self, environment: str, missing: Sequence[KeyState], option: str = "") -> None:
        self.lines = [line for state in missing for line in set_key_lines(environment, state, option)]
        super().__init__(self.lines[0], self.lines[1])

    def __str__(self) -> str:
        return "\n".join(self.lines)


def set_key_lines(environment: str, state: KeyState, option: str = "") -> tuple[str, str]:
    """What is missing, and the command that mends it, with the fields that have no value.

    `option` leads to the environment's file where its name alone does not.
    """
    if state.status == "expired":
        fix = f"Run: ssmd key rotate {environment} {state.name}{option}"
        return f"Error: Required key '{state.name}' has expired.", fix
    fields = [f"--{field.replace('_', '-')}" for field in state.missing_fields]
    said = [f"{flag} {_PLACEHOLDERS[min(index, 2)]}" for index, flag in enumerate(fields)]
    return (
        f"Error: Required key '{state.name}' is not set.",
        " ".join(["Run: ssmd key set", environment, state.name, *said]) + option,
    )


def exit_code(checks: Iterable[Check]) -> int:
    """2 when the file is wrong, else 3 when a check refuses, else 7 when a server is away, else 0."""
    found = {check.severity for check in checks}
    return next((code for severity, code in _CODES if severity in found), EXIT_DONE)


def problem_checks(error: InvalidEnvironment) -> list[Check]:
    """What is wrong in a file, as lines."""
    return [
        Check(ENVIRONMENT, f"{problem.path} {problem.text}".strip(), "config", "", problem.path, problem.line)
        for problem in error.problems
    ]


def show_checks(checks: Sequence[Check], *, as_json: bool, to_stderr: bool = False) -> None:
    """All lines by section, each fix once; or as a JSON list."""
    if as_json:
        show_json([_row(check) for check in checks])
        return
    stream = sys.stderr if to_stderr else sys.stdout
    said: set[str] = set()
    for section, heading in _HEADINGS.items():
        lines = [check for check in checks if check.section == section]
        if not lines:
            continue
        if section != ENVIRONMENT:
            print(file=stream)
        print(heading, file=stream)
        for check in lines:
            print(f"  {_coloured(check.mark, stream)} {cell(check.text)}", file=stream)
            if check.fix and check.fix not in said:
                said.add(check.fix)
                print(f"      {cell(check.fix)}", file=stream)
    stream.flush()


def _coloured(mark: str, stream: TextIO) -> str:
    return f"{_COLOURS[mark]}{mark}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else mark


def _row(check: Check) -> dict[str, object]:
    return {"mark": check.mark, **msgspec.structs.asdict(check)}
