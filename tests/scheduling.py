"""Which tests pytest-xdist gives to the same worker: files with a costly server, and whole stacks (see tests/run.py).

By path, since pytest-xdist 3.8 does not see its own `xdist_group` marks under pytest 9.2.
"""

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

TOGETHER = {
    # one whole stack at a time: each fills the machine
    "tests/integration/test_real_servers.py": "stack",
    "tests/integration/test_registry_refusal.py": "stack",
    "tests/integration/test_rotation.py": "stack",
    "tests/integration/test_up.py": "stack",
    "tests/integration/test_up_airflow.py": "stack",
    # one process with Airflow in it
    "tests/dags/test_catalogue.py": "airflow",
    "tests/dags/test_days.py": "airflow",
    "tests/dags/test_runs.py": "airflow",
    # SeaweedFS computes while it waits
    "tests/contracts/test_storage.py": "s3",
    "tests/integration/test_env_commands.py": "s3",
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed for strict users
    """Single tests to whoever is free, except those that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> Scheduling:
    """The scheduler of this run."""
    return Scheduling(config, log)
