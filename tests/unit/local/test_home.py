"""State below SSMD_HOME."""

import os
from pathlib import Path

import msgspec
import pytest

from ssmd.errors import ConfigError, RefusedError
from ssmd.local.home import MAX_SOCKET_PATH, Home, StackRecord
from ssmd.local.processes import ProcessId


def record(socket: Path) -> StackRecord:
    return StackRecord("mark", "local", "local.yaml", str(socket), "password", ProcessId(1, 2), ["nats"], {})


def test_a_record_comes_back_and_is_the_owners_only(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    written = record(home.socket_path())

    home.write_record(written)

    assert home.read_record() == written
    assert home.record.stat().st_mode & 0o077 == 0
    home.forget()
    assert home.read_record() is None


def test_the_record_says_where_the_exchange_is_and_older_records_say_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.write_record(msgspec.structs.replace(record(home.socket_path()), rest="http://127.0.0.1:1/trade-api/v2"))
    written = home.read_record()
    assert written is not None
    assert written.rest == "http://127.0.0.1:1/trade-api/v2"

    fields = msgspec.json.decode(home.record.read_bytes())
    del fields["rest"]
    home.record.write_bytes(msgspec.json.encode(fields))
    older = home.read_record()
    assert older is not None
    assert older.rest is None


def test_a_half_written_record_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.record.write_text('{"mark": "x"')

    assert home.read_record() is None


def test_a_long_path_gets_a_short_socket_which_is_removed_again(tmp_path: Path) -> None:
    home = Home(tmp_path / ("x" * 90))
    home.prepare()

    socket = home.socket_path()

    assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH
    assert socket.parent != home.run
    assert socket.parent.stat().st_mode & 0o077 == 0
    socket.touch()
    home.write_record(record(socket))
    home.forget()
    assert not socket.parent.exists()


def test_only_one_up_works_in_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()

    with home.locked(), pytest.raises(RefusedError, match="another `ssmd up`"), Home(tmp_path).locked():
        pass
    with home.locked():
        pass


def test_a_home_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot use"):
        Home(tmp_path / "file" / "home").prepare()
