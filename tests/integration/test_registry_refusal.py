"""The database refuses its services while they run: capture goes on, and what waited is written afterwards."""

import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ssmd.service_state import read_state
from tests.integration.machine import Machine, machine

pytestmark = pytest.mark.integration

REFUSAL = "refuses user 'postgres'"


def administer(it: Machine, *statements: str, user: str = "admin") -> None:
    """Run statements, as another superuser than the one that the services use."""
    port = it.ports["postgres"]
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=port, user=user, dbname="ssmd")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def health(it: Machine, service: str) -> dict[str, Any]:
    """What a service says of itself; nothing while it does not answer."""
    state = read_state(it.folder / "home", service)
    if state is None:
        return {}
    try:
        with urllib.request.urlopen(f"http://{state.host}:{state.port}/health", timeout=5) as answer:
            said = answer.read()
    except urllib.error.HTTPError as unwell:
        said = unwell.read()
    except OSError:
        return {}
    return dict(json.loads(said))


def manifests(it: Machine) -> set[str]:
    """The keys of all archived objects."""
    paths = [path for path in it.storage.rglob("_manifest/**/*.json") if path.parent.name != "_position"]
    return {str(json.loads(path.read_text())["key"]) for path in paths}


def recorded(it: Machine) -> set[str]:
    """The keys of the objects that the database knows."""
    return {key for (key,) in it.rows("SELECT key FROM data_objects")}


def test_a_login_that_is_refused_while_services_run_costs_no_frame_and_no_row(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        often = "connector: {seal_s: 3}\n  archiver: {seal_s: 2}\n  gateway:"
        it.environment.write_text(it.environment.read_text().replace("gateway:", often))
        it.start_exchange("--rate", "800", "--window-s", "120")
        it.up()
        administer(it, "CREATE ROLE admin LOGIN SUPERUSER", user="postgres")
        pids = {name: health(it, name)["pid"] for name in ("connector", "archiver", "gateway")}

        administer(
            it, "ALTER ROLE postgres RENAME TO renamed",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'renamed'",
        )  # fmt: skip
        it.wait(lambda: REFUSAL in str(health(it, "connector").get("trouble")), 40, "the connector to notice")
        it.wait(lambda: REFUSAL in str(health(it, "archiver").get("inventory")), 40, "the archiver to notice")
        it.wait(lambda: REFUSAL in str(health(it, "gateway")), 40, "the gateway to notice")
        assert health(it, "connector")["status"] == health(it, "archiver")["status"] == "degraded"
        before = it.sent
        it.wait(lambda: it.sent > before + 2000, 60, "frames")
        assert {name: health(it, name)["pid"] for name in pids} == pids

        it.kill("connector")  # it starts again while it is refused
        it.wait(lambda: REFUSAL in str(health(it, "connector").get("trouble")), 20, "the new connector to notice")
        it.wait(lambda: health(it, "connector").get("frames", 0) > 1000, 60, "frames of the new connector")

        administer(it, "ALTER ROLE renamed RENAME TO postgres")
        it.wait(lambda: health(it, "archiver").get("status") == "ok", 60, "the archiver to be well")
        stored = manifests(it)
        it.wait(lambda: stored <= recorded(it), 30, "the rows of what was stored meanwhile")
        it.down()

        assert len(stored) > 10
        result = it.check()
        assert not result.findings, result.table()
