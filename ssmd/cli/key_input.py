"""Where the values of a key come from: flags, files, variables, stdin; never shown, kept when all are read.

What follows an option may be the secret itself, given in the wrong place: no error repeats it.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote

from ssmd.cli.output import talk
from ssmd.config.environment import KeyDefinition
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue
from ssmd.keys.stores import MAX_BYTES
from ssmd.nearest import did_you_mean

STDIN = "-"
_SHORT = 80


class KeyInput:
    """Collects the values of one key's fields; ConfigError on the first thing that is unclear."""

    def __init__(self, environment: str, key: str, definition: KeyDefinition, option: str = "") -> None:
        self._place = f"{environment} {key}{option}"
        self._key = key
        self._fields = tuple(definition.fields)
        self._stdin_field = ""
        self.values: dict[str, SecretValue] = {}
        self.ways: list[str] = []
        """How they were given, for the audit row."""

    def collect(
        self,
        flags: Mapping[str, str],
        files: Sequence[str],
        variables: Sequence[str],
        stdin: str | None,
        environ: Mapping[str, str],
    ) -> None:
        """Take what the command was given."""
        self._from_flags(flags)
        for given in files:
            field, separator, path = given.partition("=")
            if not separator or not path:
                raise ConfigError(
                    f"--from-file: what is given for {self._key!r} is not FIELD=PATH",
                    f"Write --from-file FIELD=PATH, the path of a file that holds the value. {self._its_fields()}",
                )
            self._from_file(self._field(field, "--from-file"), path)
        self._from_variables([name.strip() for text in variables for name in text.split(",") if name.strip()], environ)
        if stdin is not None:
            self._from_stdin(self._field(stdin, "--stdin"))

    def add(self, field: str, value: SecretValue, way: str) -> None:
        """One value; ConfigError when the field has one already."""
        if field in self.values:
            raise ConfigError(f"the field {field!r} of {self._key!r} is given twice", "Give each field once.")
        self.values[field] = value
        if way not in self.ways:
            self.ways.append(way)

    def _from_flags(self, flags: Mapping[str, str]) -> None:
        shown = False
        for flag, text in flags.items():
            field = self._field(flag)
            if text == STDIN:
                self._from_stdin(field)
            else:
                self.add(field, SecretValue(text), "flags")
                shown = True
        if shown:
            talk(
                "warning: values given as flags are seen by others in the list of processes (ps) and stay in the"
                f" shell's history; `ssmd key set {self._place}` asks for them without showing them"
            )

    def _from_file(self, field: str, path: str) -> None:
        if path == STDIN:
            self._from_stdin(field)
            return
        self.add(field, read_file(path, f"--from-file {field}="), "file")

    def _from_variables(self, given: Sequence[str], environ: Mapping[str, str]) -> None:
        for number, text in enumerate(given, 1):
            explicit, separator, name = text.rpartition("=")
            if not name or name not in environ:
                which = "what is given" if len(given) == 1 else f"number {number} of what is given"
                raise ConfigError(
                    f"--from-env: {which} for {self._key!r} is not the name of an environment variable that is set",
                    "It takes VAR or FIELD=VAR, a variable's name and not its value; export it first. Another way:"
                    f" ssmd key set {self._place} (it asks)",
                )
            field = self._field(explicit, "--from-env") if separator else self._matching(name)
            if not environ[name]:
                raise ConfigError(f"--from-env: the environment variable {_short(name)!r} is empty", "Give it a value.")
            self.add(field, SecretValue(environ[name]), "variables")

    def _matching(self, name: str) -> str:
        """The field whose name the variable's name ends with; the longest when there are several."""
        lower = name.lower()
        fits = [field for field in self._fields if lower == field or lower.endswith(f"_{field}")]
        if not fits:
            raise ConfigError(
                f"--from-env: {_short(name)!r} ends with the name of no field of {self._key!r}",
                f"Write FIELD={_short(name)}; the fields: {', '.join(self._fields)}.",
            )
        return max(fits, key=len)

    def _from_stdin(self, field: str) -> None:
        if self._stdin_field:
            raise ConfigError(
                f"stdin cannot hold both {self._stdin_field!r} and {field!r}", "Use --from-file for one of them."
            )
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError(
                f"stdin is a terminal; nothing is piped in for {field!r}",
                f"Run: ssmd key set {self._place} (it asks without showing what you type)",
            )
        self._stdin_field = field
        self.add(field, _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "stdin"), "stdin")

    def _field(self, given: str, option: str = "") -> str:
        """The field that a flag, or what follows an `option`, names; the latter is not repeated."""
        field = given.lower().replace("-", "_")
        if field in self._fields:
            return field
        hint = did_you_mean(field[:_SHORT], self._fields, self._its_fields())
        named = f"{option}: it names" if option else f"{_short(given)!r} is"
        raise ConfigError(f"{named} no field of the key {self._key!r}", hint)

    def _its_fields(self) -> str:
        return f"Its fields: {', '.join(self._fields)}."


def read_file(path: str, given: str) -> SecretValue:
    """The text of a file that a person named; errors say how it was `given`, not the path: it may be the secret."""
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError(
            f"{given}: cannot read the file that it names: {reason}", "Correct the path. Nothing was changed."
        ) from None
    return _decoded(raw, f"{given}: the file")


def _decoded(raw: bytes, where: str) -> SecretValue:
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{where} has more than {MAX_BYTES} bytes", "A secret is text: a password, a token, PEM.")
    try:
        return SecretValue(raw.decode())
    except UnicodeDecodeError:  # without the cause: it would quote the bytes
        raise ConfigError(f"{where} is not text", "A secret is text: a password, a token, PEM (not DER).") from None


def chosen_key(environment: str, name: str, known: Iterable[str]) -> str:
    """`name` when the environment defines it; ConfigError with near misses."""
    names = list(known)
    if name in names:
        return name
    otherwise = f"Its keys: {', '.join(names) or 'none'}."
    raise ConfigError(
        f"the environment {environment!r} has no key {_short(name)!r}", did_you_mean(name[:_SHORT], names, otherwise)
    )


def no_more(extra: Sequence[str], environment: str, key: str, file: Path | None) -> None:
    """ConfigError when something follows the key's name: it may be a secret, and is not repeated."""
    if extra:
        option = f" -f {quote(_short(str(file)))}" if file is not None else ""
        raise ConfigError(
            f"{len(extra)} argument{'s' if len(extra) > 1 else ''} too many: a value is not given as an argument",
            f"Run: ssmd key set {environment[:_SHORT]} {key[:_SHORT]}{option} (it asks), or see: ssmd key set --help",
        )


def _short(text: str) -> str:
    """What may be echoed of an argument: its beginning, printable."""
    return "".join(letter if letter.isprintable() else "·" for letter in text[:_SHORT])
