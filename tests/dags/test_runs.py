"""`dag.test()` of every DAG, with a program in place of ssmd: the commands, their exit codes, who is told."""

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from tests.dags.conftest import Rooms

DAY = "2026-11-20"
FEED = ["--feed", "kalshi"]


@pytest.fixture(autouse=True)
def _fresh(room: Rooms) -> None:
    room.script([])


def _dated(*words: str) -> list[str]:
    return [*words, "--date", DAY, *FEED]


@pytest.mark.parametrize(
    ("dag", "conf", "commands"),
    [
        ("secmaster_sync", {}, [["market", "sync", *FEED]]),
        ("secmaster_sync", {"full": True}, [["market", "sync", *FEED, "--full"]]),
        ("key_verification", {}, [["key", "verify", "local"]]),
        (
            "daily_startup", {"date": DAY},
            [
                ["market", "sync", *FEED], ["key", "verify", "local"], _dated("ops", "start", "connector"),
                _dated("ops", "start", "archiver"), _dated("ops", "start", "gateway"), _dated("ops", "health"),
            ],
        ),
        (
            "daily_teardown", {"date": DAY},
            [
                _dated("ops", "stop", "gateway"), _dated("ops", "stop", "archiver"), _dated("ops", "stop", "connector"),
                _dated("data", "compact"), _dated("data", "verify"),
            ],
        ),
        ("archive_verification", {"date": DAY}, [[*_dated("data", "verify"), "--exchange"]]),
        ("data_quality", {"date": DAY}, [_dated("quality", "run")]),
        (
            "backfill", {"from": DAY},
            [
                ["data", "backfill", "--from", DAY, "--to", DAY, *FEED], _dated("data", "verify"),
                _dated("quality", "run"),
            ],
        ),
        ("checks_ran", {"date": DAY}, [_dated("quality", "ran")]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_run_is_these_commands(dag: str, conf: dict[str, Any], commands: list[list[str]], room: Rooms) -> None:
    done = room.ask("run", dag=dag, conf=conf)

    assert done["state"] == "success"
    assert room.commands() == commands
    assert [alert["state"] for alert in room.alerts()][-1:] == ["ok"]


def test_a_backfill_takes_each_day_by_itself(room: Rooms) -> None:
    """A day that fails does not hold up the others, and the run says which it was."""
    failing = ["data", "backfill", "--from", "2026-11-21"]
    room.script([{"words": failing, "codes": [3], "stderr": "2026-11-21 is not over\n"}])

    done = room.ask("run", dag="backfill", conf={"from": DAY, "to": "2026-11-22"})

    assert done["state"] == "failed"
    assert [done["tasks"][f"renormalize[{number}]"]["state"] for number in range(3)] == ["success", "failed", "success"]
    assert [done["tasks"][f"quality[{number}]"]["state"] for number in range(3)] == [
        "success", "upstream_failed", "success",
    ]  # fmt: skip
    assert done["tasks"]["renormalize[2]"]["label"] == "2026-11-22"
    assert sorted(event["day"] for event in done["events"]) == [DAY, "2026-11-22"]
    alerts = [alert for alert in room.alerts() if alert["state"] == "failed"]
    assert [(alert["task"], alert["date"]) for alert in alerts] == [("renormalize", "2026-11-21")]
    assert "is not over" in alerts[0]["summary"]


@pytest.mark.parametrize(
    ("codes", "state", "calls"),
    [
        ([0], "success", 1),
        ([6], "success", 1),
        ([7, 0], "success", 2),
        ([1, 0], "success", 2),
        ([-9, 0], "success", 2),
        ([143, 0], "success", 2),
        ([7, 7], "failed", 2),
        ([2], "failed", 1),
        ([3], "failed", 1),
        ([70], "failed", 1),
    ],
    ids=str,
)
def test_exit_codes_are_what_airflow_does_next(codes: list[int], state: str, calls: int, room: Rooms) -> None:
    """One more try is allowed here, so that a second call means: tried again."""
    room.script([{"words": ["quality", "ran"], "codes": codes}])

    done = room.ask("run", dag="checks_ran", conf={"date": DAY})

    assert done["state"] == state
    assert len(room.commands()) == calls


def test_findings_are_seen_and_are_no_xcom(room: Rooms) -> None:
    words = "kalshi 2026-11-20\n  trades: 3 duplicates\n\x1b[31mred\x1b[0m\n"
    room.script([{"words": ["data", "verify"], "codes": [6], "stdout": words, "stderr": "Report: there\n"}])
    seen = len(room.log.read_text())

    done = room.ask("run", dag="daily_teardown", conf={"date": DAY})

    log = room.log.read_text()[seen:]
    warnings = [line for line in log.splitlines() if "[warning" in line and "SsmdProcess" in line]
    assert done["state"] == "success"
    assert "exit code 6: done, with findings" in warnings[0]
    assert "trades: 3 duplicates" in warnings[2]
    assert "\\x1b[31m" not in log
    assert "·[31mred" in warnings[3]
    assert "Report: there" in warnings[4]
    assert [log.count(word) for word in ("3 duplicates", "[31mred", "Report: there")] == [1, 1, 1]
    assert json.loads(done["stored"]["verify"]["findings"]).splitlines()[1] == "  trades: 3 duplicates"
    assert done["xcoms"] == []
    assert done["events"] == [{"feed": "kalshi", "day": DAY, "findings": True}]
    found = [alert for alert in room.alerts() if alert["state"] == "findings"]
    assert [(alert["operation"], alert["task"], alert["date"]) for alert in found] == [
        ("daily_teardown", "verify", DAY)
    ]


@pytest.mark.parametrize(("stdout", "stderr"), [("stdout", "stderr"), ("stderr", "stdout")])
def test_an_alert_of_findings_says_what_was_found(stdout: str, stderr: str, room: Rooms) -> None:
    """And not what went well after it, nor where the report is; whichever stream says it."""
    found = "✗ archive      the archiver could not store all it had taken\n               → Run: ssmd data gaps\n"
    good = "working\n✓ archiver     stopped: drained and stopped\n"
    room.script([{"words": ["ops", "stop", "archiver"], "codes": [6], stdout: found + found + good, stderr: good}])

    room.ask("run", dag="daily_teardown", conf={"date": DAY})

    [alert] = [alert for alert in room.alerts() if alert["state"] == "findings"]
    assert alert["task"] == "flush_archiver"
    assert alert["summary"] == found.rstrip()


def test_a_busy_day_is_tried_again_and_named(room: Rooms) -> None:
    said = "2026-11-20 of kalshi is being worked on: ssmd quality on host (5)\n  Wait for it to end.\n"
    room.script([{"words": ["data", "backfill"], "codes": [7], "stderr": said}])

    done = room.ask("run", dag="backfill", conf={"from": DAY})

    assert done["tasks"]["renormalize[0]"]["tries"] == 2
    [alert] = [alert for alert in room.alerts() if alert["state"] == "failed"]
    assert alert["summary"] == f"exit code 7, not possible now: {said.rstrip()}"


def test_the_message_of_a_failure_is_the_commands_own(room: Rooms) -> None:
    error = "working\nno quality run of 2026-11-20\n  Run: ssmd quality run --date 2026-11-20\n"
    room.script([{"words": ["quality", "ran"], "codes": [3], "stderr": error}])

    room.ask("run", dag="checks_ran", conf={"date": DAY})

    [task] = [alert for alert in room.alerts() if alert["state"] == "failed"]
    assert task["summary"] == (
        "exit code 3, refused by a check: no quality run of 2026-11-20\n  Run: ssmd quality run --date 2026-11-20"
    )
    assert (task["task"], task["date"]) == ("ran", DAY)


@pytest.mark.parametrize(
    ("dag", "conf"),
    [
        ("checks_ran", {"date": "2027-01-01"}), ("data_quality", {"date": DAY}), ("backfill", {"from": DAY}),
        ("backfill", {}), ("backfill", {"from": DAY, "to": "2026-11-18"}),
    ],
)  # fmt: skip
def test_wrong_input_of_a_person_is_no_alert(dag: str, conf: dict[str, Any], webhook: str, room: Rooms) -> None:
    """No later run would ever go well for a day that does not exist; who mistyped it sees it."""
    room.script([{"words": [word], "codes": [2], "stderr": "no such day\n"} for word in ("quality", "data")])

    done = room.ask("run", dag=dag, conf=conf, environment={"SSMD_ALERT_WEBHOOK": webhook})

    assert done["state"] == "failed"
    assert room.alerts() == []
    assert _Hook.posted == []


def test_wrong_input_of_the_schedule_is_an_alert(webhook: str, room: Rooms) -> None:
    room.script([{"words": ["quality"], "codes": [2], "stderr": "no such feed\n"}])

    room.ask(
        "run", dag="checks_ran", scheduled="2026-11-23T06:00:00+00:00", environment={"SSMD_ALERT_WEBHOOK": webhook}
    )

    [alert] = room.alerts()
    assert (alert["task"], alert["state"], alert["date"]) == ("ran", "failed", "2026-11-22")
    assert len(_Hook.posted) == 1


@pytest.mark.parametrize(
    "dag",
    [
        "secmaster_sync", "key_verification", "daily_startup", "daily_teardown", "archive_verification",
        "data_quality", "backfill", "checks_ran",
    ],
)  # fmt: skip
def test_what_a_dag_does_not_take_is_refused(dag: str, room: Rooms) -> None:
    """A mistyped `date` would be about another day than the one that was meant."""
    seen = len(room.log.read_text())

    done = room.ask("run", dag=dag, conf={"datum": DAY, "from": DAY} if dag == "backfill" else {"datum": DAY})

    assert done["state"] == "failed"
    assert room.calls() == []
    assert f"'datum' in the configuration of the run: {dag} takes only 'feed'" in room.log.read_text()[seen:]


def test_a_task_that_is_killed_tells_of_its_day_and_the_run_does_not_say_it_again(room: Rooms) -> None:
    room.ask("killed", dag="checks_ran", task="ran", conf={"date": DAY})

    [alert] = room.alerts()
    assert (alert["task"], alert["state"], alert["date"]) == ("ran", "failed", DAY)
    assert "was killed" in alert["summary"]


def test_a_run_that_takes_too_long_tells_it_itself(room: Rooms) -> None:
    room.ask("too_long", dag="checks_ran", conf={"date": DAY})

    [alert] = room.alerts()
    assert "task" not in alert
    assert alert["state"] == "failed"
    assert "took longer than it may" in alert["summary"]


@pytest.mark.parametrize(
    ("dag", "after", "day"),
    [
        ("daily_teardown", "2026-11-22T23:50:00+00:00", "2026-11-22"),
        ("checks_ran", "2026-11-23T05:00:00+00:00", "2026-11-22"),
        ("daily_startup", "2026-11-22T23:50:00+00:00", "2026-11-23"),
    ],
)
def test_ds_of_a_run_by_the_schedule_is_the_day_that_it_works_on(dag: str, after: str, day: str, room: Rooms) -> None:
    done = room.ask("run", dag=dag, scheduled=after)

    dated = [words[words.index("--date") + 1] for words in room.commands() if "--date" in words[:5]]
    assert done["state"] == "success"
    assert done["ds"] == day
    assert dated[-1] == day
    assert {words[2] for words in room.commands() if words[:2] == ["ops", "stop"]} == (
        {"gateway", "archiver", "connector"} if dag == "daily_teardown" else set()
    )


def test_a_command_is_told_who_started_it_and_nothing_of_airflows_settings(room: Rooms) -> None:
    done = room.ask("run", dag="checks_ran", conf={"date": DAY})

    told = room.calls()[0]["told"]
    assert told == {
        "SSMD_TRIGGER": "manual", "SSMD_TRIGGERED_BY": f"airflow:checks_ran/{done['run']}/ran",
        "SSMD_BUSY_WAIT_S": "3600",
    }  # fmt: skip


def test_a_teardown_by_hand_starts_nothing(room: Rooms) -> None:
    done = room.ask("run", dag="daily_teardown", conf={"date": DAY})

    skipped = {name for name, task in done["tasks"].items() if task["state"] == "skipped"}
    assert skipped == {"next_connector", "next_archiver", "next_gateway"}
    assert "skipped" not in {alert["state"] for alert in room.alerts()}


def test_a_limit_ends_the_command_even_when_it_ignores_sigterm(room: Rooms) -> None:
    room.script([{"words": ["quality", "ran"], "ignore_sigterm": True, "seconds": 60}])

    done = room.ask("run", dag="checks_ran", conf={"date": DAY}, limit_s=1)

    assert done["state"] == "failed"
    assert not any(_runs(call["pid"]) for call in room.calls() if call["words"][0] == "quality")


@pytest.mark.parametrize("ignores", [False, True], ids=["obeys", "ignores SIGTERM"])
def test_a_task_that_is_ended_by_hand_ends_its_command(ignores: bool, room: Rooms) -> None:
    room.script([{"words": ["wait"], "ignore_sigterm": ignores, "seconds": 60}])

    ended = room.ask("execute", words=["wait"], kill_after_s=0.5)

    assert ended["raised"] == f"AirflowException: the command was ended by {'SIGKILL' if ignores else 'SIGTERM'}"
    assert ended["seconds"] < 10
    assert not _runs(room.calls()[0]["pid"])


def test_an_orphan_that_keeps_the_output_open_is_not_waited_for(room: Rooms) -> None:
    room.script([{"words": ["leave"], "orphan": True, "stdout": "done\n"}])

    ended = room.ask("execute", words=["leave"])

    assert ended == {"raised": "", "exit_code": 0, "seconds": ended["seconds"]}
    assert ended["seconds"] < 10


@pytest.mark.parametrize("in_process", [False, True], ids=["under a worker", "in dag.test()"])
def test_a_command_ends_with_the_worker_of_its_task(in_process: bool, room: Rooms) -> None:
    """However it ends: else the next try would meet what this one left running."""
    room.script([{"words": ["wait"], "seconds": 2 if in_process else 60}])

    ended = room.ask("orphaned", words=["wait"], in_process=in_process)

    if in_process:
        assert ended["raised"] == ""
        return
    assert "has died: its command is ended" in ended["raised"]
    assert ended["seconds"] < 10
    assert not _runs(room.calls()[0]["pid"])


def test_a_command_that_is_not_there_is_said_and_not_tried_again(room: Rooms) -> None:
    done = room.ask("run", dag="checks_ran", conf={"date": DAY}, environment={"SSMD_COMMAND": '["/nowhere/ssmd"]'})

    assert done["tasks"]["ran"] == {"state": "failed", "tries": 1, "label": None}
    assert "cannot run /nowhere/ssmd: No such file or directory; is ssmd installed?" in room.log.read_text()


class _Hook(BaseHTTPRequestHandler):
    """Takes alerts; `answers` are the status codes to come."""

    answers: ClassVar[list[int]] = []
    posted: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).posted.append(json.loads(body))
        self.send_response(type(self).answers.pop(0) if type(self).answers else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not on stderr."""


@pytest.fixture
def webhook() -> Iterator[str]:
    _Hook.answers, _Hook.posted = [], []
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook/T0KEN"
    server.shutdown()
    server.server_close()


def test_an_alert_is_posted_and_tried_again(webhook: str, room: Rooms) -> None:
    _Hook.answers = [500, 503]
    room.script([{"words": ["quality", "ran"], "codes": [3], "stderr": "no quality run\n"}])

    room.ask("run", dag="checks_ran", conf={"date": DAY}, environment={"SSMD_ALERT_WEBHOOK": webhook})

    assert len(_Hook.posted) == 3
    assert _Hook.posted[0] == _Hook.posted[2]
    told = _Hook.posted[2]
    assert {name: told[name] for name in ("environment", "operation", "task", "state", "days")} == {
        "environment": "local", "operation": "checks_ran", "task": "ran", "state": "failed", "days": [DAY],
    }  # fmt: skip
    assert told["summary"] == "exit code 3, refused by a check: no quality run"
    assert told["text"].startswith(f"ssmd local: checks_ran/ran failed {DAY} exit code 3")


def test_a_run_that_goes_well_posts_nothing(webhook: str, room: Rooms) -> None:
    room.ask("run", dag="checks_ran", conf={"date": DAY}, environment={"SSMD_ALERT_WEBHOOK": webhook})

    assert _Hook.posted == []


def test_alerts_that_cannot_be_sent_fail_no_task_and_show_no_token(room: Rooms) -> None:
    room.script([{"words": ["quality", "ran"], "codes": [6]}, {"words": ["ops", "alert"], "codes": [7]}])
    seen = len(room.log.read_text())
    address = {"SSMD_ALERT_WEBHOOK": "http://127.0.0.1:9/hook/T0KEN"}

    done = room.ask("run", dag="checks_ran", conf={"date": DAY}, environment=address)

    log = room.log.read_text()[seen:]
    assert done["state"] == "success"
    assert "alert not posted (try 3 of 3): URLError" in log
    assert "alert not written down, exit code 7" in log
    assert "T0KEN" not in log


def _runs(pid: int) -> bool:
    """Within a second: does it still?"""
    for _ in range(20):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True
