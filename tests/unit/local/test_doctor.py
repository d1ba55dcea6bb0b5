"""The doctor sees what is wrong, and says what to do."""

import io
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from ssmd.local import doctor
from ssmd.local.airflow_server import INSTALL
from ssmd.local.doctor import Check
from ssmd.local.home import Home
from ssmd.local.live import trade_line
from ssmd.local.progress import Progress
from ssmd.middleware.storage.memory import MemoryStorage
from tests.unit.local.test_plan import plan


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 9), "bad"), ((3, 11, 0), "good"), ((3, 13, 5), "good"), ((3, 14, 0), "bad")],
    ids=["too old", "oldest", "newest", "too new"],
)
def test_only_tested_versions_of_python_are_good(version: tuple[int, ...], state: str) -> None:
    assert doctor.check_python(version).state == state


def lock(folder: Path, text: str) -> Path:
    path = folder / "local.txt"
    path.write_text(text)
    return path


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    import msgspec

    good = f"msgspec=={msgspec.__version__} \\\n    --hash=sha256:00\n"
    assert doctor.check_packages(lock(tmp_path, good)) == Check("packages", "good", "1 package as locked")
    wrong = doctor.check_packages(lock(tmp_path, "msgspec==0.0.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\n"))
    assert wrong.state == "warning"
    assert wrong.fix == f"Run: {INSTALL}"
    assert f"msgspec {msgspec.__version__} instead of 0.0.1; no-such-package is missing" in wrong.detail
    elsewhere = doctor.check_packages(lock(tmp_path, "pywin32==1.0 ; sys_platform == 'win32' \\\n"))
    assert elsewhere.state == "good"
    assert doctor.check_packages(tmp_path / "none.txt").state == "warning"


def test_the_command_that_is_named_for_missing_packages_installs_where_make_setup_sees_nothing_to_do(
    tmp_path: Path,
) -> None:
    checkout = Path(__file__).parents[3]
    shutil.copy(checkout / "Makefile", tmp_path)
    for name in ("pyproject.toml", "requirements/local.txt", "requirements/build.txt", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv" / ".local").touch()  # the stamp of an installation, newer than all of it

    def installs(command: str) -> bool:
        # its own variables would make it a part of the `make` that runs the tests
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        words = [*command.split(), "-n", "-C", str(tmp_path)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        return "requirements/local.txt" in done.stdout and "install" in done.stdout

    assert not installs("make setup")
    assert installs(INSTALL)


def test_a_port_is_free_or_taken_by_a_stranger(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        taken = holder.getsockname()[1]
        chosen = plan(gateway={"host": "127.0.0.1", "port": taken})

        found = {check.name: check for check in doctor.check_ports(chosen, Home(tmp_path))}

    assert found["port gateway"].state == "bad"
    assert f"process {os.getpid()}" in found["port gateway"].detail
    assert "spec.gateway.port" in found["port gateway"].fix


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("  sync_interval: 1s\n", "good"),
        ("sync_interval: always", "good"),
        ("sync_interval: 2m\n", "warning"),
        ("", "good"),
    ],
    ids=["ours", "always", "default", "not started"],
)
def test_what_a_power_cut_costs_the_stream(text: str, state: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    if text:
        (home.run / "nats.conf").write_text(text)

    assert doctor.check_nats_durability(home).state == state


def test_a_slow_disk_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_spool(tmp_path / "new" / "spool").state == "good"
    monkeypatch.setattr(doctor, "_sync_ms", lambda _descriptor: 80.0)
    assert doctor.check_spool(tmp_path).state == "warning"
    (tmp_path / "file").touch()
    assert doctor.check_spool(tmp_path / "file" / "spool").state == "bad"


def test_disk_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "free for" in doctor.check_disk(tmp_path / "not" / "yet").detail
    monkeypatch.setattr(doctor, "LOW_BYTES", 1 << 60)
    assert doctor.check_disk(tmp_path).state == "bad"


async def test_storage_that_overwrites_is_refused() -> None:
    class Overwriting(MemoryStorage):
        async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
            await self.replace(bucket, key, data)
            return True

    honest, careless = MemoryStorage(), Overwriting()

    assert (await doctor.check_storage(honest, "ssmd-raw", "memory")).state == "good"
    assert await honest.list("ssmd-raw", "") == []
    assert (await doctor.check_storage(careless, "ssmd-raw", "memory")).state == "bad"


def test_the_clock_is_looked_at() -> None:
    assert doctor.check_clock().state in ("good", "warning")


def test_all_checks_of_a_machine_have_a_fix_when_they_are_not_good(tmp_path: Path) -> None:
    checks = list(doctor.machine_checks(plan(), Home(tmp_path), tmp_path / "spool"))

    assert {check.name for check in checks} >= {"python", "packages", "disk", "clock", "nats", "postgres", "spool"}
    assert all(check.fix for check in checks if check.state != "good")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"type":"trade","ticker":"T-1","side":"buy","size":10,"price":0.45}', "T-1  buy 10 @ 0.45"),
        ('{"type":"trade","symbol":"T-1","data":{"side":"sell","size":1,"price":0.5}}', "T-1  sell 1 @ 0.5"),
        (b'{"type":"orderbook","ticker":"T-1"}', ""),
        (b"not json", ""),
        (b"[1]", ""),
    ],
    ids=["flat", "nested", "book", "no json", "list"],
)
def test_a_trade_is_one_line_for_people(message: str | bytes, expected: str) -> None:
    assert trade_line(message) == expected


def test_steps_are_lines_with_their_time() -> None:
    said = io.StringIO()
    progress = Progress(said)

    with progress.step("nats", "127.0.0.1:4222"):
        progress.status("only on a terminal")
    with pytest.raises(ValueError, match="no"), progress.step("gateway"):
        raise ValueError("no")

    first, second = said.getvalue().splitlines()
    assert first.startswith("✓ nats       127.0.0.1:4222 ")
    assert first.endswith(" s")
    assert second.startswith("✗ gateway")


def test_a_terminal_that_is_gone_does_not_stop_the_stack() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Progress(Gone()).step("nats"):
        pass
