"""A running service outlives whatever the registry answers, says so once, and loses only what cannot be stored."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from ssmd.errors import ConfigError, FatalError
from ssmd.market.events import Gap
from ssmd.registry.interface import Issue, RegistryRefused, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.patient import PatientRegistry
from ssmd.registry.unwritten import UnwrittenIssues
from ssmd.telemetry import REGISTRY_LEFT_OUT
from tests.events import DAY, NOON


class Moody(MemoryRegistry):
    """A registry that fails as told, before it has stored a batch of issues or after."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Exception | None = None
        self.after: Exception | None = None

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        if self.before is not None:
            raise self.before
        super().record_issues(issues, batch)
        if self.after is not None:
            raise self.after

    def ping(self) -> None:
        if self.before is not None:
            raise self.before


def issue(count: int, issue_type: str = "parse_error", detail: str = "") -> Issue:
    return Issue("kalshi", DAY, "raw", issue_type, "warning", count, detail=detail)


def counts(registry: MemoryRegistry) -> dict[str, int]:
    return {one.detail: one.count for one in registry.issues("kalshi", DAY)}


@pytest.mark.parametrize(
    "error",
    [
        RegistryUnavailable("it does not answer"),
        RegistryRefused("it refuses user 'svc'", "Correct it."),
        ConfigError("the key postgres.password is gone"),
        FatalError("it does not support this"),
        RuntimeError("a bug"),
    ],
)
def test_every_failure_is_being_away_told_when_it_begins_and_when_it_ends(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    moody = Moody()
    registry = PatientRegistry(moody)
    moody.before = error
    for _ in range(3):
        with pytest.raises(RegistryUnavailable):
            registry.ping()
    assert str(getattr(error, "message", error)) in registry.problem
    moody.before = None
    for _ in range(3):
        registry.ping()

    assert registry.problem == ""
    said = capsys.readouterr().out
    assert (said.count("registry away"), said.count("registry back")) == (1, 1)


def test_another_kind_of_trouble_is_told_again() -> None:
    moody = Moody()
    registry = PatientRegistry(moody)
    for error in (RegistryUnavailable("no answer"), RegistryRefused("refuses user 'svc'")):
        moody.before = error
        with pytest.raises(RegistryUnavailable):
            registry.ping()
        assert registry.problem == error.message


def test_a_value_that_is_refused_costs_itself_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    inner = MemoryRegistry()
    registry = PatientRegistry(inner)
    left_out = REGISTRY_LEFT_OUT.labels("record_issues")._value.get()
    batch = str(uuid4())
    issues = [issue(n, "no such type" if n in (1, 4) else "parse_error", f"kind {n}") for n in range(1, 8)]
    registry.record_issues(issues, batch)
    registry.record_issues(issues, batch)  # its acknowledgement was lost

    assert counts(inner) == {f"kind {n}": n for n in (2, 3, 5, 6, 7)}
    assert REGISTRY_LEFT_OUT.labels("record_issues")._value.get() == left_out + 4
    assert "no such type" in capsys.readouterr().out
    assert registry.problem == ""

    gaps = [Gap("kalshi", "c-1", None, NOON + n, NOON + n + 1, reason, None, None, None)
            for n, reason in enumerate(("silence", "bad luck", "startup"))]  # fmt: skip
    registry.record_gaps(gaps)
    assert [gap.reason for gap in inner.gaps("kalshi", DAY)] == ["silence", "startup"]
    registry.record_heard("kalshi", ["never listed"], datetime.now(UTC))


async def test_issues_whose_acknowledgement_was_lost_are_counted_once() -> None:
    moody = Moody()
    unwritten = UnwrittenIssues(moody)
    unwritten.add(issue(5, detail="repeat"))
    moody.after = RegistryUnavailable("the server closed the connection unexpectedly")
    with pytest.raises(RegistryUnavailable):
        await unwritten.write()
    unwritten.add(issue(2, detail="repeat"))  # must not travel under the name of what may have arrived
    with pytest.raises(RegistryUnavailable):
        await unwritten.write()
    moody.after = None
    await unwritten.write()
    await unwritten.write()

    assert counts(moody) == {"repeat": 7}


async def test_issues_that_never_arrived_are_not_lost() -> None:
    moody = Moody()
    unwritten = UnwrittenIssues(moody)
    moody.before = RegistryUnavailable("no answer")
    for _ in range(3):
        unwritten.add(issue(1, detail="repeat"))
        with pytest.raises(RegistryUnavailable):
            await unwritten.write()
    moody.before = None
    await unwritten.write()

    assert counts(moody) == {"repeat": 3}
