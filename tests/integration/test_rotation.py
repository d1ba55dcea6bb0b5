"""A key rotated by its command while `ssmd up` runs on real servers and real processes."""

import time
from pathlib import Path

import pytest

from ssmd.simulator.keys import make_key_pair
from tests.checker.model import Fault
from tests.integration.machine import Machine, machine

pytestmark = pytest.mark.integration


def connector(it: Machine) -> dict[str, object]:
    """What `ssmd status` says of the connector."""
    row = it.status()["connector"]
    return {"pid": row["pid"], **(row.get("health") or {})}


def frames_pass(it: Machine, count: int) -> None:
    """Wait until the exchange has sent so many more."""
    before = it.sent
    it.wait(lambda: it.sent > before + count, 60, "frames")


@pytest.mark.alone
def test_a_key_rotated_by_its_command_is_in_use_within_a_minute_without_a_restart(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        it.key_in_variables = False
        new_id, new_private, new_public = make_key_pair(tmp_path / "new")
        wrong_id, wrong_private, _ = make_key_pair(tmp_path / "wrong")
        it.start_exchange(
            "--key-id", new_id, "--public-key", str(new_public), "--rate", "1500", "--window-s", "120"
        )  # fmt: skip
        it.keep_key("set", it.key_id, it.private)
        it.up()
        frames_pass(it, 3000)
        assert it.keys_in_use() == {it.key_id}
        pid = connector(it)["pid"]

        it.keep_key("rotate", wrong_id, wrong_private)  # the exchange does not know it: the feed stays alive
        it.wait(lambda: "refused" in str(connector(it).get("trouble")), 60, "the refusal to be noticed")
        frames_pass(it, 3000)
        assert it.keys_in_use() == {it.key_id}

        began, began_ns = time.monotonic(), time.time_ns()
        it.keep_key("rotate", new_id, new_private)
        it.wait(lambda: it.keys_in_use() == {new_id}, 60, "the new key to be used")
        took_s = time.monotonic() - began
        it.faults.append(Fault(began_ns, time.time_ns()))  # the connection is exchanged somewhere in between
        frames_pass(it, 3000)
        now = connector(it)
        audit = it.rows("select action, count(*) from key_audit_log group by action")
        gaps = it.rows("select reason, extract(epoch from gap_end - gap_start) from data_gaps")
        it.down()

        assert took_s < 60
        assert (now["pid"], now["status"], now["trouble"]) == (pid, "ok", {})
        assert [(reason, float(length_s) < 1.0) for reason, length_s in gaps] == [("planned_teardown", True)], gaps
        assert dict(audit).keys() >= {"created", "rotated", "accessed"}, audit
        logs = "".join(path.read_text(errors="replace") for path in (tmp_path / "home").rglob("*.log"))
        assert new_id in (tmp_path / "exchange.log").read_text()
        assert "PRIVATE KEY" not in logs
        result = it.check()
        assert not result.findings, result.table()
        assert result.archive.count > 9000, result.table()
