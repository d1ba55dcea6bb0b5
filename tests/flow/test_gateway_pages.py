"""Pages and descriptions of the gateway: valid, complete, escaped, and honest when the database is away."""

import re
from collections.abc import AsyncIterator
from datetime import date
from html import unescape
from html.parser import HTMLParser
from typing import Any

import aiohttp
import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from ssmd.clock import NS_PER_S, now_ns
from ssmd.gateway.openapi import HIDDEN, openapi
from ssmd.gateway.stream_messages import MESSAGES, REQUESTS
from ssmd.market.events import Gap
from ssmd.registry.interface import InventoryRow, Market, ObjectRecord, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire import requests
from tests.flow.gateway_stage import FEED, Stage, connected, running, until
from tests.flow.page_scene import TICKER, Chatter, a_day
from tests.flow.stream_schema import check_message, check_request, document

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}"
PAGES = ("/", "/status", "/docs")


class Registry(MemoryRegistry):
    """A database that can go away."""

    away = False

    def _answer(self) -> None:
        if self.away:
            raise RegistryUnavailable("the database does not answer")

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        self._answer()
        return super().gaps(feed, day, last)

    def inventory(self, feed: str, first: date, last: date) -> list[InventoryRow]:
        self._answer()
        return super().inventory(feed, first, last)

    def objects(self, feed: str, day: date, data_type: str | None = None) -> list[ObjectRecord]:
        self._answer()
        return super().objects(feed, day, data_type)

    def market(self, feed: str, ticker: str) -> Market | None:
        self._answer()
        return super().market(feed, ticker)

    def ping(self) -> None:
        self._answer()


class Tags(HTMLParser):
    """The elements of a page, which must be closed properly, and its words."""

    VOID = frozenset(("meta", "link", "input", "br", "path"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    a_day(registry)
    return registry


@pytest.fixture
async def stage(registry: Registry) -> AsyncIterator[Stage]:
    async with running(registry) as stage:
        yield stage


async def get(stage: Stage, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, str]:
    async with aiohttp.ClientSession() as session, session.get(stage.url + path, headers=headers) as response:
        return response, await response.text()


@pytest.mark.parametrize("keys", [True, False])
async def test_the_description_is_valid_openapi_and_has_every_route(stage: Stage, keys: bool) -> None:
    described = msgspec.to_builtins(openapi(stage.gateway.routes, keys=keys))
    OpenAPIV31SpecValidator(described).validate()
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert len(operations) == sum(route.tag != HIDDEN for route in stage.gateway.routes)
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"getMarkets", "getMarket", "getMarketOrderbook", "getHealth"} <= set(names)
    for operation in operations:
        assert ("401" in operation["responses"]) is keys
        assert {"400", "403", "429", "503"} <= operation["responses"].keys(), operation["operationId"]
        scope = operation["x-ssmd-scope"]
        assert operation.get("security", []) == ([{"key": []}] if keys and scope else [])
    Draft202012Validator.check_schema({"components": described["components"]["schemas"]})


async def test_json_routes_describe_their_answers(stage: Stage) -> None:
    described = openapi(stage.gateway.routes, keys=False)
    undescribed = [
        path
        for path, methods in described["paths"].items()
        for operation in methods.values()
        if operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema") == {}
    ]
    assert set(undescribed) <= {"/openapi.json", "/asyncapi.json"}


async def test_what_is_served_is_what_is_generated_and_keeps_its_etag(stage: Stage) -> None:
    for path in ("/openapi.json", "/asyncapi.json", "/docs/style.css", "/docs/status.js"):
        first, body = await get(stage, path)
        assert (first.status, bool(body)) == (200, True)
        again, nothing = await get(stage, path, **{"If-None-Match": first.headers["ETag"]})
        assert (again.status, nothing) == (304, "")


def test_the_description_of_the_stream_is_whole() -> None:
    described = document()
    assert described["asyncapi"] == "3.0.0"

    def resolve(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found: Any = described
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for inner in value.values():
                resolve(inner)
        elif isinstance(value, list):
            for inner in value:
                resolve(inner)

    resolve(described)
    Draft202012Validator.check_schema({"components": described["components"]["schemas"]})
    for message in described["components"]["messages"].values():
        for example in message.get("examples", ()):
            payload = example["payload"]
            check_request(payload) if "action" in payload else check_message(payload)


def test_requests_have_the_fields_that_the_gateway_reads() -> None:
    actions = {of.__struct_fields__: of for of in REQUESTS}
    described = {name for fields in actions for name in fields} - {"key"}
    assert described == set(requests.FIELDS)
    named = {of.__annotations__["action"].__args__[0] for of in REQUESTS}
    assert named == {*requests.ACTIONS, "auth"}
    assert len({of.__name__ for of in (*REQUESTS, *MESSAGES)}) == len(REQUESTS) + len(MESSAGES)


def test_the_judge_of_messages_refuses_what_is_not_described() -> None:
    pong = {"type": "pong", "ts": 1}
    check_message(pong)
    for wrong in ({**pong, "more": 1}, {**pong, "ts": "1"}, {"type": "pong"}, {"type": "nothing"}):
        with pytest.raises(AssertionError):
            check_message(wrong)
    with pytest.raises(AssertionError):
        check_request({"action": "subscribe", "symbols": []})


async def test_pages_hold_no_scripts_styles_or_strangers(stage: Stage) -> None:
    for path in PAGES:
        response, page = await get(stage, path)
        assert (response.status, response.content_type, response.charset) == (200, "text/html", "utf-8")
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        for tag, attributes in Tags(page).seen:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (path, tag, attributes)
            assert tag != "style"
            assert tag != "script" or attributes["src"] == "/docs/status.js"
            for name in ("src", "href"):
                assert (attributes.get(name) or "/")[0] in "/#", attributes
        assert not re.search(r"<script[^>]*>[^<]", page)


async def test_the_status_page_tells_the_day(stage: Stage) -> None:
    chatter = Chatter(stage)
    chatter.snapshot()
    chatter.trade()
    await until(lambda: stage.gateway.health()["status"] == "ok")
    async with connected(stage, TICKER) as client:
        await client.next()
        text = Tags((await get(stage, "/status"))[1]).text
    assert "Everything flows" in text
    assert "Last message < 1 s ago" in text
    assert "Books 1 synced" in text
    assert "Clients 1 1 healthy" in text
    assert "Gaps today 3" in text
    for reason in ("connection lost", "sequence gap", "startup"):
        assert reason in text
    assert re.search(r"Last object kalshi/\S+\.zst [\d.]+ M records · [\d.]+ MB · up to \d\d:\d\d:\d\d", text)
    assert "partial 0.81" in text
    assert text.count("complete") == 10


async def test_a_gap_tells_how_long_and_of_which_markets(registry: Registry) -> None:
    now = now_ns()
    midnight = now - now % (86_400 * NS_PER_S)
    registry.record_gaps([Gap(FEED, "c", None, midnight - 90 * NS_PER_S, midnight + 60 * NS_PER_S, "planned_teardown")])
    async with running(registry) as stage:
        text = Tags((await get(stage, "/status"))[1]).text
    assert re.search(r"\d\d-\d\d 23:58:30 2 min 30 s planned teardown c all", text)


async def test_a_database_that_is_away_shows_as_such_and_what_was_known_stays_with_its_time(
    stage: Stage, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssmd.gateway.status_page.ARCHIVE_FRESH_NS", 0)
    monkeypatch.setattr("ssmd.gateway.catalogue.GAPS_FRESH_NS", -1)
    assert "as of" not in Tags((await get(stage, "/status"))[1]).text
    registry.away = True
    async with connected(stage, "NEVER-HEARD") as client:  # a question that the database does not answer
        await client.next()
    response, page = await get(stage, "/status")
    text = Tags(page).text
    assert response.status == 200
    assert "today's gaps are not known now" in text
    assert "Gaps today ?" in text
    assert re.search(r"Archive as of \d\d:\d\d:\d\d UTC", text)
    assert "something else is missing" in text
    assert re.search(r"registry away the database does not answer", text)


async def test_a_database_that_was_never_there_leaves_no_page_empty(registry: Registry) -> None:
    registry.away = True
    async with running(registry) as stage:
        text = Tags((await get(stage, "/status"))[1]).text
        assert "what is archived is not known now" in text
        assert "today's gaps are not known now" in text


async def test_a_lost_broker_is_the_headline(stage: Stage) -> None:
    stage.broker.up = False
    await until(lambda: not stage.gateway.hub.connected)
    assert "No live data transport away" in Tags((await get(stage, "/status"))[1]).text


async def test_hostile_text_stays_text(registry: Registry) -> None:
    now = now_ns()
    registry.record_gaps([Gap(FEED, HOSTILE, None, now - NS_PER_S, now, "silence")])
    async with running(registry) as stage:
        page = (await get(stage, "/status"))[1]
    assert HOSTILE not in page
    assert HOSTILE.split("_")[0] in unescape(page)
    assert [tag for tag, _ in Tags(page).seen if tag in ("script", "img")] == ["script"]


async def test_agents_find_what_they_need_in_a_page_of_text(stage: Stage) -> None:
    response, text = await get(stage, "/llms.txt")
    assert response.content_type == "text/plain"
    assert len(text) < 8_000
    assert text.startswith("# ssmd")
    for needed in ("untrusted data", "/openapi.json", "/v1/stream", "GET /v1/markets/{ticker}", "429", "from_seq"):
        assert needed in text
    for route in stage.gateway.routes:
        assert route.path in text or route.tag in (HIDDEN, "pages")


async def test_the_reference_shows_every_operation_and_message(stage: Stage) -> None:
    page = (await get(stage, "/docs"))[1]
    tags = Tags(page)
    ids = {attributes.get("id") for _, attributes in tags.seen}
    links = {attributes["href"] for tag, attributes in tags.seen if tag == "a" and attributes["href"]}
    for route in stage.gateway.routes:
        assert route.tag == HIDDEN or route.summary in tags.text
    for of in (*REQUESTS, *MESSAGES):
        assert f"stream-{of.__name__}" in ids
    assert {link[1:] for link in links if link.startswith("#")} <= ids
