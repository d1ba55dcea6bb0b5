"""`ssmd ops` on the command line: what is refused and how, the whole day by Airflow, and status with parts away."""

import json
import os
import pty
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ssmd.cli.main import main
from ssmd.local.home import Home, StackRecord
from ssmd.local.ports import free_port
from ssmd.ops import watching
from tests.fakes.airflow import PASSWORD, USERNAME, FakeAirflow, fake_airflow
from tests.fakes.operated_services import PROGRAMS, OperatedServices, operated_services

ENVIRONMENT = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: here}}
spec:
  keys:
    kalshi: {{type: api_key, fields: [api_key, api_secret]}}
    airflow: {{type: transport, fields: [username, password]}}
  feed: kalshi
  {more}
  middleware:
    transport: {{type: nats, url: "nats://127.0.0.1:4222"}}
    storage: {{type: local, path: storage}}
"""


class Place:
    """An SSMD_HOME and an environment file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "here.yaml"
        self.home = Home(folder / "home")
        self.home.prepare()
        self.url = ""
        self.write()

    def write(self, more: str = "", name: str = "here") -> None:
        self.file.write_text(ENVIRONMENT.format(more=more).replace("name: here", f"name: {name}"))

    def ssmd(self, *words: str) -> int:
        return main(["ops", *words, "--env", str(self.file)])

    def stack(self, services: OperatedServices, environment: str = "here") -> None:
        """`ssmd up` has left this."""
        address = str(services.path)
        record = StackRecord(
            "mark", environment, "/etc/other.yaml", address, services.password, services.identity, list(PROGRAMS), {}
        )
        self.home.write_record(record)

    def airflow(self, url: str) -> None:
        """`ssmd up` has started one there."""
        self.write(f'airflow: {{url: "{url}"}}')
        access = {"url": url, "username": USERNAME, "password": PASSWORD}
        (self.home.run / "airflow.json").write_text(json.dumps(access))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.setenv("SSMD_HOME", str(place.home.root))
    for name in ("SSMD_ENV", "SSMD_TRIGGER", "SSMD_TRIGGERED_BY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    return place


@pytest.fixture
def services(tmp_path: Path, place: Place) -> Iterator[OperatedServices]:
    with operated_services(tmp_path, place.home.root) as services:
        place.stack(services)
        yield services


@pytest.fixture
def airflow(place: Place) -> Iterator[FakeAirflow]:
    with fake_airflow() as airflow:
        place.airflow(airflow.url)
        yield airflow


def day(offset: int = 0) -> str:
    return str(datetime.now(UTC).date() + timedelta(days=offset))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["start", "gatway"], 2, "Did you mean 'gateway'?"),
        (["stop", "x" * 10_000], 2, "there is no service"),
        (["stop", "\x1b[31m;--"], 2, "there is no service"),
        (["start", os.fsdecode(b"\xff\xfe")], 2, "there is no service"),
        (["start", "gateway", "--date", "tomorrow"], 2, "--date"),
        (["start", "gateway", "--date", "2026-02-30"], 2, "--date"),
        (["start", "gateway", "--date", day(1)], 2, "add: --ahead"),
        (["start", "gateway", "--date", day(2), "--ahead"], 2, "it has not begun"),
        (["start", "gateway", "--date", day(-1)], 2, "it is over"),
        (["start", "--date", day(-1)], 2, "it is over"),
        (["stop", "gateway", "--date", day(1)], 2, "it has not begun"),
        (["stop", "--date", day(300)], 2, "it has not begun"),
        (["stop"], 2, f"ssmd ops stop --date {day(-1)}. Today (ends capture now): ssmd ops stop --date {day()}"),
        (["stop", "--no-airflow", "--yes"], 2, "is not stopped without its date"),
        (["start", "gateway", "--feed", "kalsh"], 2, "runs the feed 'kalshi', not 'kalsh'"),
        (["health", "--wait", "-1"], 2, "--wait"),
        (["health", "--wait", "nan"], 2, "--wait"),
    ],
)
@pytest.mark.usefixtures("services")
def test_bad_input_is_one_clear_line(
    words: list[str], code: int, said: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.ssmd(*words) == code

    error = capsys.readouterr().err
    assert said in error
    assert all(len(line) < 300 for line in error.splitlines())
    assert "\x1b" not in error
    assert "Traceback" not in error


def test_without_a_stack_the_fix_is_named(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["start", "gateway"], ["stop", "gateway"], ["start", "--no-airflow"], ["health", "--wait", "0"]):
        assert place.ssmd(*words) == 7
        error = capsys.readouterr().err
        assert "is not up in" in error
        assert f"ssmd up -f {place.file}" in error


def test_the_stack_of_another_environment_is_left_alone(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    place.stack(services, environment="other")

    assert place.ssmd("stop", "gateway") == 2

    assert "is 'other', not 'here'" in capsys.readouterr().err
    assert services.orders == []


def test_a_cluster_is_not_reached_from_here(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write("runtime: {type: kubernetes, namespace: ssmd}")
    assert place.ssmd("stop", "gateway") == 2
    assert "run on kubernetes" in capsys.readouterr().err


def test_a_step_answers_with_one_line_or_one_document(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.ssmd("start", "connector") == 0
    assert "started: runs for" in capsys.readouterr().out
    services.last["connector"]["waiting_segments"] = 1
    assert place.ssmd("stop", "connector", "--json") == 6
    answer = json.loads(capsys.readouterr().out)
    assert (answer["service"], answer["done"], answer["day"]) == ("connector", "stopped", day())
    assert answer["facts"]["connector"]["last_segment"] == "kalshi/trades-07"


def test_tomorrows_services_are_started_ahead_and_can_be_stopped_before_midnight(
    place: Place, services: OperatedServices
) -> None:
    assert place.ssmd("start", "connector") == 0
    assert place.ssmd("start", "connector", "--ahead") == 0
    assert services.states["connector-b"] == "RUNNING"
    assert place.ssmd("stop", "connector", "--date", day(1)) == 0
    assert "RUNNING" not in services.states.values()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """stdin is a terminal from now on, where somebody types these words ahead."""
    keyboard, terminal = pty.openpty()

    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield lambda words: (os.write(keyboard, f"{words}\n".encode()), None)[1]
    os.close(keyboard)


def test_todays_capture_is_not_ended_on_a_terminal_without_a_yes(
    place: Place, services: OperatedServices, answering: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    services.up(*PROGRAMS)
    for words in (["stop", "connector"], ["stop", "--date", day(), "--no-airflow"]):
        answering("")
        assert place.ssmd(*words) == 3
        error = capsys.readouterr().err
        assert "This ends the capture of kalshi now" in error
        assert f"--date {day()} --yes" in error
    assert services.orders == []

    answering("y")
    assert place.ssmd("stop", "connector") == 0
    assert place.ssmd("start", "connector") == 0
    assert place.ssmd("stop", "connector", "--yes") == 0


def test_a_stop_that_does_not_end_capture_does_not_ask(
    place: Place, services: OperatedServices, answering: Callable[[str], None]
) -> None:
    answering("n\n" * 3)
    services.roles = True
    assert place.ssmd("start", "gateway") == 0
    assert place.ssmd("stop", "gateway") == 0
    assert place.ssmd("stop", "connector", "--date", day(-1)) == 0
    assert place.ssmd("start", "connector") == 0
    assert place.ssmd("start", "connector", "--ahead") == 0
    assert place.ssmd("stop", "connector", "--date", day()) == 0
    assert services.states["connector-b"] == "RUNNING"


@pytest.mark.usefixtures("services")
def test_health_is_noted_and_says_what_is_wrong(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.ssmd("health", "--wait", "0", "--json") == 3

    found = json.loads(capsys.readouterr().out)
    assert {one["service"]: one["verdict"] for one in found} == dict.fromkeys(
        ["connector", "archiver", "gateway"], "unwell"
    )


def test_ssmd_status_says_who_stopped_a_service_and_for_which_day(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    services.up("connector", "archiver")
    (place.home.log / "connector.log").write_text('{"level":"info","event":"drained"}\n')
    assert place.ssmd("stop", "connector") == 0
    services.stopProcess("archiver", False)  # by another hand
    capsys.readouterr()

    assert main(["status"]) == 3

    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["connector"].startswith("○")
    assert f"stopped for {day()} by cli:" in lines["connector"]
    assert lines["connector"].endswith(" UTC")
    assert lines["archiver"].startswith("✗")
    assert "by no `ssmd ops stop`" in lines["archiver"]
    assert "it was not started" in lines["gateway"]


# --- by Airflow ---


def test_the_whole_day_is_a_run_of_its_dag(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.script["daily_startup"] = [
        ("running", {"sync_markets": "running"}),
        ("success", {"sync_markets": "success"}),
    ]

    assert place.ssmd("start") == 0

    said = capsys.readouterr()
    ((dag, run),) = airflow.runs
    assert airflow.runs[dag, run]["conf"] == {"date": day()}
    assert "ssmd ops, cli:" in airflow.runs[dag, run]["note"]
    assert [line.split()[1:3] for line in said.err.splitlines()[1:]] == [
        ["sync_markets", "running"],
        ["sync_markets", "success"],
    ]
    assert f"{airflow.url}/dags/daily_startup/runs/" in said.out


def test_a_failed_run_and_one_with_findings_have_their_exit_codes(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.script["daily_startup"] = [("failed", {"sync_markets": "failed"})]
    airflow.reasons["sync_markets"] = "exit code 70"
    assert place.ssmd("start") == 1
    assert "sync_markets failed: exit code 70; its log: http" in capsys.readouterr().err

    airflow.script["daily_teardown"] = [("success", {"verify": "success"})]
    airflow.findings["verify"] = "a byte is wrong"
    assert place.ssmd("stop", "--date", day(), "--json") == 6
    answer = json.loads(capsys.readouterr().out)
    assert answer["findings"] == {"verify": "a byte is wrong"}
    assert answer["page"].startswith(airflow.url)


def test_a_run_for_the_day_that_is_at_work_is_joined(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.add_run("daily_startup", "scheduled__1", "running", conf={"date": day()})

    assert place.ssmd("start") == 0

    assert "is at work already; watching it" in capsys.readouterr().err
    assert len(airflow.runs) == 1


def test_a_paused_dag_is_refused_since_its_run_would_wait_for_ever(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.paused["daily_startup"] = True

    assert place.ssmd("start") == 3

    assert "daily_startup is paused" in capsys.readouterr().err
    assert airflow.runs == {}


def test_another_version_and_an_absent_airflow_have_a_way_round_them(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.version = "2.11.0"
    assert place.ssmd("start") == 2
    assert "'2.11.0'" in capsys.readouterr().err

    place.airflow(f"http://127.0.0.1:{free_port()}")
    assert place.ssmd("start") == 7
    assert "--no-airflow" in capsys.readouterr().err

    (place.home.run / "airflow.json").unlink()
    assert place.ssmd("start") == 7
    assert "was not started here" in capsys.readouterr().err


def test_a_key_of_the_environment_logs_in(
    place: Place, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write(f'airflow: {{url: "{airflow.url}", credentials: "$key:airflow"}}')
    monkeypatch.setenv("SSMD_KEY_AIRFLOW_USERNAME", USERNAME)
    monkeypatch.setenv("SSMD_KEY_AIRFLOW_PASSWORD", "wrong")
    assert place.ssmd("start") == 2
    assert "refuses the login" in capsys.readouterr().err

    monkeypatch.setenv("SSMD_KEY_AIRFLOW_PASSWORD", PASSWORD)
    assert place.ssmd("start") == 0


def test_ctrl_c_leaves_the_run_going_and_says_where_it_is(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    class Impatient(dict[str, str]):
        def items(self) -> object:  # type: ignore[override]  # asked while the run is looked at
            os.kill(os.getpid(), signal.SIGINT)
            return super().items()

    airflow.script["daily_startup"] = [("running", Impatient(sync_markets="running"))]
    # a job in a shell's background inherits an ignored SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert place.ssmd("start") == 130
    finally:
        signal.signal(signal.SIGINT, before)

    error = capsys.readouterr().err
    assert f"the run goes on: {airflow.url}/dags/daily_startup/runs/" in error


def test_ahead_is_not_for_airflow(place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.ssmd("start", "--ahead") == 2
    assert "--no-airflow" in capsys.readouterr().err
    assert airflow.runs == {}


# --- status ---


def test_status_tells_what_answers_and_names_what_does_not(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.add_run("daily_teardown", "r", "failed", conf={"date": day(-1)})

    assert place.ssmd("status") == 6

    said = capsys.readouterr().out
    assert said.startswith("environment here · times are UTC\n")
    assert f"✗ daily_teardown       failed · {day(-1)}" in said
    assert "services     cannot be told: the stack of 'here' is not up" in said
    assert "the environment names no database" in said


def test_status_of_nothing_is_7(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.ssmd("status", "--json") == 7

    answer = json.loads(capsys.readouterr().out)
    assert answer["services"] is None
    assert set(answer["missing"]) == {"services", "runs", "checks, alerts, operations"}


def test_status_shows_days_roles_and_what_was_announced(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    services.roles = True
    place.ssmd("start", "connector")
    place.ssmd("start", "connector", "--ahead")
    place.ssmd("start", "archiver")
    place.ssmd("start", "archiver", "--ahead")
    services.health["connector"]["tickers"] = 1
    capsys.readouterr()

    assert place.ssmd("status") == 3  # no gateway

    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith(("✓", "○", "✗"))}
    assert f"{day()} · active" in lines["connector"]
    assert " 1 ticker" in lines["connector"]
    assert "1 tickers" not in lines["connector"]
    assert f"{day(1)} · standby" in lines["connector-b"]
    assert f"from its end on for {day(1)}" in lines["archiver"]
    assert "does not run" in lines["gateway"]


def test_a_planned_stop_is_told_alike_by_both_status_commands_and_is_no_fault(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    services.up("connector", "archiver", "gateway")
    assert place.ssmd("stop", "connector") == 0
    services.stopProcess("archiver", False)  # by another hand
    capsys.readouterr()

    assert place.ssmd("status") == 3
    ours = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith(("✓", "○", "✗"))}
    main(["status"])
    others = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}

    assert ours["connector"].split() == others["connector"].split()
    assert ours["connector"].startswith("○")
    assert ours["archiver"].startswith("✗")
    assert place.ssmd("health", "--wait", "0") == 3


def test_a_connector_that_was_stopped_after_it_had_crashed_elsewhere_is_stopped_and_the_other_way_round_is_not(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    services.up("connector")
    assert place.ssmd("stop", "connector") == 0
    services.states["connector-b"] = "FATAL"
    services.ended["connector-b"] = services.ended["connector"] - 50
    capsys.readouterr()

    place.ssmd("status")
    assert "○ connector    stopped for" in capsys.readouterr().out

    services.ended["connector-b"] = services.ended["connector"] + 50
    place.ssmd("status")
    assert "✗ connector    does not run" in capsys.readouterr().out


def test_status_says_how_often_a_service_was_restarted_today_and_why(
    place: Place, services: OperatedServices, capsys: pytest.CaptureFixture[str]
) -> None:
    services.up("connector", "archiver", "gateway")
    now = datetime.now().astimezone()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0).astimezone(now.tzinfo)
    (place.home.log / "supervisord.log.1").write_text(
        f"{today - timedelta(seconds=5):%Y-%m-%d %H:%M:%S},001 WARN exited: connector (exit status 1; not expected)\n"
        f"{today:%Y-%m-%d %H:%M:%S},001 WARN exited: connector (exit status 70; not expected)\n"
    )
    (place.home.log / "supervisord.log").write_text(
        f"{now:%Y-%m-%d %H:%M:%S},001 INFO spawned: 'connector' with pid 17\n"
        f"{now:%Y-%m-%d %H:%M:%S},001 INFO exited: archiver (exit status 0; expected)\n"
        f"{now:%Y-%m-%d %H:%M:%S},001 WARN exited: gateway (exit status 70; not expected)\n"
        f"{now:%Y-%m-%d %H:%M:%S},002 WARN exited: connector (terminated by SIGKILL; not expected)\n"
    )

    place.ssmd("status")

    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith(("✓", "○", "✗"))}
    last = f"{now.astimezone(UTC):%H:%M:%S}"
    assert f"restarted 2 times today, last at {last} (killed by signal 9)" in lines["connector"]
    assert f"restarted 1 time today, last at {last} (exit code 70)" in lines["gateway"]
    assert "restarted" not in lines["archiver"]
    place.ssmd("status", "--json")
    found = {one["program"]: one["restarts"] for one in json.loads(capsys.readouterr().out)["services"]}
    assert found == {"connector": 2, "archiver": 0, "gateway": 1}


def test_status_shows_the_days_of_a_run_that_events_started(
    place: Place, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.paused |= {"data_quality": False, "backfill": False}
    airflow.add_run("data_quality", "a", "success", run_type="asset_triggered")
    airflow.events["a"] = [{"day": f"2026-11-{number}"} for number in (11, 13, 15, 17, 19)]
    airflow.add_run("backfill", "b", "success", conf={"from": "2026-11-18", "to": "2026-11-20"})

    place.ssmd("status")

    said = capsys.readouterr().out
    assert "✓ data_quality         success · 2026-11-11, 2026-11-13, 2026-11-15 and 2 more · " in said
    assert "✓ backfill             success · 2026-11-18 – 2026-11-20 · " in said
