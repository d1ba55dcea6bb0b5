"""Settings of a gateway under test."""

from typing import Any

from ssmd.config.environment import Gateway as Settings


def any_port(**settings: Any) -> Settings:
    """Those of an environment file, on any free port (which no file can ask for)."""
    return Settings(**settings).model_copy(update={"port": 0})
