"""What the foreground of `ssmd up` notices, and how it ends."""

import io
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from ssmd.errors import ConfigError, FatalError
from ssmd.local.home import Home
from ssmd.local.progress import Progress
from ssmd.local.supervisord import Control
from ssmd.local.watch import Watch
from ssmd.service_state import PlannedStop, ServiceState, write_planned, write_state
from tests.fakes.supervisord import FakeSupervisord


class Enough(Exception):
    """Ends the watch."""


class Seen:
    """A trade that has passed, or not."""

    def __init__(self, text: str = "") -> None:
        self.text = text


class Bench:
    """A watch over a fake supervisord; each `step` happens between two looks."""

    def __init__(self, folder: Path, fake: FakeSupervisord) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.fake = fake
        self.said = io.StringIO()
        self.trade = Seen()
        self.control = Control(fake.path, "secret")
        self.watch = Watch(self.home, self.control, fake.identity, Progress(self.said), self.trade, began=0.0)

    def run(self, *steps: object) -> str:
        """Look, do a step, look again, ...; what was said. Ends when the steps are over."""
        left = list(steps)

        def pause(_seconds: float) -> None:
            if not left:
                raise Enough
            step = left.pop(0)
            assert callable(step)
            step()

        with pytest.raises(Enough):
            self.watch.run(pause)
        return self.said.getvalue()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeSupervisord(tmp_path / "s.sock", "secret", ["nats", "connector"]) as fake:
        fake.states = {"nats": "RUNNING", "connector": "RUNNING"}
        bench = Bench(tmp_path, fake)
        yield bench
        bench.control.close()


def test_a_restart_is_told_once(bench: Bench) -> None:
    said = bench.run(lambda: bench.fake.pids.update(nats=4300), lambda: None)

    assert said == "○ nats       was restarted (process 4242 ended; now process 4300)\n"


def plan(bench: Bench, then: date | None = None) -> None:
    """An operator orders a stop of the connector, and it ends."""
    at = datetime.now(UTC)
    write_planned(bench.home.root, "connector", PlannedStop(day=date(2026, 11, 22), by="cli:me", at=at, then=then))
    bench.fake.ended["connector"] = int(time.time())


def test_a_planned_restart_is_told_as_one(bench: Bench) -> None:
    def restart() -> None:
        plan(bench, then=date(2026, 11, 23))
        bench.fake.pids.update(connector=4300)

    def crash() -> None:
        bench.fake.ended["connector"] += 600
        bench.fake.pids.update(connector=4400)

    planned, crashed = bench.run(restart, lambda: None, crash).splitlines()

    assert "was restarted as planned, for 2026-11-23 by cli:me (process 4242 ended; now process 4300)" in planned
    assert crashed == "○ connector  was restarted (process 4300 ended; now process 4400)"


def test_a_planned_stop_is_told_once_and_so_is_the_start_after_it(bench: Bench) -> None:
    def stop() -> None:
        plan(bench)
        bench.fake.states["connector"] = "STOPPED"

    said = bench.run(stop, lambda: None, lambda: bench.fake.states.update(connector="RUNNING"), lambda: None)

    stopped, started = said.splitlines()
    assert stopped.startswith("○ connector  stopped for 2026-11-22 by cli:me at ")
    assert started == "○ connector  runs again (process 4242)"


def test_the_first_trade_is_told_once(bench: Bench) -> None:
    said = bench.run(lambda: setattr(bench.trade, "text", "T-1  buy 1 @ 0.5"), lambda: None)

    assert said.count("T-1  buy 1 @ 0.5") == 1
    assert said.startswith("first live trade after ")


def test_what_ended_for_good_is_told_once(bench: Bench) -> None:
    def end() -> None:
        bench.fake.states = {"nats": "FATAL", "connector": "EXITED"}

    said = bench.run(end, lambda: None)

    assert said.count("nats") == 1 + said.count("nats ended")
    assert said.count("connector") == 1
    assert "has ended by itself" in said


def test_credentials_that_are_refused_later_end_the_stack_with_their_message(bench: Bench) -> None:
    def refuse() -> None:
        bench.fake.states["connector"] = "EXITED"
        bench.fake.ends["connector"] = 2
        state = ServiceState("connector", 1, "failed", "", 0, "", 2, "key 'kalshi' refused", "Run: ssmd key set")
        write_state(bench.home.root, state)

    with pytest.raises(ConfigError, match="key 'kalshi' refused"):
        bench.watch.run(lambda _seconds: refuse())


def test_a_lost_supervisord_ends_the_watch(bench: Bench) -> None:
    def lose(_seconds: float) -> None:
        bench.fake.shutdown()
        bench.fake.states = {}
        bench.fake.password = "changed"  # no answer any more

    with pytest.raises(FatalError, match="supervisord is gone"):
        bench.watch.run(lose)
