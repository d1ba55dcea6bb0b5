"""What the registry keeps of environments: which database to ask, and how versions, differences and logs look."""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen, choose, choose_named
from ssmd.cli.output import cell, show_json, show_rows, talk
from ssmd.config.loading import loads
from ssmd.config.writing import settings
from ssmd.errors import ConfigError
from ssmd.registry.environments import Deployment, EnvironmentCatalogue, EnvironmentVersion, KnownEnvironment

_VERSION_COLUMNS = {
    "version": "VERSION", "valid_from": "VALID_FROM", "valid_to": "VALID_TO", "deployed_by": "DEPLOYED_BY",
    "config_hash": "HASH", "git_commit": "GIT_COMMIT",
}  # fmt: skip
_LOG_COLUMNS = {
    "started_at": "AT", "action": "ACTION", "version": "VERSION", "status": "STATUS", "trigger": "TRIGGER",
    "triggered_by": "BY", "error": "ERROR",
}  # fmt: skip
_LIST_COLUMNS = {
    "name": "NAME", "status": "STATUS", "version": "VERSION", "versions": "VERSIONS", "deployed_at": "DEPLOYED_AT",
    "deployed_by": "DEPLOYED_BY",
}  # fmt: skip


@contextmanager
def catalogue(name: str | None, asked: Path | None, described: Path | None = None) -> Iterator[EnvironmentCatalogue]:
    """The environments in the database that is meant: that of the file `asked` (--env), where one is given.

    Else that of the file that describes the environment; without one, $SSMD_ENV's, or that of the file in
    environments/ called `name`. Where there is none, or its database needs a key that is not set here, the default
    environment's is asked.
    """
    with database_of(_meant(name, asked, described)) as database:
        yield EnvironmentCatalogue(database)


def _meant(name: str | None, asked: Path | None, described: Path | None) -> Chosen:
    if asked is not None:
        return choose(asked)
    if described is not None:
        return _usable(choose(described))
    if name is None or os.environ.get("SSMD_ENV"):
        return choose(None)
    try:
        named = choose_named(name, None)
    except ConfigError:
        return choose(None)
    return _usable(named)


def _usable(named: Chosen) -> Chosen:
    """`named`, when the URL of its database is known here; else the default environment."""
    try:
        with database_of(named):
            return named
    except ConfigError as error:
        default = choose(None)
        if default.file != named.file:
            talk(f"asking the database of {default.environment.name}: {error.message}")
        return default


def show_version(version: EnvironmentVersion, *, json: bool) -> None:
    """The file as it was deployed, below a header of comments; it can be used as a file again."""
    if json:
        show_json(version_row(version))
        return
    print(f"# {version.environment} version {version.version}")
    if version.valid_from is None:
        print(f"# created {_time(version.created_at)} by {cell(version.created_by)}; not deployed")
    else:
        until = f" to {_time(version.valid_to)}" if version.valid_to else " until now"
        print(f"# deployed by {cell(version.deployed_by)}; in force from {_time(version.valid_from)}{until}")
    print(f"# hash {version.config_hash}; git commit {version.git_commit or 'none'}")
    print(version.config_yaml, end="")


def show_difference(old: EnvironmentVersion, new: EnvironmentVersion, *, json: bool) -> None:
    """A unified diff of both files, and every setting that changed, defaults included."""
    lines = list(
        difflib.unified_diff(
            old.config_yaml.splitlines(), new.config_yaml.splitlines(),
            f"{old.environment} version {old.version}", f"{new.environment} version {new.version}", lineterm="",
        )
    )  # fmt: skip
    before, after = settings(_config(old)), settings(_config(new))
    changes: list[dict[str, Any]] = [
        {"path": path, "old": before.get(path), "new": after.get(path)}
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]
    if json:
        versions = {"environment": old.environment, "v1": old.version, "v2": new.version}
        show_json(versions | {"changes": changes, "diff": lines})
        return
    if not lines:
        talk(f"versions {old.version} and {new.version} of {old.environment} say the same")
        return
    for line in lines:
        print(line)
    print("\nChanged settings:")
    for change in changes:
        print(f"  {change['path']}: {_said(change['old'])} → {_said(change['new'])}")


def show_history(name: str, versions: list[EnvironmentVersion], deployments: list[Deployment], *, json: bool) -> None:
    """Every version, and every deployment, the latest first."""
    known = [_row(version, without=("config_yaml", "environment")) for version in reversed(versions)]
    log = [_row(deployment) for deployment in deployments]
    if json:
        show_json({"environment": name, "versions": known, "deployments": log})
        return
    short = [_brief(row) | {"config_hash": row["config_hash"][:12], "git_commit": (row["git_commit"] or "-")[:12]}
             for row in known]  # fmt: skip
    show_rows(short, _VERSION_COLUMNS, as_json=False, empty=f"{name} has no version yet")
    if log:
        print()
    show_rows([_brief(row) for row in log], _LOG_COLUMNS, as_json=False, empty=f"{name} was never deployed")


def show_list(known: list[KnownEnvironment], *, json: bool) -> None:
    """The environments."""
    empty = "no environments are known; to add one: ssmd env create NAME --from FILE"
    rows = [_row(one) if json else _brief(_row(one)) for one in known]
    show_rows(rows, _LIST_COLUMNS, as_json=json, empty=empty)


def version_row(version: EnvironmentVersion) -> dict[str, Any]:
    """A version as JSON has it."""
    return _row(version)


def _row(value: msgspec.Struct, without: tuple[str, ...] = ()) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(value)
    return {name: inner for name, inner in row.items() if name not in without}


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """Times to the second."""
    return {
        name: f"{value[:19]}Z" if name.endswith(("_at", "_from", "_to")) and value else value
        for name, value in row.items()
    }


def _config(version: EnvironmentVersion) -> Any:
    return loads(version.config_yaml.encode(), f"{version.environment} version {version.version}")


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list | bool) else cell(value)
