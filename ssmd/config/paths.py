"""Where relative paths lead: below SSMD_HOME, never below the folder a command happens to be run in.

`SSMD_HOME` is the environment variable of that name, else `.ssmd` in the working folder. A path in an environment
file that is not absolute is meant below it, whatever the working folder of the service is.
"""

from collections.abc import Mapping
from pathlib import Path

from ssmd.config.environment import Environment
from ssmd.config.middleware import FileJournal, LocalStorage


def ssmd_home(environ: Mapping[str, str]) -> Path:
    """The absolute path of SSMD_HOME, as `environ` (usually `os.environ`) says; it need not exist."""
    return Path(environ.get("SSMD_HOME") or ".ssmd").absolute()


def below(home: Path, path: str) -> Path:
    """`path` itself when it is absolute, else the path below `home`."""
    return home / path


def located(environment: Environment, home: Path) -> Environment:
    """The environment with every path in it absolute: what services are given."""
    spec = environment.spec
    middleware = spec.middleware
    storage, journal = middleware.storage, middleware.journal
    if isinstance(storage, LocalStorage):
        storage = storage.model_copy(update={"path": str(below(home, storage.path))})
    if isinstance(journal, FileJournal):
        journal = journal.model_copy(update={"path": str(below(home, journal.path))})
    spool = spec.connector.spool.model_copy(update={"path": str(below(home, spec.connector.spool.path))})
    changed = spec.model_copy(
        update={
            "middleware": middleware.model_copy(update={"storage": storage, "journal": journal}),
            "connector": spec.connector.model_copy(update={"spool": spool}),
        }
    )
    return environment.model_copy(update={"spec": changed})
