"""`ssmd doctor`: is this machine fit, and what to do where it is not."""

import asyncio
from contextlib import AsyncExitStack

import msgspec

from ssmd.cli.opening import Opener, resolver_of
from ssmd.cli.options import Chosen, EnvFile, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json
from ssmd.cli.up import plan_of
from ssmd.config.middleware import LocalStorage, S3Storage
from ssmd.config.references import variable
from ssmd.errors import EXIT_DONE, EXIT_REFUSED
from ssmd.local.doctor import Check, check_storage, machine_checks
from ssmd.local.home import Home
from ssmd.local.plan import Options

_MARKS = {"good": GOOD, "warning": WAITING, "bad": BAD}


def doctor(*, env: EnvFile = None, json: Json = False) -> int:
    """Check this machine and the environment; each line that is not ✓ says what to do. Exit code 3 when one is ✗."""
    chosen = choose(env)
    plan = plan_of(chosen, Options())
    spool = chosen.home / chosen.environment.spec.connector.spool.path
    checks = [*machine_checks(plan, Home(chosen.home), spool), _keys(chosen), asyncio.run(_storage(chosen))]
    if json:
        show_json([msgspec.to_builtins(check) for check in checks])
    else:
        for check in checks:
            mark_line(_MARKS[check.state], check.name, check.detail, check.fix)
    return EXIT_REFUSED if any(check.state == "bad" for check in checks) else EXIT_DONE


def _keys(chosen: Chosen) -> Check:
    missing = resolver_of(chosen).missing()
    if not missing:
        return Check("keys", "good", "every required key has a value")
    name, _, field = missing[0].partition(".")
    spelled = variable(name, field)
    return Check(
        "keys", "warning", f"no value for {', '.join(missing)}",
        f"Run: ssmd key set {chosen.environment.name} {name}{chosen.with_name} (or set {spelled} or {spelled}_FILE);"
        " the simulated exchange needs none.",
    )  # fmt: skip


async def _storage(chosen: Chosen) -> Check:
    config = chosen.environment.spec.middleware.storage
    where = "memory"
    if isinstance(config, LocalStorage):
        where = str(chosen.home / config.path)
    elif isinstance(config, S3Storage):
        where = config.endpoint or "AWS S3"
    async with AsyncExitStack() as stack:
        return await check_storage(Opener(chosen, stack).storage(), config.buckets.raw, where)
