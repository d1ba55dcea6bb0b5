"""Questions in words on a real PostgreSQL: the same answers as from memory, also among many markets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssmd.registry.interface import Market
from ssmd.registry.postgres import PostgresRegistry
from tests.data.question_markets import markets
from tests.databases import Database as Server
from tests.unit.gateway.questions.asking import Asking

pytestmark = pytest.mark.integration

QUESTIONS = Path(__file__).parents[1] / "data" / "questions.yaml"


@pytest.fixture
def registry(postgres: Server) -> Iterator[PostgresRegistry]:
    opened = PostgresRegistry(postgres.fresh())
    yield opened
    opened.close()


async def test_postgresql_and_memory_give_the_same_answers(registry: PostgresRegistry) -> None:
    real, memory = Asking(registry=registry), Asking()
    for row in yaml.safe_load(QUESTIONS.read_text()):
        told, expected = await real.ask(row["q"]), await memory.ask(row["q"])
        assert (told.filters, told.total) == (expected.filters, expected.total), row["q"]
        assert [r.ticker for r in told.results] == [r.ticker for r in expected.results], row["q"]


async def test_what_is_meant_is_found_among_twenty_thousand_markets(registry: PostgresRegistry) -> None:
    old = [
        Market(f"KXBTCD-25JAN{n % 28 + 1:02}-T{n}", f"KXBTCD-25JAN{n % 28 + 1:02}", f"Bitcoin price above ${n:,}?",
               "finalized", "2025-01-01T00:00:00Z", f"2025-01-{n % 28 + 1:02}T22:00:00Z", "no", {},
               series_ticker="KXBTCD", category="Crypto", settled_at=f"2025-01-{n % 28 + 1:02}T22:05:00Z")
        for n in range(20_000)
    ]  # fmt: skip
    asking = Asking([*old, *markets()], registry)
    answer = await asking.ask("open bitcoin markets")
    assert (answer.total, answer.complete) == (6, True)
    assert (await asking.tickers("Will Elon Musk visit Mars?"))[0] == "KXELONMARS-99"
    assert (await asking.tickers("crypto markets closing soonest"))[0] == "KXBTC15M-26NOV221815-15"
    settled = await asking.ask("which bitcoin markets settled on 3 January 2025?")
    assert settled.total == sum(market.ticker.startswith("KXBTCD-25JAN03-") for market in old)
    everything = await asking.ask("how many crypto markets settled in January 2025")
    assert (everything.total, everything.complete) == (2_000, False)
