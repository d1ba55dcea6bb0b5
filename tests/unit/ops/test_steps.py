"""Starting and stopping a service for a day: both handovers, repeated steps, and services that do not do as told."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ssmd.cli.ops_local import LocalPrograms
from ssmd.errors import ConfigError, FatalError, RefusedError, SsmdError, Unavailable
from ssmd.local.home import Home, StackRecord
from ssmd.local.supervisord import Control
from ssmd.ops.days import Days
from ssmd.ops.programs import known_service
from ssmd.ops.steps import Handover, Operator, instances
from tests.fakes.operated_services import PROGRAMS, OperatedServices, operated_services

TODAY = date(2026, 11, 23)
NEXT, AFTER = TODAY + timedelta(days=1), TODAY + timedelta(days=2)


class Scene:
    """A home with services that are operated; time passes only when somebody waits."""

    def __init__(self, home: Home, services: OperatedServices) -> None:
        self.services = services
        self.days = Days(home.run, "mark")
        self.now = 0.0
        self.control = Control(services.path, services.password)
        record = StackRecord(
            "mark", "here", "f", str(services.path), services.password, services.identity, list(PROGRAMS), {}
        )
        self.programs = LocalPrograms(home, record, self.control)

    def operator(self, handover: Handover = "overlap") -> Operator:
        return Operator(self.programs, self.days, handover, "cli:me", self.pause, lambda: self.now)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def runs(self) -> set[str]:
        return {name for name, state in self.services.states.items() if state == "RUNNING"}

    def day_of(self, program: str) -> date:
        return self.days.read().programs[program].day


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    home = Home(tmp_path / "home")
    home.prepare()
    with operated_services(tmp_path, home.root) as services:
        scene = Scene(home, services)
        yield scene
        scene.control.close()


def test_a_service_is_started_once_for_its_day(scene: Scene) -> None:
    first = scene.operator().start("connector", TODAY)
    again = scene.operator().start("connector", TODAY)

    assert (first.done, first.program, again.done) == ("started", "connector", "runs already")
    assert scene.services.orders == ["start connector"]
    assert scene.day_of("connector") == TODAY
    assert scene.days.read().programs["connector"].by == "cli:me"


def test_what_ssmd_up_started_belongs_to_the_day_its_process_began(scene: Scene) -> None:
    scene.services.up("connector")

    found = instances("connector", scene.programs.states(), {})

    assert [one.day.day for one in found] == [datetime.fromtimestamp(1, UTC).date()]


def test_what_ssmd_up_started_keeps_its_day_when_it_is_restarted(scene: Scene) -> None:
    scene.services.up("connector")
    began = datetime.fromtimestamp(1, UTC).date()

    scene.operator().start("connector", TODAY)

    assert scene.day_of("connector") == began
    assert scene.day_of("connector-b") == TODAY


def test_the_next_days_connector_starts_beside_the_present_one_and_stays_when_that_is_stopped(scene: Scene) -> None:
    scene.services.roles = True
    scene.operator().start("connector", TODAY)

    beside = scene.operator().start("connector", NEXT)
    assert (beside.done, beside.program, beside.facts["role"]) == ("started", "connector-b", "standby")
    assert scene.runs() == {"connector", "connector-b"}

    stopped = scene.operator().stop("connector", TODAY)
    assert (stopped.done, stopped.program, stopped.findings) == ("stopped", "connector", [])
    assert "connector-b goes on" in stopped.detail
    assert "last segment trades-07" in stopped.detail
    assert scene.runs() == {"connector-b"}

    assert scene.operator().start("connector", AFTER).program == "connector"  # a, b, a again
    assert scene.operator().stop("connector", NEXT).program == "connector-b"
    assert scene.operator().stop("connector", NEXT).done == "nothing to stop"
    assert scene.runs() == {"connector"}
    assert scene.day_of("connector") == AFTER


def test_archiver_and_gateway_go_over_to_the_next_day_when_the_present_one_is_stopped(scene: Scene) -> None:
    scene.operator().start("archiver", TODAY)
    noted = scene.operator().start("archiver", NEXT)
    assert noted.done == "noted"
    assert scene.day_of("archiver") == TODAY
    assert scene.services.orders == ["start archiver"]

    step = scene.operator().stop("archiver", TODAY)

    assert step.done == "restarted"
    assert scene.services.orders == ["start archiver", "stop archiver", "start archiver"]
    assert scene.day_of("archiver") == NEXT
    assert "3 segments stored while it drained" in step.detail
    assert scene.operator().stop("archiver", TODAY).done == "nothing to stop"


def test_clients_hear_why_the_gateway_goes_and_when_to_come_back(scene: Scene) -> None:
    scene.operator().start("gateway", TODAY)
    scene.operator().start("gateway", NEXT)

    scene.operator().stop("gateway", TODAY)
    step = scene.operator().stop("gateway", NEXT)

    assert scene.services.heard == [
        "the gateway is restarted for 2026-11-24; "
        "connect again in a few seconds: from_seq gives a gap, books come anew",
        "the gateway is stopped by an operator; try again once a minute",
    ]
    assert all(len(f"going away: {said}".encode()) <= 123 for said in scene.services.heard)  # a close frame's reason
    assert "no gateway runs now (3 clients told)" in step.detail
    scene.services.up("gateway")
    scene.services.stopProcess("gateway", False)
    assert scene.services.heard[-1] == ""  # nothing is left for a stop that is not ours


def test_one_client_is_not_told_of_as_several(scene: Scene) -> None:
    scene.services.health["gateway"]["clients"] = 1
    scene.operator().start("gateway", TODAY)

    assert "(1 client told)" in scene.operator().stop("gateway", TODAY).detail


def test_a_handover_that_was_cut_between_stop_and_start_is_completed_when_it_is_repeated(scene: Scene) -> None:
    scene.operator().start("gateway", TODAY)
    scene.operator().start("gateway", NEXT)
    scene.services.ends["gateway"] = 2  # stopped, and does not come up: as if the command had been killed

    with pytest.raises(SsmdError):
        scene.operator().stop("gateway", TODAY)
    assert scene.runs() == set()
    del scene.services.ends["gateway"]

    assert scene.operator().start("gateway", NEXT).done == "started"
    assert scene.day_of("gateway") == NEXT


def test_a_killed_command_leaves_the_announced_day_to_the_next_one(scene: Scene) -> None:
    scene.operator().start("gateway", TODAY)
    scene.operator().start("gateway", NEXT)
    scene.services.stopProcess("gateway", False)  # the command was killed right after this

    step = scene.operator().stop("gateway", TODAY)

    assert step.done == "restarted"
    assert scene.runs() == {"gateway"}
    assert scene.day_of("gateway") == NEXT


def test_strict_refuses_to_start_beside_an_older_day_and_stops_for_good(scene: Scene) -> None:
    strict = scene.operator("strict")
    for service in ("connector", "archiver", "gateway"):
        strict.start(service, TODAY)
        with pytest.raises(RefusedError, match=f"the {service} of 2026-11-23 still runs") as refused:
            strict.start(service, NEXT)
        assert f"ssmd ops stop {service} --date 2026-11-23" in refused.value.hint
        assert strict.stop(service, TODAY).done == "stopped"
        assert strict.start(service, NEXT).done == "started"
    assert scene.runs() == {"connector", "archiver", "gateway"}


def test_a_stop_ends_every_older_day_and_no_younger_one(scene: Scene) -> None:
    scene.operator().start("connector", TODAY)
    scene.operator().start("connector", NEXT)

    with pytest.raises(RefusedError, match="no place for another one") as refused:
        scene.operator().start("connector", AFTER)
    assert "--date 2026-11-23" in refused.value.hint
    assert scene.operator().stop("connector", TODAY - timedelta(days=1)).done == "nothing to stop"

    scene.operator().stop("connector", NEXT)
    assert scene.services.orders[-2:] == ["stop connector", "stop connector-b"]
    assert scene.runs() == set()


def test_the_old_connector_is_not_stopped_before_the_new_one_captures(scene: Scene) -> None:
    scene.operator().start("connector", TODAY)
    scene.operator().start("connector", NEXT)
    scene.services.health["connector-b"]["books_ready"] = False

    with pytest.raises(Unavailable, match="connector-b was started and is not ready after 60 s: its books"):
        scene.operator().stop("connector", TODAY)

    assert "connector" in scene.runs()
    scene.services.health["connector-b"]["books_ready"] = True
    assert scene.operator().stop("connector", TODAY).done == "stopped"


def test_a_new_connector_that_died_is_started_again_before_the_old_one_is_stopped(scene: Scene) -> None:
    scene.operator().start("connector", TODAY)
    scene.operator().start("connector", NEXT)
    scene.services.states["connector-b"] = "FATAL"

    scene.operator().stop("connector", TODAY)

    assert scene.services.orders[-2:] == ["start connector-b", "stop connector"]
    assert scene.runs() == {"connector-b"}


def test_a_standby_that_does_not_take_over_is_a_finding(scene: Scene) -> None:
    scene.operator().start("connector", TODAY)
    scene.operator().start("connector", NEXT)
    scene.services.health["connector-b"]["role"] = "standby"

    step = scene.operator().stop("connector", TODAY)

    assert step.findings == ["connector-b has not taken over after 15 s; see: ssmd ops health"]


def test_a_service_that_does_not_stop_is_a_failure_that_names_its_process(scene: Scene) -> None:
    scene.operator().start("archiver", TODAY)
    scene.services.stubborn.add("archiver")

    with pytest.raises(FatalError, match=r"archiver \(process \d+\) does not stop: it still runs after 45 s"):
        scene.operator().stop("archiver", TODAY)

    assert scene.day_of("archiver") == TODAY


def test_a_service_that_left_without_a_word_is_a_failure(scene: Scene) -> None:
    scene.operator().start("connector", TODAY)
    scene.services.silent.add("connector")

    with pytest.raises(FatalError, match="without a last word"):
        scene.operator().stop("connector", TODAY)

    assert "connector" not in scene.days.read().programs
    assert scene.operator().stop("connector", TODAY).done == "nothing to stop"


def test_what_a_service_could_not_store_is_a_finding(scene: Scene) -> None:
    scene.services.last["archiver"]["acked_seq"] = 50
    scene.services.last["connector"]["waiting_segments"] = 2
    for service in ("archiver", "connector"):
        scene.operator().start(service, TODAY)

    assert "could not store" in scene.operator().stop("archiver", TODAY).findings[0]
    assert "2 spool segments" in scene.operator().stop("connector", TODAY).findings[0]


def test_a_service_that_refuses_to_run_says_why(scene: Scene) -> None:
    scene.services.ends["connector"] = 2

    with pytest.raises(ConfigError, match=r"connector ended \(exit code 2\)"):
        scene.operator().start("connector", TODAY)


def test_a_connector_that_gets_no_connection_is_not_ready(scene: Scene) -> None:
    scene.services.health["connector"] = {"status": "degraded", "connected": False, "problem": "refused"}

    with pytest.raises(Unavailable, match="not ready after 60 s: refused; not connected to the exchange"):
        scene.operator().start("connector", TODAY)

    assert scene.day_of("connector") == TODAY  # it goes on trying for this day


def test_a_new_stack_does_not_believe_the_days_of_the_last_one(scene: Scene, tmp_path: Path) -> None:
    scene.operator().start("connector", TODAY)

    other = Days(tmp_path / "home" / "run", "another mark").read()

    assert other.programs == {}
    assert other.slots == {"connector": "connector"}


def test_an_unreadable_record_says_what_to_do(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "home" / "run" / "days.json").write_text("{broken")

    with pytest.raises(ConfigError, match=r"cannot read .*days\.json") as refused:
        scene.operator().start("connector", TODAY)
    assert "rm " in refused.value.hint


def test_a_second_operation_waits_for_the_first_and_then_gives_up(scene: Scene) -> None:
    with (
        scene.days.locked(),
        pytest.raises(RefusedError, match="another `ssmd ops` has been at work"),
        scene.days.locked(0.0),
    ):
        pass


@pytest.mark.parametrize("text", ["gatway", "", "connector; rm -rf /", "\x1b[31m", "x" * 10_000, "\udcff", "Connector"])
def test_an_unknown_service_is_named_in_one_short_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        known_service(text)
    assert len(refused.value.message) < 120
    assert "\x1b" not in refused.value.message
