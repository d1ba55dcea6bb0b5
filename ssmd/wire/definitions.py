"""The text of a Cap'n Proto schema to a Definition: what it lays down, whoever wrote it; a bad text is a ConfigError.

The library's compiler aborts its process on a mistake and overflows its stack on deep nesting, so it runs in a child
with bounded time and memory. A schema stands alone: it can read no other file.
"""

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from ssmd.errors import ConfigError, FatalError

MAX_BYTES = 1 << 20
_PROGRAM = Path(__file__).with_name("reflection.py")
_CPU_S = 10
_TIMEOUT_S = 30
_MEMORY = 2 << 30
_OTHER_FILE = re.compile(r"\b(import|embed)\b(?:\s|#[^\n]*\n)*[\"`]")
"""Looked for in comments and texts as well: where those end is the compiler's word, not ours."""
_FAILED = re.compile(r"schema\.capnp:(\d{1,9})(?:[:-]\d+)*: failed: ([^\n]*)")
_ADVICE = "Give the text of one Cap'n Proto file, as those in schemas/."


class Field(msgspec.Struct, frozen=True):
    """A field of a struct; those of a group have the path `group.field`.

    `slot` is its place, in multiples of its own size; `cases` are the cases of the unions it lies in, outermost first.
    """

    path: str
    number: int
    type: str
    slot: int
    default: str
    cases: tuple[int, ...]


class StructDefinition(msgspec.Struct, frozen=True):
    """A struct with all its numbered fields; `unions` says at which place a union keeps its case ("": the struct's)."""

    path: str
    id: str
    fields: tuple[Field, ...]
    unions: dict[str, int]


class EnumDefinition(msgspec.Struct, frozen=True):
    """An enum; `values` are its names by number."""

    path: str
    id: str
    values: tuple[str, ...]


class Definition(msgspec.Struct, frozen=True):
    """Everything in a schema file that is written as data."""

    id: str
    structs: tuple[StructDefinition, ...]
    enums: tuple[EnumDefinition, ...]


def read_definition(text: str, name: str = "the schema") -> Definition:
    """What a schema lays down. ConfigError, naming `name` and the line, when it is not a schema or not alone."""
    encoded = _checked(text, name)
    with tempfile.TemporaryDirectory(prefix="ssmd-schema-") as folder:
        path = Path(folder, "schema.capnp")
        path.write_bytes(encoded)
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_PROGRAM), str(path)],
                cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False, preexec_fn=_bound_resources,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"{name} takes longer than {_TIMEOUT_S} s to compile", _ADVICE) from error
        except OSError as error:
            raise FatalError(f"cannot compile {name}: {error.strerror}", "Look at memory and processes.") from error
    if done.returncode:
        raise _mistake(name, done.returncode, done.stderr.decode(errors="replace"))
    return msgspec.json.decode(done.stdout, type=Definition)


def _bound_resources() -> None:
    """In the child, before the program: no endless work, no endless memory, no core file."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _checked(text: str, name: str) -> bytes:
    """The text as bytes, if it may be given to the compiler at all."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text", _ADVICE) from error
    if len(encoded) > MAX_BYTES:
        raise ConfigError(f"{name} has {len(encoded):,} bytes; at most {MAX_BYTES:,} are read", _ADVICE)
    if found := _OTHER_FILE.search(text):
        hint = "Write what it needs into the one file; the registry keeps each schema whole."
        raise ConfigError(f"{name} reads another file ({found[1]}); a schema here stands alone", hint)
    return encoded


def _mistake(name: str, code: int, said: str) -> ConfigError:
    found = _FAILED.findall(said)
    if not found:
        message = f"{name} cannot be compiled: the compiler ended with {code} (nested too deeply, or too large?)"
        return ConfigError(message, _ADVICE)
    line, text = found[-1]  # the innermost
    shown = "".join(letter if letter.isprintable() else "·" for letter in text)[:200]
    # What the compiler advises (`capnpc -i`, "Add this line ...") is for those who have its tools.
    return ConfigError(f"{name}, line {int(line) + 1}: {shown.partition('.  ')[0].rstrip('.')}", _ADVICE)
