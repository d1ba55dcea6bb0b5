"""The configuration as supervisord's own parser reads it, and orders over the socket."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from ssmd.errors import ConfigError, Unavailable
from ssmd.local.home import Home
from ssmd.local.supervisord import Control, Program, configuration, tail
from tests.fakes.supervisord import FakeSupervisord


def parsed(text: str, folder: Path) -> dict[str, Any]:
    """The programs that supervisord makes of a configuration."""
    path = folder / "supervisord.conf"
    path.write_text(text)
    options = ServerOptions()
    options.realize(["-n", "-c", str(path)])
    return {group.name: group.process_configs[0] for group in options.process_group_configs}


def home_in(folder: Path) -> Home:
    home = Home(folder)
    home.prepare()
    return home


def test_supervisord_reads_what_was_meant(tmp_path: Path) -> None:
    home = home_in(tmp_path / "50% off; home")
    service = Program(name="connector", command=["/bin/prog", "a b", "c%d", '"quoted"'], hidden=["SECRET"])
    server = Program(name="nats", command=["/bin/nats"], settle_s=1, stop_signal="INT", folder="/", retries=4)

    found = parsed(
        configuration([service, server], home, tmp_path / "s.sock", "pa%ss", root=os.geteuid() == 0), tmp_path
    )

    connector, nats = found["connector"], found["nats"]
    assert connector.command == """/usr/bin/env -u SECRET /bin/prog 'a b' c%d '"quoted"'"""
    assert (connector.autostart, connector.startsecs, connector.stopwaitsecs) == (False, 0, 30)
    assert connector.exitcodes == [0, 2]
    assert (connector.stopasgroup, connector.killasgroup) == (False, True)
    assert connector.stdout_logfile == str(home.log / "connector.log")
    assert (nats.startsecs, nats.startretries, nats.directory) == (1, 4, "/")
    assert int(nats.stopsignal) == 2
    assert connector.priority < nats.priority


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_program_can_run_as_another_user(tmp_path: Path) -> None:
    program = Program(name="postgres", command=["/bin/pg"], user="nobody")

    found = parsed(configuration([program], home_in(tmp_path), tmp_path / "s.sock", "p", root=True), tmp_path)

    assert found["postgres"].uid == pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize("bad", ["/a ;b", "/a #b", "/a\nb"], ids=["semicolon", "hash", "newline"])
def test_what_supervisord_would_cut_off_is_refused(bad: str, tmp_path: Path) -> None:
    program = Program(name="nats", command=["/bin/nats"], folder=bad)

    with pytest.raises(ConfigError, match="cannot be told"):
        configuration([program], home_in(tmp_path), tmp_path / "s.sock", "p", root=False)


def test_orders_and_states_pass_over_the_socket(tmp_path: Path) -> None:
    with FakeSupervisord(tmp_path / "s.sock", "secret", ["nats", "connector"]) as fake:
        control = Control(fake.path, "secret")
        control.start("nats")

        states = control.states()

        assert (states["nats"].state, states["connector"].state) == ("RUNNING", "STOPPED")
        control.start("nats")  # again: it runs already
        control.stop("connector")  # it does not run
        control.stop("nats")
        assert control.states()["nats"].state == "STOPPED"
        assert fake.orders == ["start nats", "stop nats"]
        control.close()


def test_a_wrong_password_is_refused(tmp_path: Path) -> None:
    with FakeSupervisord(tmp_path / "s.sock", "secret", ["nats"]) as fake:
        control = Control(fake.path, "guess")

        with pytest.raises(Unavailable, match="does not answer"):
            control.states()
        control.close()


def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="supervisord does not answer"):
        Control(tmp_path / "none.sock", "x").states()


def test_the_last_words_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\n\ntwo\nthree\n\n")

    assert tail(log, 2) == "two | three"
    assert tail(tmp_path / "none.log", 2) == ""
