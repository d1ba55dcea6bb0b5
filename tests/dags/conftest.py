"""Rooms with Airflow inside (see room.py), and the program that stands in for ssmd."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
"""
"""A cluster that does not answer: pods are described for it and never sent."""


class Rooms:
    """Asks the process, and reads its answers."""

    def __init__(
        self,
        folder: Path,
        environment_file: Path,
        command: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`command`: the real program, in place of the one that stands in for it; `variables`: its own."""
        self.folder, self.log = folder, folder / "room.log"
        self.rules = folder / "ssmd.json"
        self.script([])
        (folder / "kubeconfig").write_text(KUBECONFIG)
        fake = [sys.executable, "-I", "-S", str(ROOT / "tests" / "fakes" / "ssmd_command.py")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SSMD_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.dags.room", str(self.log)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={
                **kept, **(variables or {}), "AIRFLOW_HOME": str(folder / "airflow"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
                "KUBECONFIG": str(folder / "kubeconfig"), "SSMD_ENVIRONMENT_FILE": str(environment_file),
                "SSMD_COMMAND": json.dumps(list(command) or fake), "SSMD_FAKE": str(self.rules),
            },
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise AssertionError(self.log.read_text()[-4_000:])

    def ask(self, ask: str, **arguments: Any) -> Any:
        """The answer; AssertionError with the end of the log for an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ask": ask, **arguments}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline() or '{"error": "the room has ended"}')
        if "error" in said:
            raise AssertionError(f"{said['error']}\n{self.log.read_text()[-4_000:]}")
        return said["answer"]

    def script(self, rules: list[Mapping[str, Any]]) -> None:
        """What the program that stands in for ssmd does from now on; its list of calls begins anew."""
        self.rules.write_text(json.dumps({"rules": rules}))
        Path(f"{self.rules}.calls").write_text("")

    def calls(self) -> list[dict[str, Any]]:
        """The calls since then."""
        return [json.loads(line) for line in Path(f"{self.rules}.calls").read_text().splitlines()]

    def commands(self) -> list[list[str]]:
        """Their words, without the alerts and the options that every command has."""
        return [_without_file(call["words"]) for call in self.calls() if call["words"][:2] != ["ops", "alert"]]

    def alerts(self) -> list[dict[str, str]]:
        """What was written down with `ssmd ops alert`."""
        found = []
        for call in self.calls():
            if call["words"][:2] == ["ops", "alert"]:
                words = [part for word in call["words"][2:] for part in word.split("=", 1)]
                found.append({name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)})
        return found

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


def _without_file(words: list[str]) -> list[str]:
    return words[: words.index("--env")]


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """Airflow with the DAGs of environments/local.yaml."""
    yield from _room(tmp_path_factory.mktemp("room"), ROOT / "environments" / "local.yaml")


@pytest.fixture(scope="session")
def cluster_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """Airflow with the DAGs of an environment in a cluster, where the old day is stopped before the new one starts."""
    folder = tmp_path_factory.mktemp("cluster")
    text = (ROOT / "environments" / "kalshi.yaml").read_text()
    text = text.replace("handover: overlap", "handover: strict").replace("timezone: UTC", "timezone: America/New_York")
    text = text.replace("namespace: ssmd}", "namespace: trading, image: registry.example/ssmd:1.2.3}")
    (folder / "environment.yaml").write_text(text)
    yield from _room(folder, folder / "environment.yaml")


def _room(folder: Path, environment: Path) -> Iterator[Rooms]:
    try:
        importlib.metadata.version("apache-airflow-core")
    except importlib.metadata.PackageNotFoundError:
        missing("Apache Airflow", "make setup")
    room = Rooms(folder, environment)
    yield room
    room.close()
