"""A key that is rotated while the connector runs: in use within seconds, no restart, a short recorded gap."""

import asyncio
from pathlib import Path

import pytest

from ssmd.clock import now_ns
from ssmd.connector import keys
from ssmd.connector import link as links
from ssmd.connector.exchange import Credentials, fingerprint
from ssmd.errors import ConfigError
from ssmd.feeds.kalshi.signing import sign_headers
from ssmd.simulator.keys import make_key_pair
from ssmd.simulator.options import WS_PATH, SimulatorOptions
from tests.flow.stack import Stack, capture


class Store:
    """Where the key is kept: what a store answers, changed by `put`."""

    def __init__(self, folder: Path) -> None:
        self.pairs = {name: make_key_pair(folder / name, "ed25519") for name in ("old", "new", "unknown")}
        self.broken = False
        self.put("old")

    def put(self, name: str) -> None:
        """Rotate to one of the pairs."""
        self.key_id, private, _ = self.pairs[name]
        self.pem = private.read_text()

    def __call__(self) -> Credentials:
        if self.broken:
            raise ConfigError("the stored key cannot be decrypted")
        key_id, pem = self.key_id, self.pem
        return Credentials(
            lambda: sign_headers(key_id, pem, "GET", WS_PATH, now_ns() // 1_000_000), fingerprint(key_id, pem)
        )

    def options(self) -> SimulatorOptions:
        """An exchange that knows the old and the new key."""
        allowed = tuple((self.pairs[name][0], self.pairs[name][2]) for name in ("old", "new"))
        return SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0, keys=allowed)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("ssmd.connector.connections.CHECK_S", 0.05)
    return Store(tmp_path / "keys")


def start(stack: Stack, store: Store) -> None:
    stack.credentials = store
    stack.start_connector()
    stack.start_archiver()


def key_ids(stack: Stack) -> list[str]:
    """The key ids of the connections that the exchange has now."""
    return [connection["key_id"] for connection in stack.simulator.state()["connections"]]


@pytest.mark.alone
async def test_a_rotated_key_is_taken_into_use_with_a_gap_of_less_than_a_second(tmp_path: Path, store: Store) -> None:
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 2000)
        stack._our_doing("connector")
        store.put("new")
        await stack.until(lambda: key_ids(stack) == [store.pairs["new"][0]])
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 2000)
        (gap,) = stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()
        assert len(result.ledger) == 2  # one connection before and one after, no third
        assert gap.reason == "planned_teardown"
        assert gap.to_ns - gap.from_ns < 1_000_000_000, gap


async def test_a_new_key_that_the_exchange_refuses_costs_no_frame(tmp_path: Path, store: Store) -> None:
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 1000)
        store.put("unknown")
        await stack.until(lambda: "refused" in str(stack.connector.health().get("trouble")))
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 2000)
        assert key_ids(stack) == [store.pairs["old"][0]]
        assert stack.connector.health()["connected"]

        store.put("old")  # the mistake is taken back
        await stack.until(lambda: stack.connector.health()["status"] == "ok")
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()
        assert result.missing == 0
        assert len(result.ledger) == 1


async def test_a_connection_that_is_lost_while_the_new_key_is_wrong_comes_back_with_the_old_one(
    tmp_path: Path, store: Store
) -> None:
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 1000)
        store.put("unknown")
        await stack.until(lambda: "key" in stack.connector.health()["trouble"])  # type: ignore[operator]
        stack.simulator.fault("abort")
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 2000)
        assert key_ids(stack) == [store.pairs["old"][0]]

        store.put("new")
        await stack.until(lambda: key_ids(stack) == [store.pairs["new"][0]])
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        stack._our_doing("connector")
        assert stack.connector.health()["trouble"] == {}
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()


async def test_an_exchange_that_takes_no_second_connection_now_is_asked_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "AWAY_AGAIN_S", 0.1)
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 1000)
        stack.simulator.fault("refuse_429", seconds=2.0)
        store.put("new")
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1500)
        assert key_ids(stack) == [store.pairs["old"][0]]
        await stack.until(lambda: key_ids(stack) == [store.pairs["new"][0]])
        assert len(stack.registry.gaps("kalshi", stack.today)) <= 1
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()
        assert len(result.ledger) == 2


async def test_a_connection_that_is_lost_while_the_second_one_is_opened_is_followed_by_one_not_two(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, slow = links.connect, asyncio.Event()

    async def connect_slowly(url: str, headers: dict[str, str], on_frames: links.OnFrames) -> links.Link:
        if not slow.is_set() and headers["KALSHI-ACCESS-KEY"] == store.pairs["new"][0]:
            slow.set()
            await stack.until(lambda: key_ids(stack) == [store.pairs["new"][0]])  # the reconnect was quicker
        return await connect(url, headers, on_frames)

    monkeypatch.setattr(links, "connect", connect_slowly)
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 1000)
        store.put("new")
        await stack.until(slow.is_set)
        stack.simulator.fault("close")
        await stack.until(lambda: stack.simulator.state()["connections_total"] >= 3)
        await stack.until(lambda: len(key_ids(stack)) == 1)
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        (gap,) = stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        assert gap.reason == "connection_lost"
        result = stack.check()
        assert not result.findings, result.table()


async def test_a_key_that_cannot_be_read_any_more_stays_in_use(tmp_path: Path, store: Store) -> None:
    async with capture(tmp_path, store.options()) as stack:
        start(stack, store)
        await stack.until(lambda: stack.sent > 1000)
        store.broken = True
        await stack.until(lambda: "decrypted" in str(stack.connector.health()["trouble"]))
        stack.simulator.fault("close")
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        store.broken = False
        await stack.until(lambda: stack.connector.health()["status"] == "ok")
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()


async def test_a_key_that_never_worked_ends_the_connector_and_names_the_command(tmp_path: Path, store: Store) -> None:
    async with capture(tmp_path, store.options()) as stack:
        store.put("unknown")
        start(stack, store)
        with pytest.raises(ConfigError, match="refused the credentials") as caught:
            async with asyncio.timeout(30):
                await stack._tasks.pop("connector")
        assert "ssmd key set test kalshi" in (caught.value.hint or "")


def test_the_stores_are_asked_often_enough() -> None:
    assert keys.CHECK_S * 2 + 6 < 60  # two looks and a slow handshake
    assert fingerprint("a", "b") != fingerprint("a", "c") != fingerprint("ab", "c") != fingerprint("a", "bc")
