"""How the connector of an environment is put together: addresses, key, channels."""

from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

import pytest

from ssmd.cli.exchange import endpoints, make_exchange, open_connector
from ssmd.cli.opening import KeySecrets, Opener, resolver_of
from ssmd.cli.options import Chosen
from ssmd.config.loading import loads
from ssmd.errors import ConfigError
from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.registry.bootstrap import KALSHI
from ssmd.registry.interface import FeedVersion, RegistryRefused, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.resources import resource
from ssmd.simulator.keys import make_key_pair

WS, REST = "ws://127.0.0.1:9/trade-api/ws/v2", "http://127.0.0.1:9/trade-api/v2"
OVERRIDE = f'feed: kalshi\n  endpoints: {{ws: "{WS}", rest: "{REST}"}}'


def chosen(folder: Path, feed: str = "feed: kalshi", name: str = "test") -> Chosen:
    file = resource("environments") / f"{name}.yaml"
    return Chosen(loads(file.read_text().replace("feed: kalshi", feed, 1).encode()), file, folder)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A key in the environment; its id."""
    key_id, private, _public = make_key_pair(tmp_path / "keys")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", key_id)
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET_FILE", str(private))
    return key_id


class AwayRegistry(MemoryRegistry):
    """A database that does not answer, or refuses us."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def feed_version(self, feed: str, on: date) -> FeedVersion:
        raise self.error


async def test_addresses_come_from_flags_then_the_file_then_the_registry(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        plain, overridden = Opener(chosen(tmp_path), stack), Opener(chosen(tmp_path, OVERRIDE), stack)
        registry = MemoryRegistry()

        assert await endpoints(overridden, registry, "ws://flag/x", None) == ("ws://flag/x", REST)
        assert await endpoints(overridden, registry, None, None) == (WS, REST)
        assert (await endpoints(plain, registry, None, None))[0].startswith("wss://")


@pytest.mark.parametrize("error", [RegistryUnavailable("nobody there"), RegistryRefused("refuses user 'svc'")])
async def test_a_database_that_is_away_or_refuses_us_does_not_keep_the_feed_closed(
    error: Exception, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        ws, rest = await endpoints(Opener(chosen(tmp_path), stack), AwayRegistry(error), None, None)

    assert (ws, rest) == (KALSHI.versions[-1].ws, KALSHI.versions[-1].rest)


async def test_each_connection_is_signed_anew_with_the_key_named_like_the_feed(tmp_path: Path, signed: str) -> None:
    async with AsyncExitStack() as stack:
        opener = Opener(chosen(tmp_path), stack)
        exchange = make_exchange(opener, open_feed("kalshi", date(2026, 11, 22)), WS, KalshiRest(REST))

        headers = exchange.credentials().headers()

    assert headers["KALSHI-ACCESS-KEY"] == signed
    assert signed not in exchange.credentials().fingerprint


async def test_a_key_that_changes_where_it_is_kept_gives_other_credentials_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, private, _public = make_key_pair(tmp_path / "old")
    _, other, _public = make_key_pair(tmp_path / "new")
    mounted = tmp_path / "api_secret"
    mounted.write_text(private.read_text())
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", key_id)
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET_FILE", str(mounted))
    async with AsyncExitStack() as stack:
        opener = Opener(chosen(tmp_path), stack)
        exchange = make_exchange(opener, open_feed("kalshi", date(2026, 11, 22)), WS, KalshiRest(REST))
        before = exchange.credentials()
        assert exchange.credentials().fingerprint == before.fingerprint
        mounted.with_suffix(".new").write_text(other.read_text())
        mounted.with_suffix(".new").replace(mounted)  # as Kubernetes does

        assert exchange.credentials().fingerprint != before.fingerprint
        assert exchange.key_hint("rotate").startswith("Run: ssmd key rotate test kalshi ")
        assert exchange.volatile


async def test_a_session_subscribes_the_channels_of_the_file(tmp_path: Path, signed: str) -> None:
    assert signed
    base = chosen(tmp_path)
    connector = base.environment.spec.connector.model_copy(update={"channels": ("trade", "status")})
    spec = base.environment.spec.model_copy(update={"connector": connector})
    async with AsyncExitStack() as stack:
        opener = Opener(base._replace(environment=base.environment.model_copy(update={"spec": spec})), stack)
        exchange = make_exchange(opener, open_feed("kalshi", date(2026, 11, 22)), WS, KalshiRest(REST))
        commands = exchange.session(exchange.mapper("c-1"), lambda _ticker: True).start([])

    said = b"".join(commands)
    assert b'"trade"' in said
    assert b'"market_lifecycle_v2"' in said
    assert b'"ticker"' not in said


async def test_a_missing_key_is_an_error_before_anything_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SSMD_KEY_KALSHI_API_KEY", "SSMD_KEY_KALSHI_API_SECRET", "SSMD_KEY_KALSHI_API_SECRET_FILE"):
        monkeypatch.delenv(variable, raising=False)
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="no value for 'api_key'"):
            await open_connector(Opener(chosen(tmp_path, OVERRIDE), stack), None, None)


async def test_the_connector_is_opened_with_the_files_settings(tmp_path: Path, signed: str) -> None:
    assert signed
    async with AsyncExitStack() as stack:
        connector = await open_connector(Opener(chosen(tmp_path, OVERRIDE), stack), None, None)

        assert connector.health() == {"status": "starting"}


def test_values_behind_references_are_revealed_to_the_factory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "id")
    secrets = KeySecrets(resolver_of(chosen(tmp_path, name="local")))

    assert secrets.text("nats://127.0.0.1:4222") == "nats://127.0.0.1:4222"
    assert secrets.text("$key:kalshi.api_key") == "id"
    assert secrets.fields("$key:kalshi") == {"api_key": "id"}
