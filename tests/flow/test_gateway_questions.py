"""Questions in words over HTTP and over the WebSocket, of a real gateway."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from ssmd.gateway.questions.answers import Answer
from ssmd.registry.interface import Market, MarketFilter, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from tests.data.question_markets import NOW, markets
from tests.flow.gateway_stage import FEED, Stage, connected, running
from tests.unit.gateway.events import trade

NOW_NS = int(NOW.timestamp()) * 1_000_000_000
QUESTION = "What prediction markets about Bitcoin are trading today?"


class Registry(MemoryRegistry):
    """A database that can go away."""

    away = False

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        if self.away:
            raise RegistryUnavailable("the database at 127.0.0.1 does not answer")
        return super().find_markets(feed, wanted, limit, after)


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    found.upsert_markets(FEED, markets())
    return found


@pytest.fixture
async def stage(registry: Registry) -> AsyncIterator[Stage]:
    async with running(registry, lambda: NOW_NS) as stage:
        yield stage


async def ask(stage: Stage, status: int = 200, **query: Any) -> dict[str, Any]:
    """The answer's document."""
    async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/v1/query", params=query) as response:
        assert response.status == status, await response.text()
        body = await response.read()
        if status == 200:
            msgspec.json.decode(body, type=Answer)  # it is what the route declares
        found: dict[str, Any] = msgspec.json.decode(body)
        return found


async def test_the_design_s_question_gets_the_design_s_answer(stage: Stage) -> None:
    stage.publish(trade(ticker="KXBTC15M-26NOV221815-15"))
    answer = await ask(stage, q=QUESTION)
    assert (answer["action"], answer["understood"]) == ("list_markets", True)
    assert answer["filters"] == {"category": "crypto", "underlying": "BTC", "status": "active"}
    assert answer["interpretation"] == "Searching for active markets related to Bitcoin"
    assert answer["total"] == 6
    assert answer["results"][0]["_links"]["self"] == "/v1/markets/KXBTC15M-26NOV221815-15"
    assert answer["suggestions"]


async def test_the_stream_answers_the_same(stage: Stage) -> None:
    answer = await ask(stage, q=QUESTION)
    async with connected(stage) as client:
        await client.ask(action="query", natural_language=QUESTION, id=7)
        told = await client.until_type("query")
        assert told.pop("id") == 7
        assert {key: told[key] for key in answer} == answer


async def test_limit_bounds_the_results_and_not_the_total(stage: Stage) -> None:
    answer = await ask(stage, q=QUESTION, limit=2)
    assert (len(answer["results"]), answer["total"]) == (2, 6)


@pytest.mark.parametrize("query", [{}, {"q": ""}, {"q": "b" * 501}, {"q": "a", "limit": 101}, {"q": "a", "limit": 0}])
async def test_wrong_parameters_are_problems(stage: Stage, query: dict[str, Any]) -> None:
    assert (await ask(stage, 400, **query))["code"] == "bad_parameter"


async def test_without_the_database_the_answer_is_503_and_the_stream_says_so(stage: Stage, registry: Registry) -> None:
    registry.away = True
    problem = await ask(stage, 503, q=QUESTION)
    assert problem["code"] == "unavailable"
    assert "127.0.0.1" not in str(problem)
    async with connected(stage) as client:
        await client.ask(action="query", natural_language=QUESTION, id="a")
        error = await client.until_type("error")
        assert (error["code"], error["id"]) == ("not_available", "a")
        await client.ask(action="ping")
        assert (await client.until_type("pong"))["type"] == "pong"
