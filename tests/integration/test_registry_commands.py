"""`ssmd feed`, `ssmd schema`, `ssmd connector start` on a real PostgreSQL: what they print, with which exit code."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ssmd.cli.main import main
from ssmd.resources import resource
from ssmd.simulator.options import SimulatorOptions
from ssmd.simulator.server import running
from tests.databases import Database
from tests.servers import free_port

pytestmark = pytest.mark.integration
TRADE = (resource("schemas") / "trade.capnp").read_text()
ENVIRONMENT = """
apiVersion: ssmd/v1
kind: Environment
metadata: {name: here}
spec:
  keys:
    kalshi: {type: api_key, required: true, fields: [api_key, api_secret]}
  feed: kalshi
  database: {url: "URL"}
  middleware:
    transport: {type: memory}
    storage: {type: local, path: storage}
    cache: {type: memory}
    journal: {type: memory}
"""


@pytest.fixture
def url(postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database, and an environment in $SSMD_ENV that uses it."""
    found = postgres.fresh()
    (tmp_path / "here.yaml").write_text(ENVIRONMENT.replace("URL", found))
    monkeypatch.setenv("SSMD_ENV", str(tmp_path / "here.yaml"))
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    return found


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


POLYMARKET = (
    "feed", "create", "polymarket", "--type", "websocket", "--protocol", "wss",
    "--endpoint", "wss://ws-subscriptions-clob.polymarket.com/ws/market",
    "--auth-method", "api_key", "--secret", "sealed-secret/polymarket-creds",
)  # fmt: skip


def test_the_designs_example_adds_a_feed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, *POLYMARKET)
    assert code == 0
    assert out.startswith("✓ polymarket   v1 from ")
    code, out, _ = ask(capsys, "feed", "show", "polymarket")
    assert "Endpoint: wss://ws-subscriptions-clob.polymarket.com/ws/market\n" in out
    assert "Secret: sealed-secret/polymarket-creds\n" in out

    code, _, err = ask(capsys, *POLYMARKET)
    assert code == 3
    assert err.startswith("feed 'polymarket' exists already\n")


def test_feeds_are_listed_for_pipes_and_programs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ask(capsys, "feed", "list")
    assert out.splitlines() == [
        "NAME\tTYPE\tSTATUS\tVERSION\tENDPOINT\tDESCRIPTION",
        "kalshi\twebsocket\tactive\tv2\twss://external-api-ws.kalshi.com/trade-api/ws/v2\tPrediction market",
    ]
    _, out, _ = ask(capsys, "feed", "list", "--json")
    (feed,) = json.loads(out)
    assert (feed["name"], feed["status"], feed["version"]) == ("kalshi", "active", "v2")
    assert ask(capsys, "feed", "list", "--status", "disabled", "--json") == (0, "[]\n", "")
    code, _, err = ask(capsys, "feed", "list", "--status", "activ")
    assert code == 2
    assert "Did you mean 'active'?" in err


def test_a_feed_is_shown_as_it_was_on_a_day(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ask(capsys, "feed", "show", "kalshi", "--as-of", "2025-12-01")
    lines = out.splitlines()
    assert lines[:7] == [
        "Name: kalshi",
        "Display Name: Kalshi",
        "Description: Prediction market",
        "Type: websocket",
        "Status: active",
        "Version: v1 (from 2021-01-01 until 2026-05-07)",
        "Protocol: wss",
    ]
    assert "Required Transport: nats, memory" in lines
    assert "Calendar: 24/7, closed thursday 03:00-05:00, America/New_York" in lines
    assert out.count("\nv") == 2
    _, out, _ = ask(capsys, "feed", "show", "kalshi", "--as-of", "2020-01-01")
    assert "Version: none holds on 2020-01-01\n" in out
    _, out, _ = ask(capsys, "feed", "show", "kalshi", "--json")
    answer = json.loads(out)
    assert answer["holds"]["version"] == "v2"
    assert answer["calendar"]["timezone"] == "America/New_York"


def test_a_later_version_and_a_correction_take_over_what_is_not_given(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys, "feed", "create", "kalshi", "--effective-from", "2030-01-01", "--rate-limit", "9")[0] == 0
    assert ask(capsys, "feed", "create", "kalshi", "--replace", "--version", "v3", "--no-orderbook")[0] == 0

    answer = json.loads(ask(capsys, "feed", "show", "kalshi", "--as-of", "2030-06-01", "--json")[1])["holds"]
    assert (answer["version"], answer["effective_from"], answer["rate_limit_per_second"]) == ("v3", "2030-01-01", 9)
    assert (answer["supports_orderbook"], answer["supports_trades"]) == (False, True)
    assert answer["endpoint"] == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    code, _, err = ask(capsys, "feed", "create", "kalshi", "--version", "v3")
    assert code == 3
    assert "--replace" in err


def test_a_new_feed_needs_an_address_and_a_correction_a_feed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "feed", "create", "another")[2].startswith("a new feed needs an address\n")
    code, _, err = ask(capsys, "feed", "create", "kalshy", "--replace", "--endpoint", "wss://a.example")
    assert code == 2
    assert "'kalshi'" in err


def test_a_secret_given_in_place_of_its_reference_is_not_printed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = ask(capsys, "feed", "create", "another", "--endpoint", "wss://a.example", "--secret", "hunter2-AAA")
    assert "hunter2" not in out + err
    assert "--secret is not a reference" in err


def test_a_schema_is_compared_refused_registered_and_shown(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trade.capnp"
    file.write_text(TRADE.replace("price @8 :Int64", "price @8 :Text"))
    assert file.read_text() != TRADE

    code, out, _ = ask(capsys, "schema", "compat", "trade", "--from", "v1", "--file", str(file))
    assert code == 6
    assert out.splitlines()[0] == "trade v1 → trade.capnp"
    assert "  ✗ field Trade.price changed its type from Int64 to Text\n" in out
    code, _, err = ask(capsys, "schema", "register", str(file))
    assert code == 3
    assert "field Trade.price changed its type from Int64 to Text" in err
    code, out, _ = ask(capsys, "schema", "register", str(file), "--breaking-changes", "prices are text", "--json")
    assert code == 0
    assert (json.loads(out)["version"], json.loads(out)["compatible_with"]) == ("v2", [])

    code, out, _ = ask(capsys, "schema", "compat", "trade", "--from", "v1", "--to", "v2", "--json")
    answer = json.loads(out)
    assert (code, answer["compatible"]) == (6, False)
    assert {"path": "Trade.price", "kind": "retyped"}.items() <= answer["differences"][0].items()
    assert ask(capsys, "schema", "compat", "trade", "--from", "v1", "--to", "v1") == (
        0, "trade v1 → v1\nCompatible: they lay down the same.\n", "",
    )  # fmt: skip
    assert ask(capsys, "schema", "show", "trade", "--version", "v1", "--text")[1] == TRADE
    assert "Breaking Changes:\n  prices are text\n" in ask(capsys, "schema", "show", "trade", "--version", "v2")[1]


def test_schemas_are_listed_and_a_day_has_those_of_its_dates(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "schema", "list")
    assert (code, len(out.splitlines())) == (0, 6)
    assert out.splitlines()[5].startswith("trade\tv1\tcapnp\tactive\t2021-01-01\t")
    code, out, err = ask(capsys, "schema", "used", "--feed", "kalshi", "--date", "2025-12-14")
    assert "trade\tv1\tactive\t0\tno\n" in out
    assert "by their dates" in err
    assert ask(capsys, "schema", "used", "--date", "2020-12-14", "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["schema", "compat", "trade", "--from", "v1"], "--to VERSION"),
        (["schema", "compat", "trad", "--from", "v1", "--to", "v2"], "Did you mean 'trade'?"),
        (["schema", "register", "nowhere.capnp"], "cannot be read"),
        (["schema", "register", "README.md"], "does not end in .capnp"),
        (["schema", "register", "\0.capnp"], "cannot be read"),
        (["schema", "register", "/"], ".capnp"),
        (["feed", "show", "kalsih"], "Did you mean 'kalshi'?"),
        (["feed", "show", "kalshi", "--known-at", "2020-01-01"], "was not known"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_wrong_input_is_an_error_that_helps(
    url: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ask(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_an_unknown_feed_is_refused_in_the_designs_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ask(capsys, "connector", "start", "--feed", "polymarket", "--symbols", "BTC-WINNER")
    assert (code, out) == (2, "")
    assert err == (
        "Error: Validation failed\n"
        "  - Feed 'polymarket' not found in feed registry\n"
        "  - Did you mean 'kalshi'?\n"
        "\n"
        "Available feeds:\n"
        "  kalshi (active) - Prediction market\n"
    )


def test_unknown_symbols_are_all_named_with_near_misses(
    url: str, postgres: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ask(capsys, "connector", "start", "--feed", "kalshi", "--symbols", "KXBTC-1")
    assert code == 2
    assert "Markets of kalshi: none known. Run: ssmd market sync\n" in err
    postgres.run("INSERT INTO markets (feed_id, ticker) VALUES (1, 'KXBTC-1'), (1, 'KXETH-1')", url.rpartition("/")[2])
    code, _, err = ask(capsys, "connector", "start", "--feed", "kalshi", "--symbols", "KXBTC-1, kxeth-1,,%%%%")
    assert code == 2
    assert err == (
        "Error: Validation failed\n"
        "  - Symbol 'kxeth-1' not found among the markets of feed 'kalshi'\n"
        "  - Did you mean 'KXETH-1'?\n"
        "  - Symbol '%%%%' not found among the markets of feed 'kalshi'\n"
        "\n"
        "Markets of kalshi: 2 known. Run: ssmd market list\n"
    )


def test_a_symbol_that_the_exchange_no_longer_lists_is_refused(
    url: str, postgres: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "INSERT INTO markets (feed_id, ticker, known_to) VALUES (1, 'KXBTC-1', now()), (1, 'KXETH-1', NULL)"
    postgres.run(gone, url.rpartition("/")[2])
    code, _, err = ask(capsys, "connector", "start", "--feed", "kalshi", "--symbols", "KXETH-1,KXBTC-1")
    assert code == 2
    assert (
        err
        == (
            "Error: Validation failed\n"
            "  - Symbol 'KXBTC-1' is no longer listed by the exchange (run: ssmd market show KXBTC-1)\n"
            "\n"
            "Available feeds:\n  kalshi (active) - "
        )
        + err.rpartition(" - ")[2]
    )


def test_migrating_without_a_server_gives_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd"
    (tmp_path / "here.yaml").write_text(ENVIRONMENT.replace("URL", address))
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    began = time.monotonic()
    code, out, err = ask(capsys, "db", "migrate", "--env", str(tmp_path / "here.yaml"))
    assert (code, out) == (7, "")
    assert "does not answer" in err
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("command", "tried"),
    [
        ("feed create pp --endpoint wss://x.example/ws", "create feed 'pp'"),
        ("feed list", "list the feeds"),
        ("feed show kalshi", "show feed 'kalshi'"),
        ("data gaps", "list the gaps of feed 'kalshi'"),
        ("data quality", "tell the quality of feed 'kalshi'"),
        ("data inventory", "list the inventory of feed 'kalshi'"),
        ("data compact --date 2026-11-20", "lock 2026-11-20 of kalshi"),
        ("connector start --feed kalshi --symbols A", "look up the feed and the symbols to capture"),
    ],
)
def test_an_error_of_a_database_that_is_away_says_what_was_tried(
    command: str, tried: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd"
    (tmp_path / "here.yaml").write_text(ENVIRONMENT.replace("URL", address))
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    code, _, err = ask(capsys, *command.split(), "--env", str(tmp_path / "here.yaml"))
    assert code == 7
    assert f"cannot {tried}: PostgreSQL at 127.0.0.1" in err


def test_a_feed_that_cannot_be_captured_says_why(
    url: str, postgres: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, *POLYMARKET)
    postgres.run("UPDATE feeds SET status = 'disabled' WHERE name = 'kalshi'", url.rpartition("/")[2])
    _, _, err = ask(capsys, "connector", "start", "--feed", "polymarket", "--symbols", ",")
    assert "  - Feed 'polymarket' is registered, but this version of ssmd cannot speak its protocol\n" in err
    assert "  - No symbol is given\n" in err
    _, _, err = ask(capsys, "connector", "start", "--feed", "kalshi", "--symbols", ",")
    assert "  - Feed 'kalshi' is disabled\n" in err


async def test_valid_symbols_and_no_others_are_captured(
    url: str, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "id")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", pem.decode())
    async with running(SimulatorOptions(rate=200)) as simulator, aiohttp.ClientSession() as session:
        async with session.get(f"{simulator.rest_url}/markets") as answer:
            tickers = [market["ticker"] for market in (await answer.json())["markets"]]
        assert len(tickers) > 1
        postgres.run(f"INSERT INTO markets (feed_id, ticker) VALUES (1, '{tickers[0]}')", url.rpartition("/")[2])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ssmd", "connector", "start", "--feed", "kalshi", "--symbols", tickers[0],
            "--ws", simulator.ws_url, "--rest", simulator.rest_url,
            env=dict(os.environ), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        spool = tmp_path / "home" / "spool" / "kalshi"
        try:
            async with asyncio.timeout(30):
                while not any(tickers[0].encode() in f.read_bytes() for f in spool.rglob("*") if f.is_file()):
                    assert process.returncode is None, await process.communicate()
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.5)
                process.send_signal(signal.SIGTERM)
                _, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (process.returncode, err) == (0, b"")
    archived = [*(tmp_path / "home" / "storage").rglob("orderbook-*.jsonl.zst")]
    assert archived
    text = b"".join(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read() for path in archived)
    assert tickers[0].encode() in text
    assert not any(other.encode() in text for other in tickers[1:])
