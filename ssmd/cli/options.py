"""Options that many commands share, and the environment file they lead to."""

import getpass
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from ssmd.config.environment import Environment
from ssmd.config.loading import load
from ssmd.config.paths import ssmd_home
from ssmd.errors import ConfigError, SsmdError
from ssmd.nearest import did_you_mean
from ssmd.resources import resource

DEFAULT_FILE = Path("environments/local.yaml")

EnvFile = Annotated[
    Path | None,
    Parameter(name=["--env", "-f", "--file"], help="Environment file; default: $SSMD_ENV or environments/local.yaml."),
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Answer as JSON.")]
Feed = Annotated[str | None, Parameter(name="--feed", help="Feed; default: the environment's.")]


class Chosen(NamedTuple):
    """An environment, its file, and where the state of this machine is."""

    environment: Environment
    file: Path
    home: Path

    def feed(self, given: str | None) -> str:
        """The feed a command is about."""
        return given or self.environment.spec.feed

    @property
    def with_name(self) -> str:
        """What a printed command has to add to this environment's name to find it: ` -f FILE`, or nothing."""
        return file_option(self.environment.name, self.file)

    @property
    def with_file(self) -> str:
        """What a printed command that takes no name has to add to be about this environment: ` -f FILE`, or nothing."""
        return "" if _same(environment_file(None), self.file) else _option(self.file)


def choose(file: Path | None) -> Chosen:
    """Load the environment that a command is about; ConfigError with everything that is wrong with it."""
    path = environment_file(file)
    return Chosen(load(path), path, ssmd_home(os.environ))


def environment_file(given: Path | None) -> Path:
    """The file that was named, or $SSMD_ENV, or environments/local.yaml here, or the one that was installed."""
    if given is not None:
        return given
    if named := os.environ.get("SSMD_ENV"):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else resource("environments") / DEFAULT_FILE.name


def choose_named(name: str, file: Path | None) -> Chosen:
    """The environment called `name`: the file given, or the one in environments/ (here, or installed) of that name.

    ConfigError with near misses when there is none, or when the file given is another environment's.
    """
    if file is not None:
        chosen = choose(file)
        if chosen.environment.name != name:
            found = chosen.environment.name
            raise ConfigError(
                f"{file} is the environment {found!r}, not {name[:80]!r}", f"Name {found!r}, or its file."
            )
        return chosen
    known: dict[str, Path] = {}
    for found, path in _known():
        known.setdefault(found, path)
    if name not in known:
        otherwise = f"Known: {', '.join(sorted(known)) or 'none'}."
        looked = (
            "no file in environments/, nor $SSMD_ENV," if os.environ.get("SSMD_ENV") else "no file in environments/"
        )
        raise ConfigError(
            f"{looked} is the environment {name[:80]!r}",
            f"{did_you_mean(name, known, otherwise)} For one in another file, add: -f FILE",
        )
    return choose(known[name])


def file_option(name: str, file: Path) -> str:
    """` -f FILE` for a printed command, where the name of the environment in `file` alone does not lead to it."""
    found = next((path for known, path in _known() if known == name), None)
    return "" if found is not None and _same(found, file) else _option(file)


def _option(file: Path) -> str:
    return f" -f {shlex.quote(str(file))}"


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _known() -> Iterator[tuple[str, Path]]:
    """The environments that are found by name; the first file of a name counts."""
    for path in _environment_files():
        try:
            yield load(path).name, path
        except SsmdError:  # a broken file is reported when it is asked for
            continue


def _environment_files() -> list[Path]:
    """Where environments are looked for by name: $SSMD_ENV, then the folder here, then what was installed."""
    named = [Path(text)] if (text := os.environ.get("SSMD_ENV")) else []
    folders = (DEFAULT_FILE.parent, resource("environments"))
    return named + [path for folder in folders for path in sorted(folder.glob("*.y*ml"))]


def actor() -> str:
    """Who is acting, for audit rows: `cli:user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"cli:{user}@{socket.gethostname()}"[:128]
