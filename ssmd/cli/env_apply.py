"""`ssmd env apply`: validate, ask, write the version and the log in one transaction, tell the journal."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from shlex import quote

import msgspec

from ssmd.cli.commits import commit_of
from ssmd.cli.env_checks import look, read
from ssmd.cli.env_report import Check, KeyNotSet, exit_code, problem_checks, show_checks
from ssmd.cli.opening import Opener, database_of
from ssmd.cli.options import Chosen, actor
from ssmd.cli.output import BAD, GOOD, WAITING, show_json, talk
from ssmd.config.loading import InvalidEnvironment
from ssmd.config.middleware import MemoryJournal
from ssmd.config.paths import ssmd_home
from ssmd.errors import (
    EXIT_CONFIG,
    EXIT_DONE,
    EXIT_FINDINGS,
    EXIT_REFUSED,
    ConfigError,
    RefusedError,
    SsmdError,
    Unavailable,
)
from ssmd.keys.state import KeyState
from ssmd.registry.environments import Deployed, EnvironmentCatalogue, Trigger

_JOURNAL_TIMEOUT_S = 5.0


def apply_file(file: Path, *, yes: bool, trigger: Trigger, json: bool) -> int:
    """See `ssmd.cli.env.apply`."""
    try:
        chosen = Chosen(read(file), file, ssmd_home(os.environ))
    except InvalidEnvironment as invalid:
        if json:
            show_checks(problem_checks(invalid), as_json=True)
        raise
    if chosen.environment.spec.database_url is None:
        raise ConfigError(
            f"the environment {chosen.environment.name!r} cannot be deployed: it names no database to record it in",
            "Add spec.database.url.",
        )
    checks, states = look(chosen, write=True)
    show_checks(checks, as_json=False, to_stderr=json)
    error = verdict(chosen, checks, states)
    if error is not None:
        if json:
            show_checks(checks, as_json=True)
        talk("")
        raise error
    if not yes:
        _ask(file)
    commit, why_none = commit_of(file)
    by = actor()
    with database_of(chosen) as database:
        deployed = EnvironmentCatalogue(database).deploy(chosen.environment, by=by, trigger=trigger, commit=commit)
    findings = _tell_journal(chosen, deployed, trigger, by)
    _show(deployed, why_none, findings, json=json)
    return EXIT_FINDINGS if findings else EXIT_DONE


def verdict(chosen: Chosen, checks: list[Check], states: list[KeyState]) -> SsmdError | None:
    """The error that the checks add up to; None when nothing stands against the environment."""
    code = exit_code(checks)
    if code == EXIT_DONE:
        return None
    missing = [state for state in states if state.required and state.status != "set"]
    if code == EXIT_REFUSED and missing:
        return KeyNotSet(chosen.environment.name, missing, chosen.with_name)
    bad = [check for check in checks if exit_code([check]) != EXIT_DONE]
    first = next(check for check in bad if exit_code([check]) == code)
    more = f" ({len(bad) - 1} more above)" if len(bad) > 1 else ""
    kind = {EXIT_CONFIG: ConfigError, EXIT_REFUSED: RefusedError}.get(code, Unavailable)
    return kind(f"Error: {first.text}{more}", first.fix)


def _ask(file: Path) -> None:
    """A yes from the terminal or from stdin; RefusedError otherwise."""
    sys.stderr.write("\nReady to deploy. Proceed? [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline(1_000) if sys.stdin is not None else ""
    except (OSError, ValueError):  # closed, or no text
        answer = ""
    if not answer:
        talk("")
        raise RefusedError(
            "not deployed: nobody answered", f"To deploy without asking: ssmd env apply {quote(str(file))} --yes"
        )
    if answer.strip().lower() not in ("y", "yes"):
        raise RefusedError("not deployed: the answer was not y")


def _tell_journal(chosen: Chosen, deployed: Deployed, trigger: Trigger, by: str) -> list[str]:
    """An entry in the journal's topic `deployments`; the deployment stands, and what went wrong is a finding."""
    config = chosen.environment.spec.middleware.journal
    if isinstance(config, MemoryJournal):
        return []
    topic, version = config.topics.deployments, deployed.version
    entry = {
        "environment": version.environment, "version": version.version, "config_hash": version.config_hash,
        "git_commit": version.git_commit, "action": deployed.action, "new": deployed.new, "trigger": trigger, "by": by,
        "valid_from": version.valid_from,
    }  # fmt: skip
    identity = f"{version.environment}:{version.config_hash[:16]}:{version.deployed_at}:{deployed.log_id}"

    async def append() -> None:
        async with asyncio.timeout(_JOURNAL_TIMEOUT_S), AsyncExitStack() as stack:
            journal = Opener(chosen, stack).journal()
            await journal.create_topic(topic)
            await journal.append(topic, msgspec.json.encode(entry), key=version.environment, id=identity)

    try:
        asyncio.run(append())
    except (SsmdError, TimeoutError) as error:
        why = error.message if isinstance(error, SsmdError) else "no answer in time"
        return [f"the journal topic {topic} was not told of this deployment: {why}"]
    return []


def _show(deployed: Deployed, why_no_commit: str, findings: list[str], *, json: bool) -> None:
    version = deployed.version
    said = f"{version.environment} version {version.version}"
    if json:
        row = msgspec.to_builtins(version) | {"new": deployed.new, "action": deployed.action, "log_id": deployed.log_id}
        show_json(row | {"findings": findings})
        return
    for finding in findings:
        talk(f"{BAD} {finding}")
    if not deployed.new:
        print(f"{WAITING} {said} is deployed already, with the same content: no new version")
        return
    same = f" (the same as version {deployed.same_as})" if deployed.same_as else ""
    commit = f", git commit {version.git_commit[:12]}" if version.git_commit else f"; {why_no_commit}"
    print(f"{GOOD} Deployed {said}{same}, hash {version.config_hash[:12]}{commit}")
