"""The main job in one process, in seconds: every frame archived once or covered by a gap, whatever happens."""

import asyncio
from pathlib import Path

import pytest

from ssmd.simulator.options import SimulatorOptions
from tests.flow.stack import Stack, capture

FAST = SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0)


def verdict(stack: Stack) -> None:
    result = stack.check()
    assert not result.findings, result.table()
    assert result.archive.count > 500, result.table()


async def test_a_quiet_day_is_archived_whole(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 3000)
        await stack.finish()

        verdict(stack)
        result = stack.check()
        assert result.missing == 0
        assert result.trades


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("close", {"code": 1001}),
        ("abort", {}),
        ("drop", {"n": 20}),
        ("drop", {"n": 2, "channel": "trade"}),
        ("seq_gap", {"n": 5}),
        ("seq_back", {"n": 3}),
        ("hostile", {"n": 0}),
        ("overflow", {}),
        ("stall", {"seconds": 1.0}),
        ("refuse_429", {"seconds": 1.0}),
    ],
    ids=lambda value: str(value),
)
async def test_a_fault_of_the_exchange_costs_no_frame_that_is_not_in_a_gap(
    tmp_path: Path, fault: str, parameters: dict[str, object]
) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 1500)
        stack.simulator.fault(fault, **parameters)
        if fault.startswith("refuse"):
            stack.simulator.fault("close")
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 3000)
        await stack.finish()

        verdict(stack)


async def test_a_half_open_connection_is_noticed_and_its_loss_recorded(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 1000)
        stack.simulator.fault("half_open", seconds=30)
        await stack.until(lambda: len(stack.registry.gaps("kalshi", stack.today)) > 0)
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()


async def test_an_outage_of_the_broker_delays_the_stream_and_loses_nothing(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 1000)
        stack.transport.up = False
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 3000)
        stack.transport.up = True
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        await stack.finish()

        verdict(stack)
        assert stack.check().missing == 0


async def test_a_killed_connector_loses_nothing_that_is_not_in_a_gap_and_doubles_nothing(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.seal_bytes = 300_000
        stack.start_connector()
        stack.start_archiver()
        for _ in range(4):
            before = stack.sent
            await stack.until(lambda before=before: stack.sent > before + 1200)  # type: ignore[misc]
            await stack.kill("connector")
            await asyncio.sleep(0.1)  # a process takes longer to start; the exchange notices the end of the old link
            stack.start_connector()
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        await stack.finish()

        verdict(stack)


async def test_a_killed_archiver_continues_without_loss_or_doubles(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        stack.start_archiver()
        for _ in range(4):
            before = stack.sent
            await stack.until(lambda before=before: stack.sent > before + 1500)  # type: ignore[misc]
            await stack.kill("archiver")
            stack.start_archiver()
        await stack.finish()

        verdict(stack)


async def test_a_full_spool_is_a_recorded_gap_and_capture_goes_on(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.spool_max_bytes = 400_000
        stack.seal_bytes = 100_000
        blocked = tmp_path / "storage" / "ssmd-raw"
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")  # the storage cannot be written
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.connector.health().get("trouble") != {})
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 4000)
        blocked.unlink()
        before = stack.sent
        await stack.until(lambda: any(g.reason == "spool_full" for g in stack.registry.gaps("kalshi", stack.today)))
        await stack.until(lambda: stack.sent > before + 2000)
        await stack.finish()

        result = stack.check()
        # T: what found no room on its way to the stream is made again from raw by compaction
        assert result.rules <= {"I5", "T"}, result.table()
        assert result.missing > 0


async def test_what_a_dead_link_swallowed_before_the_order_to_stop_is_in_the_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.start_connector()
        await stack.until(lambda: stack.sent > 1000)
        stack.simulator.fault("half_open", seconds=30)
        before = stack.sent
        await stack.until(lambda: stack.sent > before + 1000)
        await stack.finish()

        result = stack.check(trades=False)
        assert not result.findings, result.table()
        assert result.missing > 0


async def test_a_spool_that_is_full_across_a_reconnect_says_so_and_leaves_no_hole_without_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        stack.spool_max_bytes = 50_000  # nothing is sealed before it is full
        stack.start_connector()
        await stack.until(lambda: "spool" in str(stack.connector.health().get("trouble")))
        assert stack.connector.health()["status"] == "degraded"
        for _ in range(2):  # the second connection lives and dies without one frame kept
            before = stack.sent
            stack.simulator.fault("close")
            await stack.until(lambda before=before: stack.sent > before + 1000)  # type: ignore[misc]
        stack.simulator.fault("refuse_429", seconds=1.0)
        stack.simulator.fault("close")
        await stack.until(lambda: stack.connector.health()["connected"] is False)
        await stack.until(lambda: stack.connector.health()["connected"] is True)
        await stack.finish()

        result = stack.check(trades=False)
        assert result.rules <= {"I5"}, result.table()
        assert result.missing > 0
