"""Operators see who is connected, send clients away and move them to other modes: over HTTP and with `ssmd client`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ssmd.cli.main import main
from tests.flow.gateway_stage import Stage, connected, running

TICKER = "KXBTC-26NOV22-T1"

ENVIRONMENT = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: test}}
spec:
  keys: {{}}
  feed: kalshi
  middleware:
    transport: {{type: memory}}
    storage: {{type: memory}}
  gateway: {{port: {port}}}
"""


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running() as stage:
        yield stage


async def ask(stage: Stage, method: str, path: str, body: object = None, status: int = 200) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, stage.url + path, json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def command(stage: Stage, folder: Path, *words: str) -> int:
    """`ssmd client …` against the gateway, in a thread: it blocks."""
    file = folder / "environment.yaml"
    file.write_text(ENVIRONMENT.format(port=stage.gateway.port))
    return await asyncio.to_thread(main, ["client", *words, "--env", str(file)])


async def test_clients_are_listed_with_what_they_subscribed(stage: Stage) -> None:
    assert (await ask(stage, "GET", "/v1/admin/clients"))["clients"] == []
    async with connected(stage, TICKER) as one_of, connected(stage, "*") as every:
        await one_of.until_type("subscribed")
        await every.until_type("subscribed")
        listed = (await ask(stage, "GET", "/v1/admin/clients"))["clients"]
        assert sorted(next(iter(client["subscriptions"])) for client in listed) == ["*", TICKER]
        assert {client["state"] for client in listed} == {"healthy"}
        one = await ask(stage, "GET", f"/v1/admin/clients/{listed[0]['id']}")
        assert one["id"] == listed[0]["id"]
        assert one["address"] == "127.0.0.1"
        assert one["messages_dropped"] == 0


async def test_an_unknown_client_is_named_and_a_wrong_id_is_refused(stage: Stage) -> None:
    problem = await ask(stage, "GET", "/v1/admin/clients/abcdef", status=404)
    assert (problem["code"], problem["detail"]) == ("unknown_client", "no client abcdef is connected")
    assert (await ask(stage, "GET", "/v1/admin/clients/ABC", status=400))["parameter"] == "client"


async def test_a_client_that_is_sent_away_is_told_why(stage: Stage) -> None:
    async with connected(stage, TICKER) as client:
        await client.until_type("subscribed")
        (listed,) = (await ask(stage, "GET", "/v1/admin/clients"))["clients"]
        await ask(stage, "POST", f"/v1/admin/clients/{listed['id']}/disconnect", {"reason": "maintenance"})
        assert (await client.until_type("closed"))["reason"] == "disconnected: maintenance"


async def test_a_client_that_is_moved_to_another_mode_is_told(stage: Stage) -> None:
    async with connected(stage, TICKER) as client:
        await client.until_type("subscribed")
        (listed,) = (await ask(stage, "GET", "/v1/admin/clients"))["clients"]
        path = f"/v1/admin/clients/{listed['id']}/mode"
        moved = await ask(stage, "POST", path, {"mode": "conflated", "interval_ms": 500})
        assert (moved["mode"], moved["interval_ms"]) == ("conflated", 500)
        told = await client.until_type("subscribed")
        assert (told["mode"], told["interval_ms"]) == ("conflated", 500)
        await ask(stage, "POST", path, {"mode": "latest", "interval_ms": 500}, status=400)
        await ask(stage, "POST", path, {"mode": "sometimes"}, status=400)
        await ask(stage, "POST", path, {"mode": "latest", "surprise": 1}, status=400)
        assert (await ask(stage, "POST", path, {"mode": "conflated", "interval_ms": 250.0}))["interval_ms"] == 250


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mode": "latest", "surprise": 1}, "the body has no field 'surprise'"),
        ({"interval_ms": 100}, "the body lacks the field mode"),
        ({"mode": "conflated", "interval_ms": 100.5}, "interval_ms cannot have this value"),
        ({"mode": "sometimes"}, "mode cannot have this value"),
        ([], "the body is not a JSON object"),
    ],
)
async def test_what_is_wrong_with_a_body_is_said_in_words_of_our_own(stage: Stage, body: Any, said: str) -> None:
    async with connected(stage, TICKER) as client:
        await client.until_type("subscribed")
        (listed,) = (await ask(stage, "GET", "/v1/admin/clients"))["clients"]
        problem = await ask(stage, "POST", f"/v1/admin/clients/{listed['id']}/mode", body, status=400)
        assert (problem["code"], problem["detail"]) == ("bad_body", said)
        assert "mode, interval_ms" in problem["next"]


async def test_the_commands_of_the_design_work(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(stage, tmp_path, "list") == 0
    assert "nobody is connected" in capsys.readouterr().err
    async with connected(stage, TICKER) as client:
        await client.until_type("subscribed")
        assert await command(stage, tmp_path, "list") == 0
        heading, row = capsys.readouterr().out.splitlines()
        assert heading.split("\t") == ["ID", "STATE", "BUFFER", "LAG", "SUBSCRIPTIONS"]
        name, *rest = row.split("\t")
        assert rest == ["healthy", "0%", "0ms", TICKER]
        assert await command(stage, tmp_path, "set-mode", name, "--mode", "conflated", "--interval", "500ms") == 0
        assert "every 500 ms" in capsys.readouterr().out
        assert await command(stage, tmp_path, "show", name) == 0
        assert "Mode: conflated every 500 ms" in capsys.readouterr().out
        assert await command(stage, tmp_path, "disconnect", name, "--reason", "manual intervention") == 0
        assert (await client.until_type("closed"))["reason"] == "disconnected: manual intervention"
        capsys.readouterr()
        assert await command(stage, tmp_path, "show", name) == 2
        assert capsys.readouterr().err.startswith(f"no client {name} is connected")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "'; DROP TABLE clients; --"), "is no client"),
        (("show", "../../../x"), "is no client"),
        (("disconnect", "abcdef", "--reason", "x" * 10_000), "cannot be sent"),
        (("disconnect", "abcdef", "--reason", "line\nbreak"), "cannot be sent"),
        (("set-mode", "abcdef", "--mode", "conflated", "--interval", "1 day"), "is not 10ms to 60s"),
        (("set-mode", "abcdef", "--mode", "latest", "--interval", "1s"), "belongs to --mode conflated"),
        (("list", "--url", "ftp://x"), "is no address of a gateway"),
        (("list", "--key-file", "/nonexistent"), "cannot read the key"),
    ],
)
async def test_what_cannot_be_is_refused_before_anybody_is_asked(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert await command(stage, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error) < 500


async def test_a_gateway_that_is_away_is_exit_7(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "environment.yaml"
    file.write_text(ENVIRONMENT.format(port=1))
    assert await asyncio.to_thread(main, ["client", "list", "--env", str(file)]) == 7
    assert "does not answer" in capsys.readouterr().err
