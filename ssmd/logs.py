"""Logging of commands that answer people: warnings as plain lines on stderr; structlog loads when one is said."""

import importlib
import importlib.util
import logging
import sys
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

_NAME = "structlog"


class _Waiting(ModuleType):
    """Stands for structlog until something of it is used; then it is loaded, and configured for people."""

    def __init__(self, level: int) -> None:
        super().__init__(_NAME)
        self.__spec__ = importlib.util.find_spec(_NAME)
        self.__file__ = self.__spec__.origin if self.__spec__ else None
        self.wanted_level = level
        self._real: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if self._real is None:
            # importlib's own LazyLoader would load at the next `import structlog`, which looks at __spec__.
            del sys.modules[_NAME]
            self._real = importlib.import_module(_NAME)
            _configure(self.wanted_level)
        return getattr(self._real, name)


def load_when_needed() -> None:
    """Let `import structlog` cost nothing (0.1 s) until something is logged; it is then configured for people.

    For the program's start; does nothing when structlog is loaded already.
    """
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _Waiting(logging.WARNING)


def log_for_people(level: int = logging.WARNING) -> None:
    """Commands that answer on stdout: warnings go to stderr as plain lines, `warning: msg  key=value`."""
    waiting = sys.modules.get(_NAME)
    if isinstance(waiting, _Waiting):
        waiting.wanted_level = level
    else:
        _configure(level)


def _configure(level: int) -> None:
    import structlog

    def plain(_logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        said = event.pop("event", "")
        rest = " ".join(f"{name}={value}" for name, value in event.items() if name != "exception")
        return f"{method}: {said}  {rest}".rstrip()

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info, plain],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
