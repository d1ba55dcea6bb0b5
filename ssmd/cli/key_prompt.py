"""Ask a person for the values of a key: nothing typed or pasted is shown, PEM may be pasted or named by its file."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

from ssmd.cli.key_input import KeyInput, read_file
from ssmd.cli.output import talk
from ssmd.config.environment import KeyDefinition
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue
from ssmd.keys.state import needed_fields
from ssmd.keys.values import ProblemOf, checked

_TRIES = 3
_MAX_LINES = 500


def need_terminal(environment: str, key: str, option: str = "") -> None:
    """ConfigError when nobody can be asked."""
    if not sys.stdin or not sys.stdin.isatty():
        raise ConfigError(
            "cannot ask for values: stdin is no terminal",
            f"Run: ssmd key set {environment} {key}{option} --from-env VAR1,VAR2"
            " (or --from-file FIELD=PATH, --stdin FIELD)",
        )


def need_terminal_for_delete(environment: str, key: str, option: str = "") -> None:
    """ConfigError when nobody can be asked to confirm."""
    if not sys.stdin or not sys.stdin.isatty():
        raise ConfigError(
            f"deleting {key!r} has to be confirmed", f"Run: ssmd key delete {environment} {key} --yes {key}{option}"
        )


def ask(given: KeyInput, key: str, definition: KeyDefinition, problem_of: ProblemOf) -> None:
    """Ask for every field, again while its value has a problem; Enter skips the ones that are not needed."""
    needed = needed_fields(definition)
    with _unseen() as terminal:
        for field in definition.fields:
            value = _ask_field(terminal, key, field, problem_of, needed=field in needed)
            if value is not None:
                given.add(field, value, "prompt")


def agreed(question: str) -> bool:
    """Did the person say yes?"""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def typed(question: str) -> str:
    """A line that may be seen."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _ask_field(terminal: TextIO, key: str, field: str, problem_of: ProblemOf, *, needed: bool) -> SecretValue | None:
    """One value; asked again when it is empty or cannot be used. None: skipped."""
    name = f"{key}.{field}"
    for _ in range(_TRIES):
        sys.stderr.write(f"{name}{'' if needed else ' (optional, Enter skips it)'}: ")
        sys.stderr.flush()
        text = _read(terminal)
        sys.stderr.write("\n")
        if not text.strip():
            if not needed:
                return None
            talk(f"{name} is needed")
            continue
        try:
            return checked({field: _meant(text, name)}, key, problem_of)[field]
        except ConfigError as error:
            talk(error.message)
    raise ConfigError(f"no usable value for {name}", "Nothing was changed for this key.")


def _meant(text: str, name: str) -> SecretValue:
    """What was typed, or what the file holds that it names: a path of a file that begins like PEM."""
    line = text.rstrip("\n")
    path = os.path.expanduser(line)
    if "\n" in line or "\x00" in line or not os.path.isfile(path):
        return SecretValue(line)
    value = read_file(path, name)
    if not value.reveal().lstrip().startswith("-----BEGIN"):
        return SecretValue(line)
    talk(f"{name}: read from the file")
    return value


def _read(terminal: TextIO) -> str:
    """A line; when it begins PEM, everything to its END line. ConfigError at the end of the input."""
    line = _line(terminal)
    if not line:
        raise ConfigError("the input ended before all values were given", "Nothing was changed for this key.")
    if not line.lstrip().startswith("-----BEGIN") or "\\n" in line:
        return line
    lines = [line]
    while "-----END" not in lines[-1] and len(lines) < _MAX_LINES:
        lines.append(more := _line(terminal))
        if not more:
            break
    return "".join(lines)


def _line(terminal: TextIO) -> str:
    try:
        return terminal.readline()
    except UnicodeDecodeError:  # without the cause: it would quote the bytes
        raise ConfigError("what was typed is not text", "Nothing was changed for this key.") from None


@contextlib.contextmanager
def _unseen() -> Iterator[TextIO]:
    """The terminal without echo, until all is asked: lines pasted ahead do not appear between two questions."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
        yield sys.stdin
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
