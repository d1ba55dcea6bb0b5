"""What the stack that `ssmd up` runs here makes of an environment's keys: its demo key, and those it began with."""

from ssmd.cli.options import Chosen
from ssmd.config.references import variable
from ssmd.local.home import Home, StackRecord


def demo_key(chosen: Chosen) -> str:
    """The key that the running stack of this environment gives its connector for its simulated exchange; or ""."""
    record = _running(chosen)
    return chosen.environment.spec.feed if record and "simulator" in record.programs else ""


def given_at_start(chosen: Chosen, key: str) -> list[str]:
    """The variables with which the running stack was started and that its services read before any store."""
    record = _running(chosen)
    if record is None or key not in chosen.environment.spec.keys:
        return []
    names = [variable(key, field) for field in chosen.environment.spec.keys[key].fields]
    return [spelled for name in names for spelled in (name, f"{name}_FILE") if spelled in record.given]


def _running(chosen: Chosen) -> StackRecord | None:
    record = Home(chosen.home).read_record()
    if record is None or record.environment != chosen.environment.name:
        return None
    return record if record.supervisord.alive else None
