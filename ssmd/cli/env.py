"""`ssmd env`: check environment files, deploy them, and ask what was deployed when."""

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from cyclopts import App, Parameter

from ssmd.cli.moments import AsOf, moment
from ssmd.cli.options import Chosen, EnvFile, Json, actor, environment_file, file_option
from ssmd.cli.output import GOOD, show_json, talk
from ssmd.errors import EXIT_CONFIG, EXIT_DONE, ConfigError

app = App(name="env", help="Environments: check files, deploy them, ask what was deployed when.")

Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")]


@app.command
def validate(file: Path | None = None, *, json: Json = False) -> int:
    """Check an environment file and all that it names: keys, feed, schemas, servers. Changes nothing.

    Exit code 2 when the file is wrong, 3 when something is not as it must be (a key is not set, the feed is not
    active), 7 when a server is away.
    """
    from ssmd.cli.env_apply import verdict
    from ssmd.cli.env_checks import look, read
    from ssmd.cli.env_report import exit_code, problem_checks, show_checks
    from ssmd.config.loading import InvalidEnvironment
    from ssmd.config.paths import ssmd_home

    path = environment_file(file)
    try:
        chosen = Chosen(read(path), path, ssmd_home(os.environ))
    except InvalidEnvironment as error:
        if not json:
            raise
        show_checks(problem_checks(error), as_json=True)
        return EXIT_CONFIG
    checks, states = look(chosen)
    show_checks(checks, as_json=json)
    against = verdict(chosen, checks, states)
    if not json:
        talk(f"\n{against or f'Ready to deploy. Run: ssmd env apply {quote(str(path))}'}")
    return exit_code(checks)


@app.command
def apply(
    file: Path, *, yes: Yes = False, trigger: Literal["manual", "gitops", "scheduled"] = "manual", json: Json = False
) -> int:
    """Deploy an environment file: check it, ask, record it as the version in force from now on.

    Exit code 6: deployed, but the journal could not be told.

    Parameters
    ----------
    trigger
        What made you do it; stands in the deployment log.
    """
    from ssmd.cli.env_apply import apply_file

    return apply_file(file, yes=yes, trigger=trigger, json=json)


@app.command
def create(
    name: str,
    *,
    from_: Annotated[Path, Parameter(name="--from", help="The environment file; its metadata.name must be NAME.")],
    env: EnvFile = None,
    json: Json = False,
) -> int:
    """Make an environment known to the registry, as version 1, without deploying it."""
    from ssmd.cli.commits import commit_of
    from ssmd.cli.env_checks import read
    from ssmd.cli.env_versions import catalogue, version_row

    environment = read(from_)
    if environment.name != name:
        raise ConfigError(
            f"{from_} is the environment {environment.name!r}, not {name[:80]!r}",
            f"Run: ssmd env create {environment.name} --from {quote(str(from_))}, or change its metadata.name.",
        )
    commit, _ = commit_of(from_)
    with catalogue(name, env, from_) as environments:
        version = environments.create(environment, by=actor(), commit=commit)
    if json:
        show_json(version_row(version))
    else:
        print(f"{GOOD} Created {name} version {version.version}, hash {version.config_hash[:12]}; not deployed")
        init = f"ssmd key init {name}{file_option(name, from_)}"
        talk(f"To set its keys: {init}. To deploy it: ssmd env apply {quote(str(from_))}")
    return EXIT_DONE


@app.command
def show(name: str, *, as_of: AsOf = None, version: int | None = None, env: EnvFile = None, json: Json = False) -> int:
    """Show an environment as it is deployed, or was at a time, or one of its versions.

    Parameters
    ----------
    version
        This version, whether or when it was deployed.
    """
    from datetime import UTC, datetime

    from ssmd.cli.env_versions import catalogue, show_version

    if as_of is not None and version is not None:
        raise ConfigError("--as-of and --version both say which version is meant", "Give one of them.")
    at = moment("--as-of", as_of, datetime.now(UTC)) if as_of is not None else None
    with catalogue(name, env) as environments:
        if version is not None:
            found = environments.version(name, version)
        elif at is not None:
            found = environments.as_of(name, at)
        else:
            found = environments.newest(name)
    show_version(found, json=json)
    return EXIT_DONE


@app.command
def diff(
    name: str,
    *,
    v1: Annotated[int | None, Parameter(name="--v1", help="Older version; default: the one before v2.")] = None,
    v2: Annotated[int | None, Parameter(name="--v2", help="Newer version; default: the latest.")] = None,
    env: EnvFile = None,
    json: Json = False,
) -> int:
    """Show what changed between two versions: the lines of the file, and the settings."""
    from ssmd.cli.env_versions import catalogue, show_difference

    with catalogue(name, env) as environments:
        newer = v2 if v2 is not None else len(environments.versions(name))
        older = v1 if v1 is not None else newer - 1
        old, new = environments.version(name, older), environments.version(name, newer)
    show_difference(old, new, json=json)
    return EXIT_DONE


@app.command
def history(name: str, *, env: EnvFile = None, json: Json = False) -> int:
    """Show the versions of an environment and its deployments, the latest first."""
    from ssmd.cli.env_versions import catalogue, show_history

    with catalogue(name, env) as environments:
        versions, deployments = environments.versions(name), environments.deployments(name)
    show_history(name, versions, deployments, json=json)
    return EXIT_DONE


@app.command(name="list")
def list_environments(*, env: EnvFile = None, json: Json = False) -> int:
    """List the environments that the registry knows, and which version of each is deployed."""
    from ssmd.cli.env_versions import catalogue, show_list

    with catalogue(None, env) as environments:
        known = environments.environments()
    show_list(known, json=json)
    return EXIT_DONE
