"""Options that many commands share, and the environment file they lead to."""

import os
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from ssmd.config.environment import Environment
from ssmd.config.loading import load
from ssmd.config.paths import ssmd_home
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
