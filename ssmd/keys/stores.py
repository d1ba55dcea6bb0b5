"""Where secrets are kept: environment variables, encrypted files below SSMD_HOME, mounted Kubernetes Secrets.

What the local store protects: its files are useless without `master.key`, so a copy of the folder `keys` (a backup, an
upload, a commit) gives nothing away; both are readable by their owner only. What it does not: whoever can read files as
that user, or as root, has the master key too. A machine shared with people you do not trust needs another store.
"""

import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ssmd.config.references import in_cluster, variable
from ssmd.config.values import KEY_FIELD, KEY_NAME
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue, normalized

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

MAX_BYTES = 1 << 20
MOUNT_FOLDER = Path("/var/run/secrets/ssmd")

Stamp: TypeAlias = object
"""Changes when the value may have changed; None: the store does not have it."""


class Store(Protocol):
    """A place where secrets are looked for."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def stamp(self, key: str, field: str) -> Stamp:
        """A cheap look: None when there is no such value, else something that changes when the value does."""
        ...

    def read(self, key: str, field: str) -> SecretValue | None:
        """The value, or None when there is none. ConfigError when it is there and cannot be used."""
        ...

    def set_at(self, key: str, field: str) -> datetime | None:
        """When the value was set; None when there is none or the store does not know."""
        ...


class EnvironmentStore:
    """`SSMD_KEY_{NAME}_{FIELD}` holds the value, `SSMD_KEY_{NAME}_{FIELD}_FILE` the path of a file that does."""

    name = "environment variables"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def stamp(self, key: str, field: str) -> Stamp:
        """See `Store.stamp`."""
        direct = variable(key, field)
        if direct in self._environ:
            return direct, hash(self._environ[direct])
        path = self._environ.get(direct + "_FILE")
        return None if path is None else (path, _file_stamp(Path(path)))

    def read(self, key: str, field: str) -> SecretValue | None:
        """See `Store.read`."""
        direct = variable(key, field)
        if direct in self._environ:
            return _value(self._environ[direct], f"the environment variable {direct}")
        path = self._environ.get(direct + "_FILE")
        if path is None:
            return None
        if not path:
            raise ConfigError(
                f"the environment variable {direct}_FILE is empty", "Give the path of a file, or unset it."
            )
        text = _read_text(Path(path), f"the file named by {direct}_FILE")
        return _value(text, f"the file {path} ({direct}_FILE)")

    def set_at(self, key: str, field: str) -> datetime | None:
        """Variables do not know how old they are."""
        return None


class MountedStore:
    """A folder of files, as Kubernetes mounts Secrets: `{folder}/{name}/{field}` or `{folder}/{name}-{field}`.

    `name` is the key's, or the key's as Kubernetes takes it (`-` for `_`).
    """

    name = "mounted secrets"

    def __init__(self, folder: Path = MOUNT_FOLDER) -> None:
        self._folder = folder

    def _path(self, key: str, field: str) -> Path | None:
        _check_names(key, field)
        names = dict.fromkeys((key, in_cluster(key)))
        places = [place for name in names for place in (self._folder / name / field, self._folder / f"{name}-{field}")]
        return next((place for place in places if _present(place)), None)

    def stamp(self, key: str, field: str) -> Stamp:
        """See `Store.stamp`."""
        path = self._path(key, field)
        return None if path is None else (path, _file_stamp(path))

    def read(self, key: str, field: str) -> SecretValue | None:
        """See `Store.read`."""
        path = self._path(key, field)
        return None if path is None else _value(_read_text(path, "the mounted secret"), f"the mounted secret {path}")

    def set_at(self, key: str, field: str) -> datetime | None:
        """The time of the file, which may be that of a mount and so later than the secret's own."""
        path = self._path(key, field)
        return None if path is None else _file_time(path)


class LocalStore:
    """Encrypted files `SSMD_HOME/keys/{environment}/{name}/{field}` and their key `SSMD_HOME/master.key`, mode 0600."""

    name = "local store"

    def __init__(self, home: Path, environment: str) -> None:
        self._folder = home / "keys" / environment
        self._master = home / "master.key"

    def stamp(self, key: str, field: str) -> Stamp:
        """See `Store.stamp`."""
        path = self._path(key, field)
        return (path, _file_stamp(path)) if _present(path) else None

    def read(self, key: str, field: str) -> SecretValue | None:
        """See `Store.read`."""
        kept = self._kept(key, field)
        return None if kept is None else _value(kept["value"], f"the stored key {self._path(key, field)}")

    def set_at(self, key: str, field: str) -> datetime | None:
        """When `write` was called; for what an earlier version wrote, the time of the file."""
        kept = self._kept(key, field)
        if kept is None:
            return None
        return datetime.fromisoformat(kept["set_at"]) if "set_at" in kept else _file_time(self._path(key, field))

    def write(self, key: str, values: Mapping[str, SecretValue]) -> None:
        """Keep the values of some fields, in place of older ones.

        Nothing is replaced before all are on disk; each is there whole or not at all.
        """
        texts = {
            self._path(key, field): (field, _value(value.reveal(), f"the new value of {key}.{field}").reveal())
            for field, value in values.items()
        }
        now = datetime.now(UTC).isoformat()
        folder = self._folder / key
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fernet = self._fernet() or self._make_master()
            tokens = {
                path: fernet.encrypt(json.dumps({"key": key, "field": field, "value": text, "set_at": now}).encode())
                for path, (field, text) in texts.items()
            }
            write_private(tokens)
        except OSError as error:
            raise ConfigError(
                f"cannot write {folder}: {error.strerror}", "Set SSMD_HOME to a writable folder."
            ) from error

    def delete(self, key: str) -> list[str]:
        """Forget a key; the fields it had."""
        _check_names(key, "x")
        gone = self.fields(key)
        try:
            for field in gone:
                self._path(key, field).unlink()
            with contextlib.suppress(FileNotFoundError):
                for leftover in (self._folder / key).glob(".new-*"):  # of a crash while writing
                    leftover.unlink()
                (self._folder / key).rmdir()
        except OSError as error:
            raise ConfigError(f"cannot delete {self._folder / key}: {error.strerror}", "Check its owner.") from error
        return gone

    def fields(self, key: str) -> list[str]:
        """The fields of a key that are kept here, sorted."""
        _check_names(key, "x")
        folder = self._folder / key
        return sorted(p.name for p in folder.iterdir() if re.fullmatch(KEY_FIELD, p.name)) if folder.is_dir() else []

    def _path(self, key: str, field: str) -> Path:
        _check_names(key, field)
        return self._folder / key / field

    def _kept(self, key: str, field: str) -> dict[str, str] | None:
        """What the file of a field holds; None when there is no file."""
        from cryptography.fernet import InvalidToken

        path = self._path(key, field)
        if not _present(path):
            return None
        token = _read_text(path, "the stored key", private=True)
        fernet = self._fernet()
        if fernet is None:
            raise self._unusable(key, field, f"{self._master} is missing")
        try:
            kept: dict[str, str] = json.loads(fernet.decrypt(token.encode()))
        except (InvalidToken, ValueError) as error:
            raise self._unusable(key, field, f"it was not encrypted with {self._master}") from error
        if kept.get("key") != key or kept.get("field") != field:
            raise self._unusable(key, field, "the file belongs to another key")
        return kept

    def _unusable(self, key: str, field: str, why: str) -> ConfigError:
        message = f"the stored key {key}.{field} cannot be decrypted: {why}"
        again = f"Run: ssmd key set {self._folder.name} {key} (or set {variable(key, field)})"
        return ConfigError(message, f"Remove {self._path(key, field)}. {again}")

    def _fernet(self) -> "Fernet | None":
        from cryptography.fernet import Fernet  # most commands never open a stored key

        if not _present(self._master):
            return None
        try:
            return Fernet(_read_text(self._master, "the master key", private=True).strip())
        except ValueError as error:
            message = f"{self._master} is not a master key"
            raise ConfigError(message, "Restore it from a backup, or remove it and store all keys again.") from error

    def _make_master(self) -> "Fernet":
        """Create the master key; when somebody else does so in the same moment, use theirs."""
        from cryptography.fernet import Fernet

        fd, name = tempfile.mkstemp(dir=self._master.parent, prefix=".master-")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(Fernet.generate_key())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(name, self._master)
        finally:
            os.unlink(name)
        fernet = self._fernet()
        assert fernet is not None
        return fernet


def standard_stores(environ: Mapping[str, str], home: Path, environment: str) -> list[Store]:
    """The stores in the order they are asked: environment variables, the local store, mounted secrets."""
    return [EnvironmentStore(environ), LocalStore(home, environment), MountedStore()]


def _check_names(key: str, field: str) -> None:
    if not re.fullmatch(KEY_NAME, key) or not re.fullmatch(KEY_FIELD, field):
        raise ConfigError(f"{key!r}.{field!r} is not the name of a key's field", "Use the names of spec.keys.")


def _value(text: str, where: str) -> SecretValue:
    text = normalized(text)
    if not text.strip():
        raise ConfigError(f"{where} is empty", "Give it the value, or remove it.")
    if "\x00" in text:
        raise ConfigError(f"{where} holds a NUL character", "A secret is text: a password, a token, PEM.")
    return SecretValue(text)


def _present(path: Path) -> bool:
    """Is there a file? ConfigError when we are not allowed to know."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        message = f"cannot look for a key in {path}: {error.strerror}"
        raise ConfigError(message, "Make the folder readable for this user.") from error
    return True


def _file_stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError as error:
        return error.errno
    return state.st_mtime_ns, state.st_ino, state.st_size


def _read_text(path: Path, what: str, *, private: bool = False) -> str:
    """The text of a small file; `private`: its owner's only."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot read {what}: {path}: {error.strerror}"
        raise ConfigError(message, "Correct the path, or make the file readable for this user.") from error
    if private and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(mode):o})", f"Run: chmod 600 {path}"
        )
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{what} {path} has more than {MAX_BYTES} bytes", "A secret is text: a password, a token, PEM."
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        message = f"{what} {path} is not text"  # without the cause: it would quote the bytes
        raise ConfigError(message, "A secret is text: a password, a token, PEM (not DER).") from None


def _file_time(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:  # gone meanwhile
        return None


def write_private(contents: Mapping[Path, bytes]) -> None:
    """Replace files by ones of mode 0600: first all are written beside the old ones, then each takes its place."""
    written: dict[Path, str] = {}
    try:
        for path, data in contents.items():
            fd, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            written[path] = name
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in list(written):
            os.replace(written[path], path)
            del written[path]
    finally:
        for name in written.values():
            with contextlib.suppress(OSError):
                os.unlink(name)
