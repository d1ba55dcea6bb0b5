"""How people and programs get into the local Airflow: one generated password, and the secrets its parts share."""

import base64
import contextlib
import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from ssmd.errors import ConfigError
from ssmd.local.home import Home

T = TypeVar("T", bound=msgspec.Struct)

USERNAME = "admin"
_WORDS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Nothing that is read wrongly when it is typed from a terminal."""


class Access(msgspec.Struct, frozen=True):
    """`run/airflow.json`: where Airflow is, and who may come in."""

    url: str
    username: str
    password: str


class SharedSecrets(msgspec.Struct, frozen=True):
    """`airflow/secrets.json`: with these Airflow's processes know each other and encrypt what they store."""

    jwt: str
    api: str
    fernet: str


def read_access(home: Home) -> Access | None:
    """What the last `ssmd up` wrote; None when there is none."""
    return _read(home.airflow_access, Access)


def prepare_access(home: Home, url: str, given: tuple[str, str] | None) -> tuple[Access, bool]:
    """The access to Airflow, stored for `ssmd ops`; and whether its password was made just now.

    `given` are the operator's own user and password; without them a password is made once and kept.
    """
    before = _read(home.airflow_access, Access)
    if given is not None:
        access, new = Access(url, *given), False
    elif before is not None and before.username == USERNAME:
        access, new = Access(url, USERNAME, before.password), False
    else:
        access, new = Access(url, USERNAME, "".join(secrets.choice(_WORDS) for _ in range(20))), True
    write_private(home.airflow_access, msgspec.json.encode(access))
    write_private(passwords_file(home), msgspec.json.encode({access.username: access.password}))
    return access, new


def passwords_file(home: Home) -> Path:
    """The file in which Airflow's simple auth manager looks for passwords."""
    return home.airflow / "passwords.json"


def shared_secrets(home: Home) -> SharedSecrets:
    """The secrets of this home's Airflow; made once, since what is stored under them must stay readable."""
    path = home.airflow / "secrets.json"
    found = _read(path, SharedSecrets)
    if found is None:
        if path.exists():
            raise ConfigError(f"{path} cannot be read as Airflow's secrets", "Restore it, or remove it.")
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        found = SharedSecrets(secrets.token_hex(64), secrets.token_hex(32), fernet)
        write_private(path, msgspec.json.encode(found))
    return found


def _read(path: Path, kind: type[T]) -> T | None:
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def write_private(path: Path, data: bytes) -> None:
    """Replace the file, whole; only the owner may read it."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    aside.replace(path)
