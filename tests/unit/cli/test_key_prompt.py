"""Prompts on a real pseudo-terminal: what is typed or pasted never appears on it."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssmd.keys.stores import LocalStore
from tests.unit.cli.test_key import ENVIRONMENT
from tests.unit.keys.certificates import signing_pem

SECRET = "typed-canary-7431"


class Terminal:
    """A command whose stdin, stdout and stderr are a terminal."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environ = {"PATH": os.environ["PATH"], "SSMD_HOME": str(folder / "home"), "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssmd", *arguments], stdin=slave, stdout=slave, stderr=slave, cwd=folder,
            env=environ, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""
        self._found = 0

    def until(self, text: str) -> None:
        """Read until `text` has appeared after what the last call found."""
        deadline = time.monotonic() + 30
        while text not in self.seen[self._found :]:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._master, 4096).decode()
                except OSError:  # the other side has closed it
                    pytest.fail(f"{text!r} did not appear: {self.seen}")
        self._found = self.seen.index(text, self._found) + len(text)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read the rest; the exit code."""
        while True:
            try:
                if not (data := os.read(self._master, 4096)):
                    break
            except OSError:
                break
            self.seen += data.decode()
        os.close(self._master)
        return self.process.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "k.yaml").write_text(ENVIRONMENT.replace("RUNTIME", "{type: local}"))
    return tmp_path


def kept(folder: Path, key: str, field: str) -> str | None:
    value = LocalStore(folder / "home", "kalshi-prod").read(key, field)
    return value.reveal() if value else None


def test_init_asks_for_each_required_key_and_shows_nothing_that_was_typed(folder: Path) -> None:
    pem = signing_pem()
    (folder / "key.pem").write_text(pem)
    terminal = Terminal(folder, "key", "init", "kalshi-prod")
    terminal.until("kalshi.api_key: ")
    terminal.type("\n")
    terminal.until("is needed")
    terminal.until("kalshi.api_key: ")
    terminal.type(SECRET + "\n")
    terminal.until("kalshi.api_secret: ")
    terminal.type("key.pem\n")
    terminal.until("read from the file")
    terminal.until("nats.url: ")
    terminal.type("nats://h:4222\n")
    terminal.until("nats.username: ")
    terminal.type("u\n")
    terminal.until("nats.password: ")
    terminal.type(SECRET + "\n")
    for field in ("tls_cert", "tls_key"):
        terminal.until(f"nats.{field} (optional")
        terminal.type("\n")
    terminal.until("Set it now? [y/N] ")
    terminal.type("\n")
    assert terminal.end() == 0
    assert "All required keys present." in terminal.seen
    assert SECRET not in terminal.seen
    assert (kept(folder, "kalshi", "api_key"), kept(folder, "kalshi", "api_secret")) == (SECRET, pem)
    assert kept(folder, "nats", "password") == SECRET
    assert kept(folder, "storage", "access_key") is None


def test_a_pasted_pem_is_one_value_and_a_broken_one_is_asked_again(folder: Path) -> None:
    pem = signing_pem()
    terminal = Terminal(folder, "key", "set", "kalshi-prod", "kalshi")
    terminal.until("api_key: ")
    terminal.type(SECRET + "\n")
    terminal.until("api_secret: ")
    terminal.type("-----BEGIN PRIVATE KEY-----\nnot base 64\n-----END PRIVATE KEY-----\n")
    terminal.until("looks like PEM")
    terminal.until("api_secret: ")
    terminal.type("no-such-file.pem\n")
    terminal.until("the value of 'api_secret' is not a PEM private key")
    terminal.until("api_secret: ")
    terminal.type(pem)
    assert terminal.end() == 0
    assert kept(folder, "kalshi", "api_secret") == pem
    assert "PRIVATE KEY" not in terminal.seen
    assert SECRET not in terminal.seen


def test_ctrl_c_keeps_nothing_and_the_echo_comes_back(folder: Path) -> None:
    terminal = Terminal(folder, "key", "set", "kalshi-prod", "kalshi")
    terminal.until("api_key: ")
    terminal.type(SECRET + "\n")
    terminal.until("api_secret: ")
    terminal.process.send_signal(2)
    assert terminal.end() == 130
    assert kept(folder, "kalshi", "api_key") is None
    assert SECRET not in terminal.seen


def test_a_deletion_is_confirmed_by_name(folder: Path) -> None:
    from ssmd.keys.secret import SecretValue

    LocalStore(folder / "home", "kalshi-prod").write("kalshi", {"api_key": SecretValue(SECRET)})
    for answer, code in (("nats", 3), ("kalshi", 0)):
        terminal = Terminal(folder, "key", "delete", "kalshi-prod", "kalshi")
        terminal.until("Type the name of the key")
        terminal.type(answer + "\n")
        assert terminal.end() == code
        assert (kept(folder, "kalshi", "api_key") is None) == (code == 0)
