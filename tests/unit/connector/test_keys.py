"""When changed credentials are tried, and what is kept meanwhile."""

import pytest

from ssmd.connector.exchange import Credentials, Exchange
from ssmd.connector.keys import AWAY_AGAIN_S, CHECK_S, REFUSED_AGAIN_S, Keys
from ssmd.connector.link import CredentialsRefused
from ssmd.connector.spool import SpoolState
from ssmd.errors import ConfigError
from tests.unit.connector.test_markets import PARTS

OLD, NEW, OTHER = (Credentials(dict, name) for name in ("old", "new", "other"))


class Desk:
    """Credentials in a store, looked at every two seconds."""

    def __init__(self) -> None:
        self.stored: Credentials | ConfigError = OLD
        self.now_s = 0.0
        self.state = SpoolState()
        exchange = Exchange(
            "ws://x", "prod", "kalshi", self.read, PARTS.decoder, PARTS.new_mapper, PARTS.new_session, None
        )
        self.keys = Keys("kalshi", exchange, self.state)

    def read(self) -> Credentials:
        if isinstance(self.stored, ConfigError):
            raise self.stored
        return self.stored

    async def look(self, used: Credentials = OLD, seconds: float = CHECK_S) -> bool:
        """A look some seconds later: is the stored value to be tried?"""
        self.now_s += seconds
        return self.keys.is_due(await self.keys.read(), used, self.now_s)


@pytest.fixture
async def desk() -> Desk:
    desk = Desk()
    desk.keys.accept(await desk.keys.read())
    return desk


async def test_a_changed_value_is_tried_when_two_looks_in_a_row_found_it(desk: Desk) -> None:
    assert not await desk.look()
    desk.stored = OTHER  # the id is written, the secret not yet
    assert not await desk.look()
    desk.stored = NEW
    assert not await desk.look()
    assert await desk.look()


async def test_a_refused_value_is_tried_again_after_a_minute_and_a_changed_one_at_once(desk: Desk) -> None:
    desk.stored = NEW
    await desk.look()
    assert await desk.look()
    desk.keys.refuse(NEW, CredentialsRefused("HTTP 401"), desk.now_s)
    assert "refused" in desk.keys.problem
    assert not await desk.look()
    assert not await desk.look(seconds=REFUSED_AGAIN_S - 2 * CHECK_S)
    assert await desk.look()

    desk.keys.refuse(NEW, CredentialsRefused("HTTP 401"), desk.now_s)
    desk.stored = OTHER
    await desk.look()
    assert await desk.look()


async def test_an_exchange_that_is_away_is_asked_again_soon(desk: Desk) -> None:
    desk.stored = NEW
    await desk.look()
    assert await desk.look()
    desk.keys.postpone(NEW, desk.now_s)
    assert not await desk.look()
    assert await desk.look(seconds=AWAY_AGAIN_S)


async def test_a_mistake_that_is_taken_back_leaves_no_problem(desk: Desk) -> None:
    desk.stored = NEW
    await desk.look()
    desk.keys.refuse(NEW, CredentialsRefused("HTTP 401"), desk.now_s)
    desk.stored = OLD
    assert not await desk.look()
    assert desk.keys.problem == ""


async def test_a_value_that_cannot_be_read_leaves_the_last_one_in_use(desk: Desk) -> None:
    desk.stored = ConfigError("cannot be decrypted")
    assert await desk.keys.read() is OLD
    assert desk.keys.problem == "cannot be decrypted"
    assert not await desk.look()
    assert desk.keys.problem == "cannot be decrypted"
    desk.stored = OLD
    assert not await desk.look()
    assert desk.keys.problem == ""


async def test_credentials_that_could_never_be_read_are_an_error() -> None:
    desk = Desk()
    desk.stored = ConfigError("no value")
    with pytest.raises(ConfigError, match="no value"):
        await desk.keys.read()


async def test_what_was_accepted_is_remembered_across_a_restart(desk: Desk) -> None:
    assert desk.state.accepted_key == "old"
    assert not desk.keys.is_new(OLD)
    assert desk.keys.is_new(NEW)
    desk.keys.accept(NEW)
    assert (desk.state.accepted_key, desk.keys.accepted) == ("new", NEW)
