"""Counted problems on their way to the registry: few, however long it is away, and counted there once."""

import asyncio
from uuid import uuid4

import structlog

from ssmd.registry.interface import Issue, Registry
from ssmd.registry.values import issue_identity, merged_issue

MAX_KINDS = 1_000
"""Kinds and days of problems that wait; further ones are logged and forgotten."""

_log = structlog.get_logger()


class UnwrittenIssues:
    """Issues of a kind and day are counted together while they wait.

    What is sent is a batch with a name, and is sent unchanged until it is acknowledged: when only the acknowledgement
    was lost, the registry knows the name and does not count again.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiting: dict[tuple[object, ...], Issue] = {}
        self._sent: tuple[str, list[Issue]] | None = None
        self._writing = asyncio.Lock()

    def add(self, issue: Issue) -> None:
        """Count it with what waits."""
        identity = issue_identity(issue)
        known = self._waiting.get(identity)
        if known is None and len(self._waiting) >= MAX_KINDS:
            _log.error("issue forgotten, too many wait", feed=issue.feed, issue=issue.detail, count=issue.count)
            return
        self._waiting[identity] = merged_issue(known, issue) if known else issue

    async def write(self) -> None:
        """Write all; RegistryUnavailable when that is not possible now, and nothing is lost."""
        async with self._writing:
            while self._sent or self._waiting:
                if self._sent is None:
                    self._sent = str(uuid4()), list(self._waiting.values())
                    self._waiting.clear()
                batch, issues = self._sent
                await asyncio.to_thread(self._registry.record_issues, issues, batch)
                self._sent = None
