"""What the exchange sent, written down before it is sent: one JSON line per frame, flushed to the kernel per batch."""

import json
import os
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from ssmd.errors import ConfigError, FatalError
from ssmd.simulator.protocol import Sent

_LINE = (
    b'{"t_ns":%d,"conn":"%b","n":%d,"sid":%b,"seq":%b,"type":"%b","ticker":%b,"sha256":"%b","bytes":%d,'
    b'"dropped":%b,"hostile":%b}\n'
)


@lru_cache(maxsize=65_536)
def _quoted(ticker: str) -> bytes:
    return json.dumps(ticker).encode() if ticker else b"null"


def ledger_line(connection: bytes, n: int, sent: Sent, *, dropped: bool, hostile: bool) -> bytes:
    """One line; `n` counts every frame of the connection from 0, swallowed ones included."""
    return _LINE % (
        time.time_ns(),
        connection,
        n,
        b"null" if sent.sid is None else b"%d" % sent.sid,
        b"null" if sent.seq is None else b"%d" % sent.seq,
        sent.type.encode(),
        _quoted(sent.ticker),
        sha256(sent.frame).hexdigest().encode(),
        len(sent.frame),
        b"true" if dropped else b"false",
        b"true" if hostile else b"false",
    )


class Ledger:
    """Appends to a file, or to nothing when there is none."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._descriptor: int | None = None
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise ConfigError(
                    f"cannot write the ledger {file}: {error}", "Give --ledger a writable file"
                ) from error

    @property
    def is_kept(self) -> bool:
        """False when nobody asked for a ledger: the lines need not be made."""
        return self._descriptor is not None

    def write(self, lines: list[bytes]) -> None:
        """Hand the lines to the kernel; returns when they survive this process. FatalError when they cannot be kept."""
        if self._descriptor is None or not lines:
            return
        rest = memoryview(b"".join(lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise FatalError(f"cannot write the ledger {self._file}: {error}", "Make room and start again") from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
