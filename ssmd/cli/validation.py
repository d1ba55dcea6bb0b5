"""The error of a command that asked the registry before it acted, and got no for an answer."""

from collections.abc import Sequence

from ssmd.errors import ConfigError

MAX_PROBLEMS = 20


def validation_failed(problems: Sequence[str], footer: Sequence[str] = ()) -> ConfigError:
    """`Error: Validation failed`, each problem on its line (at most 20), then what there is instead."""
    shown = [f"  - {problem}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"  - and {len(problems) - MAX_PROBLEMS} more")
    return ConfigError("\n".join(["Error: Validation failed", *shown, *(["", *footer] if footer else [])]))
