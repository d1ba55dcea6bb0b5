"""Which process a stored name means, and whether it is over, as far as its machine can tell."""

import os
import subprocess

import pytest

from ssmd.local import process_name
from ssmd.local.process_name import has_ended, own_name
from ssmd.local.processes import identify


def name_of(pid: int) -> str:
    """The name that the process would give itself."""
    process, own = identify(pid), own_name()
    assert process is not None
    assert own is not None
    return ":".join([*own.split(":")[:3], str(pid), str(process.started)])


def test_a_process_runs_until_it_was_killed_and_its_number_may_be_taken_again() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        name = name_of(child.pid)
        assert has_ended(name) is False
        child.kill()
        child.wait()
        assert has_ended(name) is True
    own = name_of(os.getpid())
    assert own == own_name()
    assert has_ended(own) is False
    *place, started = own.split(":")
    assert has_ended(":".join([*place, str(int(started) - 1)])) is True


def test_a_restart_of_the_machine_ends_all_and_other_machines_and_containers_cannot_be_seen() -> None:
    machine, boot, namespace, pid, started = name_of(os.getpid()).split(":")

    assert has_ended(":".join((machine, "another-boot", namespace, pid, started))) is True
    assert has_ended(":".join(("another", boot, namespace, pid, started))) is None
    assert has_ended(":".join((machine, boot, "1", pid, started))) is None
    for nonsense in (None, "", "a:b", "a:b:c:d:e", f"{machine}:{boot}:{namespace}:x:1"):
        assert has_ended(nonsense) is None


def test_a_process_that_the_system_hides_is_not_said_to_be_over(monkeypatch: pytest.MonkeyPatch) -> None:
    own = name_of(os.getpid())
    monkeypatch.setattr(process_name, "identify", lambda _pid: None)

    assert has_ended(own) is None
