"""The keyring over a source of keys that is slow, away, or asked too often."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from ssmd.errors import Unavailable
from ssmd.gateway import keyring as keyring_module
from ssmd.gateway.keyring import Keyring
from ssmd.gateway.problems import ApiProblem
from ssmd.registry.client_keys import ClientKey, Lock, key_id, key_sha256

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Source:
    """A table of keys that can go away or keep silent; counts what it is asked."""

    def __init__(self) -> None:
        self.table: dict[str, Lock] = {}
        self.away = False
        self.asked: list[str] = []
        self.used: dict[str, datetime] = {}
        self.silence = threading.Event()
        self.silence.set()

    def add(self, expires_at: datetime | None = None) -> str:
        text = f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        key = ClientKey(
            id=key_id(text), name="bot", scopes=("read:live",), created_at=NOW, created_by="test", expires_at=expires_at
        )
        self.table[key.id] = Lock(key, key_sha256(text))
        return text

    def locks(self) -> dict[str, Lock]:
        self._answer("all")
        return dict(self.table)

    def touch(self, used: dict[str, datetime]) -> None:
        self._answer("touch")
        self.used |= used

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        self.silence.wait(10)
        if self.away:
            raise Unavailable("PostgreSQL at db.example is away")


class Clocks:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.monotonic = 100.0

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def ring(source: Source, clocks: Clocks) -> AsyncIterator[Keyring]:
    ring = Keyring(source, lambda: clocks.now, lambda: clocks.monotonic)
    yield ring
    source.silence.set()
    ring.close()


async def refusal(ring: Keyring, text: str) -> ApiProblem:
    with pytest.raises(ApiProblem) as refused:
        await ring.open(text)
    return refused.value


async def test_a_known_key_opens_without_asking_again(ring: Keyring, source: Source) -> None:
    text = source.add()
    await ring.refresh()
    for _ in range(100):
        assert (await ring.open(text)).id == key_id(text)
    assert source.asked == ["all"]


async def test_for_unknown_ids_the_keys_are_read_once_a_second_however_many_ask(
    ring: Keyring, source: Source, clocks: Clocks
) -> None:
    for seconds in range(4):
        for _ in range(200):
            wrong = f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
            assert (await refusal(ring, wrong)).status == 401
        assert len(source.asked) == keyring_module.UNKNOWN_AT_ONCE + seconds
        clocks.pass_s(1.0)


async def test_who_tries_keys_at_random_does_not_keep_a_new_one_out(
    ring: Keyring, source: Source, clocks: Clocks
) -> None:
    for _ in range(50):
        await refusal(ring, f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}")
    text = source.add()
    clocks.pass_s(1.0)
    await refusal(ring, f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}")
    assert (await ring.open(text)).name == "bot"


async def test_what_cannot_be_a_key_is_never_looked_up(ring: Keyring, source: Source) -> None:
    for text in ("", "x", "ssmd_00000000_", "ssmd_0000000g_" + "A" * 43, "ssmd_00000000_" + "A" * 44, "\udcff"):
        assert (await refusal(ring, text)).code == "wrong_key"
    assert source.asked == []


async def test_new_keys_open_at_once(ring: Keyring, source: Source) -> None:
    await ring.refresh()
    for _ in range(5):
        text = source.add()
        assert (await ring.open(text)).name == "bot"


async def test_while_the_database_is_away_known_keys_go_on_and_unknown_ones_are_put_off(
    ring: Keyring, source: Source, clocks: Clocks
) -> None:
    text = source.add()
    await ring.refresh()
    source.away = True
    await ring.refresh()
    new = source.add()
    for _ in range(5):
        assert (await ring.open(text)).name == "bot"
        away = await refusal(ring, new)
        assert (away.status, away.code) == (503, "keys_away")
        assert "db.example" not in away.message + away.hint
        clocks.pass_s(0.4)
    assert len(source.asked) <= 2 + 5
    assert (await refusal(ring, text[:-1] + ("A" if text[-1] != "A" else "E"))).status == 401
    source.away = False
    clocks.pass_s(1)
    assert (await ring.open(new)).name == "bot"


async def test_a_database_that_keeps_silent_holds_nobody_up_for_long(
    ring: Keyring, source: Source, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "ANSWER_S", 0.05)
    text = source.add()
    await ring.refresh()
    source.silence.clear()
    for _ in range(10):
        assert (await ring.open(text)).name == "bot"
        assert (await refusal(ring, f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}")).status == 503
        clocks.pass_s(1.1)
    assert len(source.asked) <= 5  # questions do not pile up
    source.silence.set()
    async with asyncio.timeout(10):
        while ring._waiting:  # noqa: ASYNC110 a thread's work
            await asyncio.sleep(0.01)
    await ring.refresh()
    assert ring.error == ""


async def test_ended_keys_say_why_to_who_holds_them_and_nothing_to_others(
    ring: Keyring, source: Source, clocks: Clocks
) -> None:
    text = source.add(expires_at=NOW + timedelta(hours=1))
    await ring.refresh()
    assert ring.ended(key_id(text)) == ""
    clocks.pass_s(3_600)
    assert (await refusal(ring, text)).code == "key_expired"
    assert (await refusal(ring, text[:-1] + ("A" if text[-1] != "A" else "E"))).code == "wrong_key"
    assert ring.ended(key_id(text)) == "has expired"
    del source.table[key_id(text)]
    await ring.refresh()
    assert ring.ended(key_id(text)) == "was removed"


async def test_uses_that_could_not_be_noted_are_noted_later(ring: Keyring, source: Source, clocks: Clocks) -> None:
    text = source.add()
    await ring.open(text)
    source.away = True
    await ring.touch()
    clocks.pass_s(5)
    await ring.open(text)
    source.away = False
    await ring.touch()
    assert source.used == {key_id(text): clocks.now}
