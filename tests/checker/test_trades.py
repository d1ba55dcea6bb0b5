"""The comparison of normalized trades with raw ones goes red for every field, and knows which raw trades count."""

from pathlib import Path
from typing import Any

import capnp
import pytest
import zstandard

from tests.checker.check import check
from tests.checker.conftest import DAY, World
from tests.checker.model import Archive, Record
from tests.checker.trades import raw_trade

SCHEMAS = Path(__file__).parents[2] / "schemas"


def messages(world: World) -> list[dict[str, Any]]:
    """Every archived trade of the world, as the archiver should have written it."""
    found = []
    for line in world.lines:
        if line.type == "trade" and line.seq is not None:
            trade_id = line.frame.split(b'"trade_id":"')[1].split(b'"')[0].decode()
            number = int(trade_id.rpartition("-")[2])
            found.append(
                {
                    "exchangeTime": 1,
                    "receivedTime": line.recv_ns,
                    "ticker": "TEST-1",
                    "connection": line.archived,
                    "sid": 2,
                    "seq": line.seq,
                    "priceExponent": -6,
                    "sizeExponent": -6,
                    "price": 520_000,
                    "size": number * 1_000_000 + 850_000,
                    "side": "sell",
                    "tradeId": trade_id,
                }
            )
    return found


def write(world: World, rows: list[dict[str, Any]], name: str) -> None:
    capnp.remove_import_hook()
    schema = capnp.load(str(SCHEMAS / "trade.capnp"))
    file = world.storage / "ssmd-normalized" / "kalshi" / "v1" / "trade" / DAY / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(schema.Trade.new_message(**row).to_bytes() for row in rows)
    file.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))


def findings(world: World) -> list[str]:
    return [str(each) for each in check([world.ledger], world.storage, schemas=SCHEMAS).findings]


@pytest.fixture
def archived(world: World) -> World:
    world.write_ledger()
    world.write_archive()
    return world


@pytest.mark.parametrize("name", ["_segments/s-000000000001-000000000009.capnp.zst", "TEST-1/data.capnp.zst"])
def test_equal_trades_are_green(archived: World, name: str) -> None:
    write(archived, messages(archived), name)

    assert findings(archived) == []
    assert check([archived.ledger], archived.storage, schemas=SCHEMAS).trades == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": 520_001},
        {"price": 52, "priceExponent": -3},
        {"size": 850_001},
        {"side": "buy"},
        {"seq": 99},
        {"sid": 3},
        {"ticker": "TEST-2"},
        {"tradeId": "t-x"},
        {"receivedTime": 7},
        {"connection": "c-9"},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_one_wrong_field_is_red(archived: World, wrong: dict[str, Any]) -> None:
    rows = messages(archived)
    rows[0] |= wrong
    write(archived, rows, "TEST-1/data.capnp.zst")

    assert findings(archived)


def test_another_exponent_for_the_same_value_is_green(archived: World) -> None:
    rows = messages(archived)
    rows[0] |= {"price": 52, "priceExponent": -2}
    write(archived, rows, "TEST-1/data.capnp.zst")

    assert findings(archived) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "is not in the normalized archive"),
        (lambda rows: [*rows, rows[0]], "is there twice"),
        (lambda rows: [*rows, {**rows[0], "tradeId": "invented"}], "is in no raw frame"),
    ],
    ids=["lost", "doubled", "invented"],
)
def test_a_trade_too_few_or_too_many_is_red(archived: World, change: Any, message: str) -> None:
    write(archived, change(messages(archived)), "TEST-1/data.capnp.zst")

    assert [finding for finding in findings(archived) if message in finding]


def test_a_truncated_object_is_red(archived: World) -> None:
    write(archived, messages(archived), "TEST-1/data.capnp.zst")
    file = next((archived.storage / "ssmd-normalized").rglob("*.zst"))
    file.write_bytes(file.read_bytes()[:-5])

    assert any("cannot be read" in finding for finding in findings(archived))


def test_an_odd_raw_trade_may_be_missing_and_may_be_there() -> None:
    record = Record("c", 0, 1, "trade", "", "")
    good = '{{"sid":1,"seq":2,"msg":{{"trade_id":"t","market_ticker":"A","yes_price_dollars":{},"count_fp":{},{}}}}}'
    side = '"taker_side":"yes"'

    assert raw_trade(record, good.format('"0.5"', '"1.00"', side).encode())[1]
    for odd in (('"NaN"', '"1"', side), ('"1e2"', '"1"', side), ("0.5", '"1"', side), ('"0.5"', '"1"', '"x":1')):
        trade, must = raw_trade(record, good.format(*odd).encode())
        assert trade is not None
        assert not must
    for broken in (b"", b"\xff", b"[]", b'{"msg":null}', b'{"msg":{"market_ticker":1}}', b"[" * 100_000):
        assert raw_trade(record, broken) == (None, False)
    assert Archive().count == 0
