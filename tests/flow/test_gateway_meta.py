"""The metadata API over a real PostgreSQL: as of a day, as known at a time, by pages, and with the database away."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import pytest
import sqlalchemy as sa
import yaml
from yarl import URL

from ssmd.clock import NS_PER_S, day_start_ns
from ssmd.config.environment import Environment
from ssmd.config.loading import loads
from ssmd.config.middleware import RedisCache as RedisConfig
from ssmd.gateway import catalogue as catalogue_module
from ssmd.gateway import hot as hot_module
from ssmd.gateway.routes import Route
from ssmd.market.events import Gap
from ssmd.middleware.cache.interface import Cache
from ssmd.middleware.cache.memory import MemoryCache
from ssmd.middleware.cache.redis import RedisCache
from ssmd.registry.database import Database
from ssmd.registry.environments import EnvironmentCatalogue
from ssmd.registry.feed_values import FeedFacts
from ssmd.registry.feeds import FeedCatalogue, FeedDescription
from ssmd.registry.interface import Issue, Market, ObjectRecord
from ssmd.registry.postgres import PostgresRegistry
from ssmd.registry.schemas import SchemaCatalogue
from tests.data.broken_environments import GOOD
from tests.databases import Database as Server
from tests.flow.gateway_stage import Stage, running, until
from tests.unit.gateway.events import trade
from tests.valkey import PASSWORD, valkey_server

pytestmark = pytest.mark.integration

TODAY = date(2026, 11, 22)
NOW_NS = day_start_ns(TODAY) + 18 * 3_600 * NS_PER_S
LATER = "2099-01-01T00:00:00Z"
TRADE = "@0xd6aa5b8c9f6e0001;\nstruct Trade {\n  price @0 :Int64;\n%s}\n"  # the field of each further version


class NoSecrets:
    """An environment whose cache needs no key."""

    def text(self, value: str) -> str:
        return value

    def fields(self, reference: str) -> dict[str, str]:
        raise AssertionError(reference)


class World:
    """A database, what is written to it, and how it is taken away."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.fresh()
        self.name = self.url.rpartition("/")[2]
        self.database = Database(self.url)
        self.registry = PostgresRegistry(self.url)

    def run(self, statement: str) -> None:
        with self.database.transaction("arrange a test") as connection:
            connection.execute(sa.text(statement))

    def leave(self) -> None:
        """The database takes no connections any more, and ends those that it has."""
        self.server.run(f"ALTER DATABASE {self.name} WITH ALLOW_CONNECTIONS false")
        self.server.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def come_back(self) -> None:
        self.server.run(f"ALTER DATABASE {self.name} WITH ALLOW_CONNECTIONS true")

    def store(self, day: date, data_type: str = "raw", *, records: int = 100, feed: str = "kalshi") -> None:
        """A day of one kind of data, from its first second to its last."""
        group = "trades" if data_type == "raw" else "trade"
        record = ObjectRecord(
            f"ssmd-{data_type}", f"{feed}/{data_type}/{day}/{records}", data_type, group, day, f"{records:064x}", 1_000,
            records, day_start_ns(day), day_start_ns(day) + 86_399 * NS_PER_S,
            schema_version=None if data_type == "raw" else "v1", symbols=3,
        )  # fmt: skip
        self.registry.record_objects(feed, [record])

    def gap(self, day: date, second: int, length: int = 60, **more: Any) -> Gap:
        start = day_start_ns(day) + second * NS_PER_S
        made = Gap("kalshi", "c-1", None, start, start + length * NS_PER_S, "connection_lost")
        made = msgspec.structs.replace(made, **more)
        self.registry.record_gaps([made])
        return made


@pytest.fixture
def world(postgres: Server) -> Iterator[World]:
    found = World(postgres)
    yield found
    found.registry.close()
    found.database.close()


@contextlib.asynccontextmanager
async def gateway(world: World, cache: Cache | None = None, **settings: Any) -> AsyncIterator[Stage]:
    clock = {"ns": NOW_NS}
    async with running(world.registry, lambda: clock["ns"], database=world.database, cache=cache, **settings) as stage:
        stage.clock = clock  # type: ignore[attr-defined]
        await until(lambda: stage.gateway._catalogue.available)
        yield stage


def pass_s(stage: Stage, seconds: float) -> None:
    stage.clock["ns"] += round(seconds * NS_PER_S)  # type: ignore[attr-defined]


async def ask(stage: Stage, path: str, expected: int = 200, /, **query: object) -> tuple[dict[str, Any], Any]:
    """The document and the headers; a document is what the route says that it is."""
    url = f"{stage.url}/v1/meta/{path}" + (f"?{urlencode(query)}" if query else "")
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.read()
        assert response.status == expected, body
        document: dict[str, Any] = msgspec.json.decode(body)
        if expected == 200:
            msgspec.json.decode(body, type=_route_of(stage, response.url.path).answer)
            assert response.headers["ETag"]
        else:
            assert response.content_type == "application/problem+json"
            assert {"status", "title", "detail", "code", "next"} <= document.keys()
            assert not any(word in body.decode().lower() for word in ("select ", "psycopg", "traceback", "/ssmd/"))
        return document, response.headers


def _route_of(stage: Stage, path: str) -> Route:
    for route in stage.gateway.routes:
        parts = list(zip(route.path.split("/"), path.split("/"), strict=False))
        if route.path.count("/") == path.count("/") and all(
            part in (said, "") or part[:1] == "{" for part, said in parts
        ):
            return route
    raise AssertionError(f"no route for {path}")


async def get(stage: Stage, path: str, expected: int = 200, /, **query: object) -> dict[str, Any]:
    return (await ask(stage, path, expected, **query))[0]


async def moment(database: Database) -> str:
    """The database's time, with what was written before it and nothing that is written after."""
    await asyncio.sleep(0.002)
    with database.transaction("tell the time") as connection:
        at: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    await asyncio.sleep(0.002)
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


# -- feeds ---------------------------------------------------------------------------------------------------------


def facts(version: str, start: str, endpoint: str) -> FeedFacts:
    return FeedFacts(version=version, effective_from=date.fromisoformat(start), protocol="wss", endpoint=endpoint)


async def test_a_feed_is_as_of_any_day_of_its_three_versions_and_as_known_before_a_correction(world: World) -> None:
    feeds = FeedCatalogue(world.database)
    before = await moment(world.database)
    feeds.create("acme", FeedDescription(description="A venue"), facts("v1", "2026-01-01", "wss://one.example/ws"))
    feeds.add_version("acme", FeedDescription(), facts("v2", "2026-03-01", "wss://two.example/ws"))
    feeds.add_version("acme", FeedDescription(), facts("v3", "2026-06-01", "wss://three.example/ws"))
    believed = await moment(world.database)
    feeds.replace("acme", "v2", FeedDescription(), facts("v2", "2026-03-01", "wss://TWO.example/ws"))

    async with gateway(world) as stage:
        held = {
            day: (await get(stage, "feeds/acme", as_of=day))["current"]
            for day in (
                "2025-12-31",
                "2026-01-01",
                "2026-02-28",
                "2026-03-01",
                "2026-05-31",
                "2026-06-01",
                "2030-01-01",
            )
        }
        assert {day: version and version["version"] for day, version in held.items()} == {
            "2025-12-31": None, "2026-01-01": "v1", "2026-02-28": "v1", "2026-03-01": "v2", "2026-05-31": "v2",
            "2026-06-01": "v3", "2030-01-01": "v3",
        }  # fmt: skip
        assert held["2026-03-01"]["endpoint"] == "wss://TWO.example/ws"
        then = await get(stage, "feeds/acme", as_of="2026-03-01T12:00:00Z", known_at=believed)
        assert then["current"]["endpoint"] == "wss://two.example/ws"
        assert [v["version"] for v in then["versions"]] == ["v1", "v2", "v3"]
        unknown = await get(stage, "feeds/acme", 404, known_at=before)
        assert (unknown["code"], "was not known" in unknown["detail"]) == ("not_known", True)

        page = await get(stage, "feeds")
        assert [(f["name"], f["version"]) for f in page["feeds"]] == [("acme", "v3"), ("kalshi", "v2")]
        assert [f["name"] for f in (await get(stage, "feeds", known_at=before))["feeds"]] == ["kalshi"]
        page = await get(stage, "feeds", as_of="2026-04-01", known_at=believed)
        assert page["feeds"][0]["endpoint"] == "wss://two.example/ws"
        assert [f["name"] for f in (await get(stage, "feeds", status="disabled"))["feeds"]] == []
        assert (await get(stage, "feeds/acme"))["_links"]["inventory"] == "/v1/meta/inventory?feed=acme"


async def test_a_calendar_says_when_a_venue_is_open(world: World) -> None:
    FeedCatalogue(world.database).create("acme", FeedDescription(), facts("v1", "2026-01-01", "wss://one.example/ws"))
    async with gateway(world) as stage:
        found = await get(stage, "feeds/kalshi/calendar")
        assert found["recorded"]
        assert found["pauses"] == [{"weekday": "thursday", "from": "03:00", "to": "05:00"}]
        assert not found["always_open"]
        none = await get(stage, "feeds/acme/calendar", as_of="2026-02-01")
        assert (none["recorded"], none["as_of"], none["pauses"]) == (False, "2026-02-01", [])


async def test_an_address_is_shown_without_the_token_in_it(world: World) -> None:
    feeds = FeedCatalogue(world.database)
    feeds.create("acme", FeedDescription(), facts("v1", "2026-01-01", "wss://one.example/ws?token=hunter2hunter2"))
    async with gateway(world) as stage:
        for path in ("feeds", "feeds/acme"):
            assert "hunter2" not in msgspec.json.encode(await get(stage, path)).decode()


# -- schemas -------------------------------------------------------------------------------------------------------


async def test_a_schema_is_as_of_any_day_of_its_three_versions_and_as_known(world: World) -> None:
    schemas, before_last = SchemaCatalogue(world.database), ""
    for n, start in enumerate(("2026-01-01", "2026-03-01", "2026-06-01"), 1):
        before_last = await moment(world.database)
        fields = "".join(f"  field{k} @{k} :Int64;\n" for k in range(1, n))
        schemas.register("acme", TRADE % fields, version=None, effective_from=date.fromisoformat(start))

    async with gateway(world) as stage:
        rows = [row for row in (await get(stage, "schemas"))["schemas"] if row["name"] == "acme"]
        assert [(row["version"], row["compatible_with"]) for row in rows] == [
            ("v1", []), ("v2", ["v1"]), ("v3", ["v1", "v2"]),
        ]  # fmt: skip
        for day, version in (("2026-02-28", "v1"), ("2026-03-01", "v2"), ("2026-07-01", "v3")):
            page = await get(stage, "schemas", as_of=day)
            assert [row["version"] for row in page["schemas"] if row["name"] == "acme"] == [version]
            assert (await get(stage, f"schemas/acme/{version}", as_of=day))["holds"]
        assert not (await get(stage, "schemas/acme/v1", as_of="2026-07-01"))["holds"]
        newest = await get(stage, "schemas/acme/latest")
        assert (newest["version"], newest["text"]) == ("v3", TRADE % "  field1 @1 :Int64;\n  field2 @2 :Int64;\n")
        assert (await get(stage, "schemas/acme/latest", known_at=before_last))["version"] == "v2"
        await get(stage, "schemas/acme/v3", 404, known_at=before_last)
        missing = await get(stage, "schemas/acme/v9", 404)
        assert "has no version 'v9'" in missing["detail"]
        assert (await get(stage, "schemas/trad/v1", 404))["near"] == ["trade"]


# -- environments --------------------------------------------------------------------------------------------------


def environment(port: int) -> Environment:
    data = yaml.safe_load(GOOD)
    data["metadata"]["name"] = "acme"
    data["spec"]["gateway"]["port"] = port
    data["spec"]["database"] = {"url": "postgresql+psycopg2://me:hunter2hunter2@db.example/ssmd"}
    return loads(yaml.safe_dump(data).encode())


async def test_an_environment_is_as_it_was_deployed_each_of_three_times(world: World) -> None:
    environments = EnvironmentCatalogue(world.database)
    times = [await moment(world.database)]
    for port in (9001, 9002, 9003):
        environments.deploy(environment(port), by=f"cli:{port}")
        times.append(await moment(world.database))

    async with gateway(world) as stage:
        for n, at in enumerate(times[1:], 1):
            for name in ("as_of", "known_at"):
                found = await get(stage, "environments/acme", **{name: at})
                assert (found["version"], found["valid_to"]) == (n, None)
                assert f"port: {9000 + n}" in found["config_yaml"]
            history = await get(stage, "environments/acme/history", known_at=at)
            assert [v["version"] for v in history["versions"]] == list(range(1, n + 1))
            assert [d["version"] for d in history["deployments"]] == list(range(n, 0, -1))
            page = await get(stage, "environments", as_of=at)
            assert [(e["name"], e["version"], e["versions"]) for e in page["environments"] if e["name"] == "acme"] == [
                ("acme", n, n)
            ]
        await get(stage, "environments/acme", 404, as_of=times[0])
        assert "acme" not in {e["name"] for e in (await get(stage, "environments", as_of=times[0]))["environments"]}
        assert (await get(stage, "environments/acme"))["deployed_by"] == "cli:9003"
        assert (await get(stage, "environments/acme", version=2))["deployed_by"] == "cli:9002"
        await get(stage, "environments/acme", 404, version=4)
        for path in ("environments", "environments/acme", "environments/acme/history"):
            assert "hunter2" not in msgspec.json.encode(await get(stage, path)).decode()


async def test_what_went_wrong_in_a_deployment_is_for_operators(world: World) -> None:
    EnvironmentCatalogue(world.database).deploy(environment(9001), by="cli:me")
    world.run("UPDATE deployment_log SET status = 'failed', error_message = 'no route to db.example'")
    async with gateway(world) as stage:
        assert (await get(stage, "environments/acme/history"))["deployments"][0]["error"] == "no route to db.example"
        history = next(route for route in stage.gateway.routes if route.path.endswith("{name}/history"))
        document = await get(stage, "environments/acme/history")
    scopes = {route.path: route.scope for route in stage.gateway.routes if route.tag == "metadata"}
    assert scopes.pop("/v1/meta/environments/{name}") == "admin"
    assert set(scopes.values()) == {"read:history"}
    assert history.scope == "read:history"
    assert document["deployments"][0]["status"] == "failed"


# -- the inventory -------------------------------------------------------------------------------------------------


async def test_the_inventory_comes_by_filters_and_pages_each_row_once(world: World) -> None:
    FeedCatalogue(world.database).create("acme", FeedDescription(), facts("v1", "2026-01-01", "wss://one.example/ws"))
    for back in range(40):
        day = TODAY - timedelta(days=back)
        for kind in ("raw", "normalized"):
            world.store(day, kind)
            world.store(day, kind, feed="acme")
    world.registry.set_day_condition("kalshi", TODAY - timedelta(days=3), "raw", "complete", 1.0)

    async with gateway(world) as stage:
        page = await get(stage, "inventory")
        assert (page["from"], page["to"], len(page["inventory"])) == ("2026-10-23", "2026-11-22", 4 * 31)
        found: list[tuple[str, str, str]] = []
        query: dict[str, object] = {"from": "2026-10-01", "to": "2026-11-22", "limit": 7}
        pages = 0
        while True:
            page = await get(stage, "inventory", **query)
            found += [(row["date"], row["feed"], row["data_type"]) for row in page["inventory"]]
            pages += 1
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert pages == -(-160 // 7)
        assert found == sorted(found)
        assert len(set(found)) == len(found) == 160
        wrong = await get(stage, "inventory", 400, **{**query, "feed": "kalshi"})
        assert wrong["parameter"] == "cursor"

        [row] = (await get(stage, "inventory", feed="kalshi", status="complete"))["inventory"]
        assert (row["date"], row["data_type"], row["quality_score"], row["verified_at"] is None) == (
            "2026-11-19", "raw", 1.0, False,
        )  # fmt: skip
        assert (row["record_count"], row["byte_size"], row["symbol_count"]) == (100, 1_000, 3)
        rows = (await get(stage, "inventory", feed="acme", data_type="raw", **{"from": "2026-11-20"}))["inventory"]
        assert [row["date"] for row in rows] == ["2026-11-20", "2026-11-21", "2026-11-22"]
        rows = (await get(stage, "inventory", feed="acme", data_type="raw", as_of="2026-11-01"))["inventory"]
        assert [rows[0]["date"], rows[-1]["date"]] == ["2026-10-14", "2026-11-01"]


async def test_the_inventory_of_a_day_says_what_is_held_and_else_which_day_is(world: World) -> None:
    world.store(TODAY)
    world.store(TODAY, "normalized")
    async with gateway(world) as stage:
        found = await get(stage, f"inventory/kalshi/{TODAY}")
        assert [row["data_type"] for row in found["rows"]] == ["normalized", "raw"]
        assert [(o["data_type"], o["group"], o["objects"], o["records"]) for o in found["objects"]] == [
            ("normalized", "trade", 1, 100), ("raw", "trades", 1, 100),
        ]  # fmt: skip
        missing = await get(stage, "inventory/kalshi/2026-11-30", 404)
        assert (missing["code"], missing["latest"]) == ("no_data", "2026-11-22")
        assert missing["next"] == "The latest day with data is 2026-11-22."
        await get(stage, f"inventory/kalshi/{TODAY}", 404, as_of="2026-11-21")


async def test_what_was_not_recorded_by_then_is_not_known_then(world: World) -> None:
    before = await moment(world.database)
    world.store(TODAY - timedelta(days=2))
    world.store(TODAY - timedelta(days=1))
    between = await moment(world.database)
    world.store(TODAY - timedelta(days=1), records=200)
    world.gap(TODAY - timedelta(days=2), 100)
    world.registry.set_day_condition("kalshi", TODAY - timedelta(days=2), "raw", "partial", 0.99)

    async with gateway(world) as stage:
        assert (await get(stage, "inventory", known_at=before))["inventory"] == []
        rows = (await get(stage, "inventory", known_at=between))["inventory"]
        assert [(row["date"], row["changed_since"]) for row in rows] == [("2026-11-20", True), ("2026-11-21", True)]
        rows = (await get(stage, "inventory", known_at=LATER))["inventory"]
        assert [(row["date"], row["changed_since"]) for row in rows] == [("2026-11-20", False), ("2026-11-21", False)]
        await get(stage, "inventory/kalshi/2026-11-20", 404, known_at=before)
        assert (await get(stage, "gaps/kalshi", known_at=between))["gaps"] == []
        assert len((await get(stage, "gaps/kalshi"))["gaps"]) == 1
        then = await get(stage, "condition", date="2026-11-20", known_at=between)
        now = await get(stage, "condition", date="2026-11-20")
        assert (then["days"][0]["verified"], now["days"][0]["verified"]) == (False, True)
        assert [r["code"] for r in then["days"][0]["reasons"]] == ["no_normalized", "not_verified"]
        assert [r["code"] for r in now["days"][0]["reasons"]] == ["gap", "no_normalized"]


# -- gaps ----------------------------------------------------------------------------------------------------------


async def test_gaps_come_by_day_by_range_and_by_pages(world: World) -> None:
    many = tuple(f"T{n}" for n in range(150))
    for second in range(0, 50, 2):
        world.gap(TODAY, second, 1)
    world.gap(TODAY - timedelta(days=3), 86_390, 20, sid=4, tickers=many, last_seq=7, next_seq=9)

    async with gateway(world) as stage:
        page = await get(stage, "gaps/kalshi", date=TODAY)
        assert len(page["gaps"]) == 25
        assert page["gaps"][0]["from"] == "2026-11-22T00:00:00.000000Z"
        for day in ("2026-11-19", "2026-11-20"):  # it ends on the day after it began
            [gap] = (await get(stage, "gaps/kalshi", date=day))["gaps"]
            assert (gap["seconds"], gap["sid"], gap["last_seq"], gap["next_seq"]) == (20.0, 4, 7, 9)
            assert (len(gap["tickers"]), gap["ticker_count"]) == (100, 150)
        seen: list[str] = []
        query: dict[str, object] = {"limit": 4}
        while True:
            page = await get(stage, "gaps/kalshi", **query)
            seen += [gap["from"] for gap in page["gaps"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert len(seen) == len(set(seen)) == 26
        assert seen == sorted(seen)
        some = await get(stage, "gaps/kalshi", **{"from": "2026-11-22T00:00:10Z", "to": "2026-11-22T00:00:12.5Z"})
        assert [gap["from"][17:19] for gap in some["gaps"]] == ["10", "12"]
        assert len((await get(stage, "gaps/kalshi", as_of="2026-11-21"))["gaps"]) == 1


# -- condition -----------------------------------------------------------------------------------------------------


async def test_each_day_has_a_condition_and_its_reasons(world: World) -> None:
    days = [TODAY - timedelta(days=back) for back in range(8)]
    for day in (days[0], days[1], days[2], days[3], days[5], days[6]):
        world.store(day)
        world.store(day, "normalized")
    for kind in ("raw", "normalized"):
        world.registry.set_day_condition("kalshi", days[1], kind, "complete", 1.0)
        world.registry.set_day_condition("kalshi", days[3], kind, "failed", 1.0)
    world.gap(days[2], 1_000, 90)
    world.gap(days[2], 1_050, 60, connection="c-2", sid=3)
    world.gap(days[0], 5, 5)
    world.gap(days[6], 86_398, 2, reason="planned_teardown")
    world.registry.record_issues([
        Issue("kalshi", days[5], "raw", "parse_error", "error", 3),
        Issue("kalshi", days[5], "raw", "refused", "info", 9),
    ])  # fmt: skip

    async with gateway(world) as stage:
        found = await get(stage, "condition", **{"from": days[7], "to": TODAY + timedelta(days=1)})
        words = {row["date"]: row["condition"] for row in found["days"]}
        codes = {row["date"]: [reason["code"] for reason in row["reasons"]] for row in found["days"]}
        assert list(words.values()) == [
            "missing", "available", "degraded", "missing", "degraded", "degraded", "available", "open", "not_yet",
        ]  # fmt: skip
        assert codes[str(days[7])] == ["before_first_data"]
        assert codes[str(days[6])] == ["planned_gap", "not_verified"]
        assert codes[str(days[5])] == ["error", "not_verified"]
        assert codes[str(days[4])] == ["no_data"]
        assert codes[str(days[3])] == ["verification_failed"]
        assert codes[str(days[2])] == ["gap", "not_verified"]
        assert codes[str(days[1])] == []
        assert codes[str(days[0])] == ["running", "gap"]
        gap = found["days"][5]["reasons"][0]
        assert (gap["count"], gap["seconds"], gap["weight"]) == (2, 110.0, "bad")  # they overlap for 40 s
        assert found["counts"] == {"available": 2, "degraded": 3, "missing": 2, "not_yet": 1, "open": 1}
        assert (found["condition"], found["first_day"], found["last_day"]) == (
            "degraded", str(days[6]), str(TODAY),
        )  # fmt: skip
        for n, row in enumerate(found["days"]):
            one = await get(stage, "condition", feed="kalshi", date=row["date"])
            assert one["days"] == [row], n
            assert one["condition"] == row["condition"]


async def test_a_year_is_one_question_and_more_is_refused(world: World) -> None:
    for back in range(366):
        world.store(TODAY - timedelta(days=back))
    async with gateway(world) as stage:
        began = asyncio.get_running_loop().time()
        year = await get(stage, "condition", **{"from": TODAY - timedelta(days=365), "to": TODAY})
        took = asyncio.get_running_loop().time() - began
        assert len(year["days"]) == 366
        assert took < 3
        for path in ("condition", "inventory", "gaps/kalshi"):
            wrong = await get(stage, path, 400, **{"from": "2025-11-21", "to": "2026-11-22"})
            assert (wrong["code"], wrong["parameter"]) == ("span_too_long", "from")
            wrong = await get(stage, path, 400, **{"from": "2026-11-22", "to": "2026-11-21"})
            assert "later than 'to'" in wrong["detail"]
        for path in ("condition", "gaps/kalshi"):
            wrong = await get(stage, path, 400, **{"from": "2026-11-22", "date": "2026-11-22"})
            assert wrong["parameter"] == "date"


# -- bad input -----------------------------------------------------------------------------------------------------

HOSTILE = ["'; DROP TABLE feeds; --", "kalshi'", "../../etc/passwd", "\u202e", "日本", "%00", "K" * 255, "kalshi ", "*"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_unknown_and_nothing_else(world: World, name: str) -> None:
    async with gateway(world) as stage:
        escaped = quote(name, safe="")
        for path in (
            f"feeds/{escaped}", f"feeds/{escaped}/calendar", f"inventory/{escaped}/2026-11-22", f"gaps/{escaped}",
            f"schemas/{escaped}/v1", f"schemas/trade/{escaped}", f"environments/{escaped}",
            f"environments/{escaped}/history", f"syncs/{escaped}",
        ):  # fmt: skip
            url = f"{stage.url}/v1/meta/{path}"
            async with aiohttp.ClientSession() as session, session.get(URL(url, encoded=True)) as answer:
                body = await answer.json(content_type=None)
                assert answer.status in (400, 404), (path, body)
                assert len(body["detail"]) < 400
        if len(name) <= 32:
            assert (await get(stage, "condition", 404, feed=name))["code"] == "not_known"
            assert (await get(stage, "inventory", 404, feed=name))["code"] == "not_known"
        assert (await get(stage, "feeds/kalsi", 404))["next"] == (
            "Did you mean kalshi? GET /v1/meta/feeds lists them."
        )  # fmt: skip


async def test_days_and_times_at_the_ends_of_the_calendar_are_answered(world: World) -> None:
    world.store(TODAY)
    async with gateway(world) as stage:
        for day in ("0001-01-01", "1969-12-31", "2262-04-12", "9999-12-31"):
            await get(stage, f"inventory/kalshi/{day}", 404)
            assert len((await get(stage, "condition", date=day))["days"]) == 1
            assert (await get(stage, "gaps/kalshi", date=day))["gaps"] == []
            for name in ("as_of", "known_at"):
                for path in ("feeds", "inventory", "condition", "gaps/kalshi", "schemas", "environments"):
                    await get(stage, path, **{name: day})
                    await get(stage, path, **{name: f"{day}T23:59:59Z"})
        for path in ("inventory", "condition"):
            await get(stage, path, 400, **{"from": "0001-01-01"})
            await get(stage, path, to="0001-01-01")


# -- the database and the cache come and go --------------------------------------------------------------------------


async def test_without_a_database_it_is_said_that_there_is_none() -> None:
    async with running() as stage:
        paths = [
            route.path.format(name="x", feed="kalshi", version="v1", date="2026-11-22")
            for route in stage.gateway.routes
            if route.path.startswith("/v1/meta/")
        ]
        assert len(paths) == 13
        for path in paths:
            problem = await get(stage, path.removeprefix("/v1/meta/"), 503)
            assert problem["code"] == "no_database"


async def test_while_the_database_is_away_the_last_answers_are_given_and_marked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_module, "DATABASE_REST_S", 0.0)
    world.store(TODAY)
    world.registry.upsert_markets(
        "kalshi", [Market("KX-1", "KX", "Will it rain?", "active", None, None, "", {"ticker": "KX-1"})]
    )
    cache = MemoryCache(10 << 20)
    async with gateway(world, cache) as stage:
        stage.publish(trade("KX-1"))
        await until(lambda: stage.gateway.hub.board.known("KX-1"))
        paths = ["feeds", "feeds/kalshi", "feeds/kalshi/calendar", "inventory", f"inventory/kalshi/{TODAY}",
                 "gaps/kalshi", "schemas", "schemas/trade/v1", "environments", "condition", "syncs/kalshi"]  # fmt: skip
        fresh = {path: await ask(stage, path) for path in paths}
        market, page = f"{stage.url}/v1/markets/KX-1", f"{stage.url}/v1/markets"
        async with aiohttp.ClientSession() as session:
            for url in (market, page):
                async with session.get(url) as answer:
                    assert not (await answer.json())["stale"]
            world.leave()
            pass_s(stage, 1_000)
            for path in paths:
                old, headers = await ask(stage, path)
                assert old["stale"], path
                assert old["as_known"] == "2026-11-22T18:00:00.000000Z"
                assert (headers["Age"], headers["Warning"]) == ("1000", '110 ssmd "Response is Stale"')
                assert old | {"stale": False, "as_known": None} == fresh[path][0]
            for url in (market, page):
                async with session.get(url) as answer:
                    old = await answer.json()
                    assert (answer.status, old["stale"], answer.headers["Age"]) == (200, True, "1000")
                    assert "Will it rain?" in msgspec.json.encode(old).decode()
            assert (await get(stage, "feeds/never-asked", 503))["code"] == "unavailable"
            async with session.get(f"{stage.url}/v1/health") as answer:
                health = await answer.json()
                assert (answer.status, health["status"], health["dependencies"]["registry"]["state"]) == (
                    200, "degraded", "away",
                )  # fmt: skip
            pass_s(stage, 2_700)
            await get(stage, "feeds", 503)  # after an hour it is no answer any more
            world.come_back()
            await until_ok(stage, "feeds")
            back, headers = await ask(stage, "feeds")
            assert not back["stale"]
            assert "Warning" not in headers
            assert headers["ETag"] == fresh["feeds"][1]["ETag"]


async def until_ok(stage: Stage, path: str) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{stage.url}/v1/meta/{path}") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def test_a_silent_database_is_a_503_within_the_limit_and_never_more_threads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "ANSWER_S", 0.2)
    async with gateway(world) as stage:
        with world.database.transaction("keep all others waiting") as connection:
            connection.execute(sa.text("LOCK TABLE feeds IN ACCESS EXCLUSIVE MODE"))
            began = asyncio.get_running_loop().time()
            codes = await asyncio.gather(*(get(stage, f"feeds/name-{n}", 503) for n in range(20)))
            assert asyncio.get_running_loop().time() - began < 3
            assert {problem["code"] for problem in codes} == {"unavailable"}
            assert stage.gateway._catalogue._busy <= catalogue_module.CONCURRENT
        await until(lambda: stage.gateway._catalogue._busy == 0)
        await until_ok(stage, "feeds")


async def test_more_questions_at_once_than_threads_are_all_answered(world: World) -> None:
    async with gateway(world) as stage:
        found = await asyncio.gather(*(get(stage, "condition", date=f"2026-11-{n:02d}") for n in range(1, 21)))
        assert [answer["from"] for answer in found] == [f"2026-11-{n:02d}" for n in range(1, 21)]


# -- ETag ----------------------------------------------------------------------------------------------------------


async def test_an_unchanged_answer_is_not_sent_twice_and_a_changed_one_is(world: World) -> None:
    async with gateway(world, MemoryCache(1 << 20)) as stage, aiohttp.ClientSession() as session:
        url = f"{stage.url}/v1/meta/feeds"
        async with session.get(url) as first:
            tag = first.headers["ETag"]
        pass_s(stage, 100)
        async with session.get(url, headers={"If-None-Match": tag}) as second:
            assert (second.status, await second.read()) == (304, b"")
        FeedCatalogue(world.database).create(
            "acme", FeedDescription(), facts("v1", "2026-01-01", "wss://one.example/ws")
        )
        async with session.get(url, headers={"If-None-Match": tag}) as fresh_for_a_moment:
            assert fresh_for_a_moment.status == 304
        pass_s(stage, hot_module.FRESH_S)
        async with session.get(url, headers={"If-None-Match": tag}) as changed:
            assert (changed.status, changed.headers["ETag"] != tag) == (200, True)


# -- a real cache --------------------------------------------------------------------------------------------------


async def test_a_cache_that_goes_and_comes_back_is_never_an_error(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_module, "CACHE_REST_S", 0.05)
    world.store(TODAY)

    async def health(stage: Stage) -> tuple[str, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/v1/health") as answer:
            found = await answer.json()
            return found["status"], found["dependencies"]["cache"]["state"]

    with valkey_server(tmp_path) as server:
        pid = server.pid
        config = RedisConfig(type="redis", url=server.url.replace("redis://", f"redis://:{PASSWORD}@"))
        cache = RedisCache(config, NoSecrets(), "test")
        async with gateway(world, cache) as stage:
            fresh = await get(stage, "inventory")
            assert await health(stage) == ("ok", "connected")
            os.kill(pid, signal.SIGSTOP)  # it is there, and says nothing
            try:
                for _ in range(3):
                    began = asyncio.get_running_loop().time()
                    pass_s(stage, 10)
                    assert await get(stage, "inventory") == fresh
                    assert asyncio.get_running_loop().time() - began < 2
                    await asyncio.sleep(0.06)
                assert await health(stage) == ("degraded", "away")
            finally:
                os.kill(pid, signal.SIGCONT)
            async with asyncio.timeout(20):
                while await health(stage) != ("ok", "connected"):
                    await get(stage, "inventory")
                    await asyncio.sleep(0.02)
            await get(stage, "inventory")
            os.kill(pid, signal.SIGKILL)
            for _ in range(3):
                assert await get(stage, "inventory") == fresh
            assert await health(stage) == ("degraded", "away")
            world.leave()
            pass_s(stage, 10)
            assert (await get(stage, "inventory", 503))["code"] == "unavailable"
        await cache.close()
