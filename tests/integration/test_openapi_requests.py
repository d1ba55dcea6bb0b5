"""Schemathesis against a running gateway: requests of all kinds made from /openapi.json, right ones and wrong ones."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from ssmd.gateway.openapi import openapi
from ssmd.registry.client_keys import ClientKeys
from ssmd.registry.database import Database
from ssmd.registry.memory import MemoryRegistry
from tests.flow.gateway_stage import Stage, running
from tests.flow.page_scene import OTHERS, TICKER, Chatter, a_day

pytestmark = pytest.mark.integration

PER_OPERATION = int(os.environ.get("SSMD_SCHEMATHESIS_EXAMPLES", "15"))
GENEROUS = {"requests_per_minute": 10_000_000, "requests_per_hour": 1_000_000_000, "burst": 1_000_000}
# Not positive_data_acceptance: a cursor is text for JSON Schema, and yet not any text is one.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,ignored_auth"
)


async def requests_made(stage: Stage, folder: Path, *more: str) -> int:
    """Let it ask; AssertionError with its own report when an answer is not as described."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{stage.url}/openapi.json", "--checks", CHECKS,
        "--max-examples", str(PER_OPERATION), "--phases", "examples,coverage,fuzzing", "--seed", "4", "--workers", "1",
        "--continue-on-failure", "--generation-database", "none", "--no-color", "--request-timeout", "30", *more,
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text[-12_000:]
    found = re.search(r"([\d,]+) generated", text)
    assert found, text[-3_000:]
    return int(found[1].replace(",", ""))


def lively(stage: Stage) -> None:
    """Something to answer with."""
    chatter = Chatter(stage)
    for ticker in (TICKER, *OTHERS):
        chatter.snapshot(ticker)
        for _ in range(5):
            chatter.trade(ticker)
        chatter.quote(ticker)


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    a_day(registry)
    return registry


async def test_without_keys_every_answer_is_as_described(
    registry: MemoryRegistry, database: Database, tmp_path: Path
) -> None:
    async with running(registry, database=database, limits=GENEROUS) as stage:
        lively(stage)
        assert await requests_made(stage, tmp_path) > 300


async def test_with_a_key_every_answer_is_as_described(
    registry: MemoryRegistry, database: Database, tmp_path: Path
) -> None:
    scopes = ["read:live", "read:history", "write:feedback", "admin"]
    text, _ = ClientKeys(database).create("schemathesis", scopes, None, "test")
    async with running(registry, database=database, auth="keys", limits=GENEROUS) as stage:
        lively(stage)
        assert await requests_made(stage, tmp_path, "--header", f"Authorization: Bearer {text}") > 300


async def test_without_its_key_every_refusal_is_as_described(
    registry: MemoryRegistry, database: Database, tmp_path: Path
) -> None:
    async with running(registry, database=database, auth="keys", limits=GENEROUS) as stage:
        lively(stage)
        assert await requests_made(stage, tmp_path) > 300


@pytest.mark.parametrize("wrong", ["a status that is not there", "another answer"])
async def test_a_description_that_is_wrong_is_found(
    registry: MemoryRegistry, database: Database, tmp_path: Path, wrong: str
) -> None:
    async with running(registry, database=database, limits=GENEROUS) as stage:
        lively(stage)
        described = openapi(stage.gateway.routes, keys=False)
        if wrong == "another answer":
            described["components"]["schemas"]["MarketPage"]["properties"]["stale"] = {"type": "integer"}
        else:
            del described["paths"]["/v1/markets"]["get"]["responses"]["400"]
        stage.gateway._pages._descriptions["openapi"] = described
        with pytest.raises(AssertionError, match="GET /v1/markets"):
            await requests_made(stage, tmp_path, "--include-operation-id", "getMarkets")
