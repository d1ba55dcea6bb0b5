"""The gateway's doors with keys in a real PostgreSQL: who gets in, who does not, and what is never said to anybody."""

import asyncio
import base64
import json
import re
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from ssmd.errors import ConfigError
from ssmd.gateway import doors as doors_module
from ssmd.gateway import keyring as keyring_module
from ssmd.gateway.caller import SCOPES
from ssmd.gateway.doors import STREAM
from ssmd.gateway.outside import Outside
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.service import Gateway
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.client_keys import ClientKeys
from ssmd.registry.database import Database
from ssmd.registry.memory import MemoryRegistry
from ssmd.telemetry import exposition
from tests.databases import Database as Server
from tests.flow.gateway_stage import Stage, connected, running, until
from tests.gateway_settings import any_port
from tests.unit.gateway.events import trade

pytestmark = pytest.mark.integration

PUBLIC = {"/v1/health", "/openapi.json", "/asyncapi.json", "/docs", "/llms.txt"}
PUBLIC_BELOW = ("/docs/",)
"""What is for everyone, and nothing else."""
GENEROUS = {"requests_per_minute": 1_000_000, "requests_per_hour": 10_000_000, "burst": 100_000}


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def code(self) -> str:
        return str(json.loads(self.text)["code"])


@pytest.fixture
def keys(database: Database) -> ClientKeys:
    return ClientKeys(database)


@pytest.fixture
def everything(keys: ClientKeys) -> str:
    """A key with all scopes."""
    return keys.create("all", SCOPES, None, "test")[0]


@pytest.fixture
async def stage(database: Database) -> AsyncIterator[Stage]:
    async with running(database=database, auth="keys", limits=GENEROUS) as stage:
        yield stage


async def ask(stage: Stage, path: str, method: str = "GET", **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(stage.url + path, encoded=True), headers=names) as response,
    ):
        return Answer(response.status, response.headers, await response.text())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'me:{key}'.encode()).decode()}"}


def wrong_keys(keys: ClientKeys, count: int) -> list[str]:
    """Keys that are not, in every way that comes to mind."""
    good, key = keys.create("good", SCOPES, None, "test")
    revoked, other = keys.create("revoked", SCOPES, None, "test")
    keys.revoke(other.id, "test")
    prefix, secret = good[:14], good[14:]
    swapped = f"ssmd_{other.id}_{secret}"
    found = [
        "", " ", "x", "null", "ssmd_", good[:-1], good + "A", good.upper(), good.swapcase(), good[::-1], prefix,
        f"ssmd_{key.id.upper()}_{secret}", secret, revoked, swapped, f"{good} {good}", f"{good}\x00"[:-1] + "=",
        f"ssmd_{key.id}_{'A' * 43}", f"ssmd_00000000_{secret}", f"SSMD_{key.id}_{secret}", "' OR 1=1 --", "*" * 4_000,
    ]  # fmt: skip
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(len(secret)):  # one character changed, at every place; its case, at every place
        letter = secret[place]
        found.append(prefix + secret[:place] + alphabet[(alphabet.index(letter) + 1) % 64] + secret[place + 1 :])
        if letter.swapcase() != letter:
            found.append(prefix + secret[:place] + letter.swapcase() + secret[place + 1 :])
        found.append(prefix + secret[:place])
    while len(found) < count:
        found.append(f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}")
    return found[:count]


def pathname(path: str) -> str:
    """A path with something for each of its parameters."""
    return re.sub(r"\{[^}]*\}", "A", path)


async def test_five_hundred_wrong_keys_are_refused_at_every_door_and_repeated_nowhere(
    stage: Stage, keys: ClientKeys, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    guarded = [route for route in stage.gateway.routes if route.scope is not None]
    said: list[str] = []
    tried = wrong_keys(keys, 500)
    async with aiohttp.ClientSession() as session:
        for number, key in enumerate(tried):
            route = guarded[number % len(guarded)]
            page = route.media.startswith("text/")
            for headers in (bearer(key), basic(key) if page else bearer(key)):
                async with session.request(route.method, stage.url + pathname(route.path), headers=headers) as response:
                    assert response.status == 401, (key, route.path)
                    assert response.headers["WWW-Authenticate"]
                    said += [await response.text(), str(response.headers)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session.ws_connect(f"{stage.url}{STREAM}", headers=bearer(key)):
                    pass
            assert refused.value.status == 401
            if number % 5 == 0:
                async with session.ws_connect(f"{stage.url}{STREAM}") as socket:
                    await socket.send_json({"action": "auth", "key": key})
                    said.append(await socket.receive_str(timeout=5))
                    assert json.loads(said[-1])["code"] in ("wrong_key", "key_revoked")
                    await socket.receive(timeout=5)
                    assert socket.close_code == 1008
    out = capfd.readouterr()
    everywhere = "\n".join([*said, out.out, out.err, caplog.text, exposition()[0].decode()])
    for key in tried:
        if len(key) > 20:
            assert key not in everywhere
            assert key[14:50] not in everywhere


async def test_what_has_no_key_gets_what_is_public_and_nothing_else(stage: Stage) -> None:
    for route in stage.gateway.routes:
        answer = await ask(stage, pathname(route.path), route.method)
        if route.scope is None:
            assert answer.status not in (401, 403), route.path
        else:
            assert (answer.status, answer.code) == (401, "no_key"), route.path
            assert answer.headers["WWW-Authenticate"].startswith("Basic" if "text/" in route.media else "Bearer")
    assert (await ask(stage, STREAM)).status == 401


async def test_every_route_asks_for_its_scope_and_for_no_other(stage: Stage, keys: ClientKeys) -> None:
    texts = {scope: keys.create(scope, [scope], None, "test")[0] for scope in SCOPES}
    for route in stage.gateway.routes:
        for scope, text in texts.items():
            answer = await ask(stage, pathname(route.path), route.method, **bearer(text))
            if route.scope in (None, scope):
                assert answer.status not in (401, 403), (route.path, scope)
            else:
                assert (answer.status, answer.code) == (403, "scope_missing"), (route.path, scope)
                assert f"--scope {route.scope}" in answer.text
    for scope, text in texts.items():
        async with aiohttp.ClientSession() as session:
            if scope == "read:live":
                async with session.ws_connect(f"{stage.url}{STREAM}", headers=bearer(text)):
                    continue
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session.ws_connect(f"{stage.url}{STREAM}", headers=bearer(text)):
                    pass
            assert refused.value.status == 403
            async with session.ws_connect(f"{stage.url}{STREAM}") as socket:
                await socket.send_json({"action": "auth", "key": text})
                assert (await socket.receive_json(timeout=5))["code"] == "scope_missing"


async def test_no_route_is_without_a_scope(stage: Stage) -> None:
    app = stage.gateway.application()
    walked = [(route.method, route.resource.canonical) for route in app.router.routes() if route.resource]
    assert len(walked) > 5
    assert [door for door in walked if not stage.gateway.doors.guarded(*door)] == []
    public = {route.path for route in stage.gateway.routes if route.scope is None}
    assert {path for path in public if path not in PUBLIC and not path.startswith(PUBLIC_BELOW)} == set()


async def test_a_route_that_nobody_gave_a_scope_is_closed_even_to_the_mightiest_key(
    stage: Stage, everything: str
) -> None:
    forgotten = stage.gateway.routes[-1]
    del stage.gateway.doors._routes[forgotten.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", forgotten.path)]
    answer = await ask(stage, pathname(forgotten.path), forgotten.method, **bearer(everything))
    assert (answer.status, answer.code) == (403, "closed")


async def test_a_key_opens_the_stream_in_the_handshake_and_as_the_first_message(stage: Stage, everything: str) -> None:
    stage.publish(trade("A-1"))
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=bearer(everything)) as socket:
            assert (await socket.receive_json(timeout=5))["type"] == "subscribed"
        async with session.ws_connect(f"{stage.url}{STREAM}?symbols=*") as socket:
            await socket.send_json({"action": "auth", "key": everything, "id": 7})
            answer = await socket.receive_json(timeout=5)
            assert answer == {
                "type": "authenticated", "key_id": everything[5:13], "name": "all", "scopes": sorted(SCOPES), "id": 7,
            }  # fmt: skip
            assert (await socket.receive_json(timeout=5))["type"] == "subscribed"


@pytest.mark.parametrize(
    "first",
    ['{"action":"subscribe","symbols":["*"]}', "nonsense", '{"action":"auth"}', '{"action":"auth","key":7}', "[" * 900,
     '{"action":"auth","key":"' + "x" * 2_000 + '"}', b"\xff\x00"],
)  # fmt: skip
async def test_nothing_comes_before_the_key(stage: Stage, first: str | bytes) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{stage.url}{STREAM}?symbols=*") as socket:
        await (socket.send_bytes(first) if isinstance(first, bytes) else socket.send_str(first))
        error = await socket.receive_json(timeout=5)
        assert (error["type"], error["code"]) == ("error", "no_key")
        assert '"action":"auth"' in error["next"]
        await socket.receive(timeout=5)
        assert socket.close_code == 1008


async def test_who_never_shows_a_key_is_sent_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors_module, "AUTH_S", 0.1)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{stage.url}{STREAM}?symbols=*") as socket:
        assert (await socket.receive_json(timeout=5))["code"] == "no_key"
        await socket.receive(timeout=5)
        assert socket.close_code == 1008
    await until(lambda: not stage.gateway.doors._heads._here)


@pytest.mark.parametrize("query", ["key=KEY", "api_key=KEY", "token=x", "symbols=KEY", "x%5F=%73smd%5F{}", "KEY"])
async def test_a_key_in_an_address_is_refused_with_the_way_to_send_it(
    stage: Stage, everything: str, query: str
) -> None:
    text = query.replace("KEY", everything).replace("{}", everything[5:])
    for path in ("/v1/markets", STREAM, "/v1/health"):
        answer = await ask(stage, f"{path}?{text}", **bearer(everything))
        assert (answer.status, answer.code) == (400, "key_in_url")
        assert "Authorization: Bearer" in answer.text
        assert everything[14:] not in answer.text
    assert (await ask(stage, f"/v1/markets/{everything}", **bearer(everything))).code == "key_in_url"


async def test_a_password_is_for_pages_only(stage: Stage, everything: str) -> None:
    assert (await ask(stage, "/v1/markets", **basic(everything))).status == 401
    ours = {"Sec_Fetch_Site": "same-origin"}
    assert (await ask(stage, "/v1/markets", **basic(everything), **ours)).status == 200
    cross = {"Sec_Fetch_Site": "cross-site"}
    assert (await ask(stage, "/v1/markets", **basic(everything), **cross)).status == 401
    for broken in ("Basic", "Basic %%%", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Digest x", "Bearer"):
        assert (await ask(stage, "/v1/markets", Authorization=broken, **ours)).status == 401


async def test_a_page_opens_with_the_key_as_password_and_so_does_its_stream(stage: Stage, everything: str) -> None:
    page = await ask(stage, "/status")
    assert (page.status, page.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    page = await ask(stage, "/status", **basic(everything))
    assert (page.status, everything[14:] in page.text) == (200, False)
    async with aiohttp.ClientSession() as session:
        ours, strange = ({**basic(everything), "Origin": origin} for origin in (stage.url, "https://evil.example"))
        async with session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=ours) as socket:
            assert (await socket.receive_json(timeout=5))["type"] == "subscribed"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=strange)
        assert refused.value.status == 403


async def test_revoked_and_expired_keys_are_refused_and_their_streams_closed(
    stage: Stage, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "REFRESH_S", 0.1)
    revoked = keys.create("revoked", ["read:live"], None, "test")[0]
    expiring = keys.create("expiring", ["read:live"], datetime.now(UTC) + timedelta(seconds=3), "test")[0]
    lasting = keys.create("lasting", ["read:live"], None, "test")[0]
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=bearer(revoked)) as one,
        session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=bearer(expiring)) as two,
        session.ws_connect(f"{stage.url}{STREAM}?symbols=*", headers=bearer(lasting)) as three,
    ):
        for socket in (one, two, three):
            assert (await socket.receive_json(timeout=5))["type"] == "subscribed"
        keys.revoke(revoked[5:13], "test")
        began = time.monotonic()
        for socket, reason in ((one, "revoked"), (two, "expired")):
            message = await socket.receive(timeout=30)
            assert (socket.close_code, message.type) == (1008, aiohttp.WSMsgType.CLOSE)
            assert reason in str(message.extra)
        assert time.monotonic() - began < 30
        stage.publish(trade("A-1"))
        assert (await three.receive_json(timeout=5))["type"] == "trade"
    assert (await ask(stage, "/v1/markets", **bearer(revoked))).code == "key_revoked"
    assert (await ask(stage, "/v1/markets", **bearer(expiring))).code == "key_expired"


async def test_known_keys_go_on_while_the_database_is_away_and_unknown_ones_wait(
    postgres: Server, everything: str, keys: ClientKeys, stage: Stage
) -> None:
    new = keys.create("new", SCOPES, None, "test")[0]
    assert (await ask(stage, "/v1/markets", **bearer(everything))).status == 200
    await stage.gateway.keyring.refresh()  # type: ignore[union-attr]
    unknown = f"ssmd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    postgres.stop()
    try:
        for key in (everything, new):
            assert (await ask(stage, "/v1/markets", **bearer(key))).status == 200
        away = await ask(stage, "/v1/markets", **bearer(unknown))
        assert (away.status, away.code) == (503, "keys_away")
        assert away.headers["Retry-After"]
        assert (await ask(stage, "/v1/health", **bearer(unknown))).status == 200
        async with connected(stage) as client:
            await client.ask(action="auth", key=unknown)
            assert (await client.next())["code"] == "keys_away"
            assert (await client.next())["code"] == 1013
        assert (await ask(stage, "/v1/markets", **bearer("nonsense"))).status == 401
    finally:
        postgres.start()
    await until(lambda: not stage.gateway.keyring.error, 20)  # type: ignore[union-attr]
    assert (await ask(stage, "/v1/markets", **bearer(unknown))).status == 401


async def test_a_new_key_opens_at_once_and_its_use_is_noted(stage: Stage, keys: ClientKeys) -> None:
    await stage.gateway.keyring.refresh()  # type: ignore[union-attr]
    text, key = keys.create("new", ["read:live"], None, "test")
    assert (await ask(stage, "/v1/markets", **bearer(text))).status == 200
    assert key.last_used_at is None
    await stage.gateway.keyring.touch()  # type: ignore[union-attr]
    found = keys.find(key.id)
    assert found is not None
    assert found.key.last_used_at is not None


async def test_the_database_holds_a_hash_and_no_key(postgres: Server, database: Database, everything: str) -> None:
    name = str(database._engine.url.database)
    rows = postgres.run("SELECT client_keys::text FROM client_keys", name)
    assert everything[14:] not in str(rows)
    assert len(rows) == 1


async def test_the_time_of_a_refusal_does_not_tell_how_wrong_a_key_is(stage: Stage, everything: str) -> None:
    keyring = stage.gateway.keyring
    assert keyring is not None
    await keyring.refresh()
    wrong = {
        "first": everything[:14] + "A" + everything[15:] if everything[14] != "A" else everything[:14] + "B",
        "last": everything[:-1] + ("A" if everything[-1] != "A" else "E"),
        "unknown": f"ssmd_{'0' * 8}_{everything[14:]}",
    }
    wrong["first"] = wrong["first"].ljust(57, "A")
    times: dict[str, list[float]] = {name: [] for name in wrong}
    for _ in range(3_000):
        for name, text in wrong.items():
            began = time.perf_counter()
            with pytest.raises(ApiProblem):
                await keyring.open(text)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in times.items()}
    assert max(medians.values()) < 1.25 * min(medians.values()), medians


async def test_keys_are_asked_for_only_where_there_is_a_database() -> None:
    with pytest.raises(ConfigError, match="no database"):
        Gateway("kalshi", Outside(MemoryTransport(), MemoryRegistry()), any_port(auth="keys"))


async def _many(stage: Stage, count: int, **headers: str) -> list[Answer]:
    return list(await asyncio.gather(*(ask(stage, "/v1/markets", **headers) for _ in range(count))))


async def test_each_key_has_its_own_limit(database: Database, keys: ClientKeys) -> None:
    one, two = (keys.create(name, ["read:live"], None, "test")[0] for name in ("one", "two"))
    limits: dict[str, Any] = {"requests_per_minute": 20, "requests_per_hour": 1_000, "burst": 1_000}
    async with running(database=database, auth="keys", limits=limits) as stage:
        answers = await _many(stage, 30, **bearer(one))
        assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 10
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.code == "rate_limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 61
        assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == ("20", "0")
        assert (await ask(stage, "/v1/markets", **bearer(two))).status == 200
        wrong = await _many(stage, 30, **bearer("nonsense"))
        assert sorted(answer.status for answer in wrong) == [401] * 20 + [429] * 10
