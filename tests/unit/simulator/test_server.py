"""The exchange over real sockets: a plain client sees what the ledger says, and faults do what they say."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ssmd.errors import ConfigError, Unavailable
from ssmd.simulator.hostile import CORPUS
from ssmd.simulator.keys import make_key_pair
from ssmd.simulator.options import SimulatorOptions
from ssmd.simulator.server import Simulator, running, serve
from tests.unit.simulator.test_parts import sign
from tests.unit.simulator.test_tape import DELTA, SNAPSHOT, TRADE, write

ANY = "KXA-1-2"


class Client:
    """Keeps every message as bytes, in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[bytes] = []
        self._parsed: list[dict[str, Any]] = []
        self.ended: aiohttp.WSMsgType | None = None

    async def subscribe(self, *channels: str, **params: Any) -> None:
        await self.command("subscribe", channels=list(channels), **params)

    async def command(self, cmd: str, **params: Any) -> None:
        await self.socket.send_json({"id": 1, "cmd": cmd, "params": params})

    async def read(self, enough: Callable[["Client"], bool], seconds: float = 5.0) -> None:
        """Read until `enough` says so, the connection ends or the time is over."""
        end = time.monotonic() + seconds
        while not enough(self) and self.ended is None and (left := end - time.monotonic()) > 0:
            try:
                message = await self.socket.receive(left)
            except TimeoutError:
                return
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self.frames.append(message.data.encode() if isinstance(message.data, str) else message.data)
            else:
                self.ended = message.type

    async def read_for(self, seconds: float) -> None:
        await self.read(lambda _: False, seconds)

    def parsed(self, *types: str) -> list[dict[str, Any]]:
        self._parsed += [json.loads(frame) for frame in self.frames[len(self._parsed) :]]
        return [frame for frame in self._parsed if not types or frame["type"] in types]

    def seqs(self, sid: int) -> list[int]:
        return [frame["seq"] for frame in self.parsed() if frame.get("sid") == sid and "seq" in frame]


@asynccontextmanager
async def connected(simulator: Simulator) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(simulator.ws_url, max_msg_size=0, autoclose=False) as socket,
    ):
        yield Client(socket)


def read_ledger(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def has_snapshots(count: int, client: Client) -> bool:
    return len(client.parsed("orderbook_snapshot")) == count


def hashes(frames: list[bytes]) -> list[str]:
    return [hashlib.sha256(frame).hexdigest() for frame in frames]


def tape_of(tmp_path: Path, frames: int) -> Path:
    """A snapshot, then pairs of a change and a trade that put back and take away."""
    lines = [(0, SNAPSHOT)]
    for number in range(frames - 1):
        event = TRADE.replace("t-1", f"t-{number}") if number % 2 else DELTA.replace('"-5.50"', f'"{number % 7}.25"')
        lines.append((number, event))
    return write(tmp_path / "tape.ndjson.gz", lines)


async def test_the_ledger_is_what_arrived_and_numbers_are_contiguous(tmp_path: Path) -> None:
    options = SimulatorOptions(rate=2000, ledger=tmp_path / "ledger")
    async with running(options) as simulator, connected(simulator) as client:
        tickers = [row["ticker"] for row in simulator.source.markets() if row["status"] == "active"]
        await client.subscribe("trade", "ticker", "market_lifecycle_v2")
        await client.subscribe("orderbook_delta", market_tickers=tickers[:4])
        await client.read(lambda client: len(client.frames) > 200)
        await client.command("update_subscription", sid=4, action="add_markets", market_tickers=tickers[4:])
        await client.subscribe("orderbook_delta", market_tickers=tickers)
        await client.read(lambda client: len(client.frames) > 600)
        await client.command("unsubscribe", sids=[1, 2, 3, 4])
        await client.read(lambda client: len(client.parsed("unsubscribed")) == 4)

    ledger = read_ledger(tmp_path / "ledger")
    assert [row["sha256"] for row in ledger] == hashes(client.frames)
    assert [row["n"] for row in ledger] == list(range(len(client.frames)))
    assert [(row["sid"], row["seq"], row["type"]) for row in ledger] == [
        (frame.get("sid"), frame.get("seq"), frame["type"]) for frame in client.parsed()
    ]
    assert not any(row["dropped"] or row["hostile"] for row in ledger)
    for sid in (1, 3, 4):
        assert client.seqs(sid) == list(range(1, len(client.seqs(sid)) + 1))
    assert len(client.parsed("ok")) == 2
    assert client.parsed("trade", "ticker")


async def test_snapshot_and_changes_give_the_exchanges_own_book() -> None:
    """Each later snapshot on the same subscription must equal the book that was kept from the changes."""
    async with running(SimulatorOptions(rate=3000)) as simulator, connected(simulator) as client:
        tickers = [row["ticker"] for row in simulator.source.markets() if row["status"] == "active"]
        await client.subscribe("orderbook_delta", market_tickers=tickers)
        for round_ in (2, 3):
            await client.read_for(0.3)
            await client.command("update_subscription", sid=1, action="get_snapshot", market_tickers=tickers)
            await client.read(partial(has_snapshots, round_ * len(tickers)))

    books: dict[tuple[str, str], dict[str, Decimal]] = {}
    compared = 0
    for frame in client.parsed("orderbook_snapshot", "orderbook_delta"):
        msg = frame["msg"]
        if frame["type"] == "orderbook_delta":
            book = books[msg["market_ticker"], msg["side"]]
            size = book.pop(msg["price_dollars"], Decimal(0)) + Decimal(msg["delta_fp"])
            if size:
                book[msg["price_dollars"]] = size
            continue
        for side in ("yes", "no"):
            told = {price: Decimal(size) for price, size in msg.get(f"{side}_dollars_fp", [])}
            assert books.setdefault((msg["market_ticker"], side), told) == told
            compared += 1
    assert compared == 3 * 2 * len(tickers)
    assert len(client.parsed("orderbook_delta")) > 300


async def test_a_tape_arrives_verbatim_but_for_its_numbers(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, 301)
    options = SimulatorOptions(tapes=(tape,), speed=0, settle_s=0.05, ledger=tmp_path / "ledger")
    async with running(options) as simulator, connected(simulator) as client:
        await client.subscribe("trade")
        await client.subscribe("orderbook_delta", market_tickers=[ANY])
        await client.read(lambda client: len(client.frames) >= 304)
        await client.read_for(0.1)
        state = simulator.state()

    assert state["source"]["finished"]
    assert len(client.frames) == state["frames"] == 2 + 1 + 301
    played = client.frames[3:]
    assert b'"price_dollars":"0.2000","delta_fp":"0.25","side":"yes","ts":"2026-08-11T01:15:15.5Z"' in played[1]
    assert played[1].startswith(b'{"type":"orderbook_delta","sid":2,"seq":3,"msg":{')
    assert client.seqs(1) == list(range(1, 151))
    assert client.seqs(2) == list(range(1, 153))
    assert [row["sha256"] for row in read_ledger(tmp_path / "ledger")] == hashes(client.frames)


async def test_a_late_client_gets_the_book_as_it_is_now(tmp_path: Path) -> None:
    options = SimulatorOptions(tapes=(tape_of(tmp_path, 41),), speed=0, settle_s=0.01)
    async with running(options) as simulator:
        async with connected(simulator) as first:
            await first.subscribe("orderbook_delta", market_tickers=[ANY])
            await first.read(lambda client: simulator.state()["source"]["finished"])
        async with connected(simulator) as second:
            await second.subscribe("orderbook_delta", market_tickers=[ANY])
            await second.read(lambda client: len(client.frames) == 2)

    sizes = [Decimal(f"{number % 7}.25") for number in range(0, 40, 2)]
    levels = dict(second.parsed("orderbook_snapshot")[0]["msg"]["yes_dollars_fp"])
    assert Decimal(levels["0.2000"]) == Decimal("5.50") + sum(sizes)


async def test_only_signed_clients_are_let_in(tmp_path: Path) -> None:
    key_id, private, public = make_key_pair(tmp_path, "ed25519")
    async with (
        running(SimulatorOptions(keys=((key_id, public),))) as simulator,
        aiohttp.ClientSession() as session,
    ):
        headers = sign(private, key_id, time.time_ns() // 1_000_000)
        async with session.ws_connect(simulator.ws_url, headers=headers) as socket:
            await socket.send_json({"id": 3, "cmd": "list_subscriptions"})
            assert (await socket.receive_json())["msg"] == []
        late = sign(private, key_id, time.time_ns() // 1_000_000 - 6_000)
        for refused in ({}, late, {**headers, "kalshi-access-key": "someone"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(simulator.ws_url, headers=refused)
            assert error.value.status == 401
        async with session.get(f"{simulator.rest_url}/markets", headers={**headers}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (401, "authentication_error")


async def test_pings_come_from_both_sides(tmp_path: Path) -> None:
    async with (
        running(SimulatorOptions(heartbeat_s=0.05, rate=1)) as simulator,
        aiohttp.ClientSession() as session,
        session.ws_connect(simulator.ws_url, autoping=False) as socket,
    ):
        message = await socket.receive(2)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PING, b"heartbeat")
        await socket.ping(b"are you there")
        while (message := await socket.receive(2)).type is not aiohttp.WSMsgType.PONG:
            pass
        assert bytes(message.data) == b"are you there"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Simulator, Client]]:
    """A busy exchange and a client of its trades and two books."""
    async with (
        running(SimulatorOptions(rate=2000, ledger=tmp_path / "ledger")) as simulator,
        connected(simulator) as client,
    ):
        tickers = [row["ticker"] for row in simulator.source.markets() if row["status"] == "active"]
        await client.subscribe("trade")
        await client.subscribe("orderbook_delta", market_tickers=tickers)
        await client.read(lambda client: len(client.frames) > 50)
        yield simulator, client


async def test_dropped_frames_are_in_the_ledger_and_leave_a_hole(
    pair: tuple[Simulator, Client], tmp_path: Path
) -> None:
    simulator, client = pair
    simulator.fault("drop", n=5, channel="trade")
    await client.read(lambda client: client.seqs(1)[-1] - len(client.seqs(1)) == 5)

    seqs = client.seqs(1)
    holes = sorted(set(range(1, seqs[-1] + 1)) - set(seqs))
    assert len(holes) == 5
    assert holes[-1] - holes[0] == 4
    dropped = [row for row in read_ledger(tmp_path / "ledger") if row["dropped"]]
    assert [(row["sid"], row["seq"]) for row in dropped] == [(1, seq) for seq in holes]
    arrived = [row["sha256"] for row in read_ledger(tmp_path / "ledger") if not row["dropped"]]
    assert hashes(client.frames) == arrived[: len(client.frames)]


async def test_a_clean_close_has_its_code_and_nothing_after(pair: tuple[Simulator, Client]) -> None:
    simulator, client = pair
    simulator.fault("close", code=1012)
    await client.read_for(2)

    assert client.ended is aiohttp.WSMsgType.CLOSE
    assert client.socket.close_code == 1012
    assert simulator.connections == []


async def test_an_abort_resets_the_connection_in_the_middle_of_a_frame(
    pair: tuple[Simulator, Client], tmp_path: Path
) -> None:
    simulator, client = pair
    simulator.fault("abort")
    await client.read_for(2)

    assert client.ended in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSING)
    assert client.socket.close_code == 1006
    last = read_ledger(tmp_path / "ledger")[-1]
    assert (last["type"], last["dropped"]) == ("orderbook_snapshot", True)
    assert last["sha256"] not in hashes(client.frames)


async def test_a_half_open_connection_swallows_frames_while_new_ones_work(
    pair: tuple[Simulator, Client], tmp_path: Path
) -> None:
    simulator, client = pair
    simulator.fault("half_open", seconds=0.5)
    await client.read_for(0.2)
    count = len(client.frames)
    await client.command("list_subscriptions")
    await client.read_for(0.15)
    async with connected(simulator) as other:
        await other.subscribe("trade")
        await other.read(lambda other: len(other.frames) > 3)

    assert len(client.frames) == count
    assert len(other.frames) > 3
    rows = [row for row in read_ledger(tmp_path / "ledger") if row["conn"].endswith("-1")]
    assert sum(row["dropped"] for row in rows) > 50
    await client.read_for(2)
    assert client.socket.close_code == 1006


@pytest.mark.parametrize("frozen", [False, True], ids=["stall", "frozen"])
async def test_a_stall_holds_data_and_answers_and_resumes_without_loss(
    pair: tuple[Simulator, Client], frozen: bool
) -> None:
    simulator, client = pair
    simulator.fault("stall", seconds=0.6, frozen=frozen)
    await client.read_for(0.1)
    count = len(client.frames)
    await client.command("update_subscription", sid=1, action="add_markets", market_tickers=["A"])
    await client.read_for(0.3)
    assert len(client.frames) == count

    await client.read(lambda client: len(client.frames) > count + 100)
    assert client.seqs(1) == list(range(1, len(client.seqs(1)) + 1))
    assert len(client.parsed("ok")) == 1


async def test_hostile_frames_arrive_byte_for_byte(pair: tuple[Simulator, Client], tmp_path: Path) -> None:
    """A client that checks UTF-8 would leave: this one reads the stream itself."""
    simulator, _ = pair
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port, limit=1 << 24)
    writer.write(
        b"GET /trade-api/ws/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    simulator.fault("hostile", connection=simulator.connections[-1].name)
    unnumbered = [hostile for hostile in CORPUS if hostile.channel is None]
    received = [await read_message(reader) for _ in unnumbered]
    writer.close()
    await writer.wait_closed()

    assert received == [hostile.payload(0, 0) for hostile in unnumbered]
    rows = [row for row in read_ledger(tmp_path / "ledger") if row["hostile"]]
    assert [row["sha256"] for row in rows] == hashes(received)
    assert [row["bytes"] for row in rows] == [len(frame) for frame in received]


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One message of the server, fragments joined."""
    message = b""
    while True:
        first, size = await reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await reader.readexactly(8), "big")
        payload = await reader.readexactly(size)
        if first & 0x0F in (0, 1, 2):
            message += payload
            if first & 0x80:
                return message


async def test_numbered_hostile_frames_keep_the_sequence(pair: tuple[Simulator, Client]) -> None:
    simulator, client = pair
    numbered = [hostile for hostile in CORPUS if hostile.channel]
    for hostile in numbered:
        simulator.connections[0].send_hostile(hostile)
    await client.read(lambda client: client.frames[-1].count(b"snapshot-odd") > 0, 0.5)

    for sid in (1, 2):
        assert client.seqs(sid) == list(range(1, len(client.seqs(sid)) + 1))
    assert len([frame for frame in client.frames if b"h-13" in frame]) == 1


@pytest.mark.parametrize(("fault", "change"), [("seq_gap", 7), ("seq_back", -3)])
async def test_numbers_jump_on_demand(pair: tuple[Simulator, Client], fault: str, change: int) -> None:
    simulator, client = pair
    simulator.fault(fault, n=abs(change), channel="orderbook_delta")
    await client.read_for(0.2)

    steps = {after - before for before, after in zip(client.seqs(2), client.seqs(2)[1:], strict=False)}
    assert steps == {1, 1 + change}


async def test_an_overflow_ends_the_subscriptions_but_not_the_connection(pair: tuple[Simulator, Client]) -> None:
    simulator, client = pair
    simulator.fault("overflow")
    await client.read(lambda client: len(client.parsed("error")) == 2)
    count = len(client.frames)
    await client.read_for(0.1)

    assert [error["msg"]["code"] for error in client.parsed("error")] == [25, 25]
    assert len(client.frames) == count
    await client.subscribe("trade")
    await client.read(lambda client: bool(client.parsed("subscribed")[2:]))
    assert client.parsed("subscribed")[2]["msg"] == {"channel": "trade", "sid": 3}


@pytest.mark.parametrize(
    ("fault", "status", "body"), [("refuse_401", 401, "unauthorized"), ("refuse_429", 429, "too many requests")]
)
async def test_new_connections_are_refused_for_a_while(
    pair: tuple[Simulator, Client], fault: str, status: int, body: str
) -> None:
    simulator, client = pair
    simulator.fault(fault, seconds=0.3)
    async with aiohttp.ClientSession() as session:
        async with session.get(simulator.ws_url.replace("ws:", "http:")) as answer:
            assert answer.status == status
            assert body in (await answer.text())
        await asyncio.sleep(0.3)
        async with session.ws_connect(simulator.ws_url):
            pass
    count = len(client.frames)
    await client.read(lambda client: len(client.frames) > count)  # the old one never noticed
    assert len(client.frames) > count


async def test_faults_and_state_over_http() -> None:
    async with running(SimulatorOptions()) as simulator, aiohttp.ClientSession() as session:
        order = {"fault": "rest_429", "seconds": 0.2}
        async with session.post(f"{simulator.control_url}/fault", json=order) as answer:
            record = await answer.json()
        assert record["end_ns"] - record["start_ns"] == 200_000_000
        async with session.get(f"{simulator.rest_url}/markets") as answer:
            assert (answer.status, await answer.json()) == (429, {"error": "too many requests"})
        async with session.get(f"{simulator.control_url}/state") as answer:
            state = await answer.json()
        assert state["faults"] == [record]
        assert state["connections"] == []
        unknown: list[Any] = [
            {"fault": "earthquake"},
            {"fault": "drop", "n": "many"},
            {"fault": "drop", "count": 1},
            [],
        ]
        for wrong in unknown:
            async with session.post(f"{simulator.control_url}/fault", json=wrong) as answer:
                assert answer.status == 400
        with pytest.raises(ConfigError, match="seconds"):
            simulator.fault("stall", seconds="long")


async def test_pages_follow_the_cursor_to_the_end() -> None:
    async with running(SimulatorOptions(rate=5000, strikes=4)) as simulator, aiohttp.ClientSession() as session:
        await asyncio.sleep(0.1)

        async def get(path: str, **params: Any) -> tuple[int, Any]:
            async with session.get(simulator.rest_url + path, params=params) as answer:
                return answer.status, await answer.json()

        seen: list[str] = []
        cursor = ""
        while True:
            _, page = await get("/markets", limit=5, status="open", cursor=cursor)
            seen += [market["ticker"] for market in page["markets"]]
            cursor = page["cursor"]
            if not cursor:
                break
        assert seen == [row["ticker"] for row in simulator.source.markets() if row["status"] == "active"]
        assert len(seen) == 12
        assert len((await get("/markets", status="unopened"))[1]["markets"]) == 12
        assert (await get("/markets", limit=1001))[0] == 400
        assert (await get("/markets", status="active"))[0] == 400
        assert (await get("/markets", status="open", min_close_ts=1))[0] == 400
        assert (await get("/markets", cursor="%%%"))[0] == 400
        assert (await get("/markets/NOPE"))[1]["code"] == "not_found"
        assert (await get("/nowhere"))[1]["error"]["code"] == "not_found"
        assert (await get(f"/markets/{seen[0]}"))[1]["market"]["ticker"] == seen[0]
        book = (await get(f"/markets/{seen[0]}/orderbook", depth=2))[1]["orderbook_fp"]
        assert book.keys() == {"yes_dollars", "no_dollars"}
        assert len(book["yes_dollars"]) <= 2
        trades = (await get("/markets/trades", limit=3))[1]
        assert len(trades["trades"]) == 3
        assert trades["cursor"]
        times = [trade["created_time"] for trade in trades["trades"]]
        assert times == sorted(times, reverse=True)
        event = (await get("/events", limit=1, with_nested_markets="true", status="open"))[1]["events"][0]
        assert len(event["markets"]) == 4
        assert len((await get(f"/events/{event['event_ticker']}"))[1]["markets"]) == 4
        assert (await get("/exchange/status"))[1]["trading_active"] is True
        assert "thursday" in (await get("/exchange/schedule"))[1]["schedule"]["standard_hours"][0]
        assert (await get("/series/TEST-BTC15M"))[1]["series"]["frequency"] == "fifteen_min"


async def test_a_pooled_connection_that_served_rest_may_be_upgraded() -> None:
    async with running(SimulatorOptions()) as simulator, aiohttp.ClientSession() as session:
        async with session.get(f"{simulator.rest_url}/exchange/status") as answer:
            assert answer.status == 200
        async with session.ws_connect(simulator.ws_url) as socket:
            await socket.send_json({"id": 3, "cmd": "list_subscriptions"})
            assert (await socket.receive_json())["id"] == 3
        assert simulator.state()["connections_total"] == 1


async def test_a_taken_port_is_a_clear_error() -> None:
    async with running(SimulatorOptions()) as simulator:
        with pytest.raises(Unavailable, match=f"{simulator.port} is taken"):
            async with running(SimulatorOptions(port=simulator.port)):
                pass


async def test_serve_runs_until_cancelled() -> None:
    ready = asyncio.Event()
    task = asyncio.create_task(serve(SimulatorOptions(), ready))
    await asyncio.wait_for(ready.wait(), 5)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
