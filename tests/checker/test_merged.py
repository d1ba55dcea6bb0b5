"""Two overlapping connections are green when they are merged once; an event twice or lost at the cut goes red."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import capnp
import pytest
import zstandard

from tests.checker.check import check
from tests.checker.conftest import DAY, MS, START_NS, Line, World, gap

SCHEMAS = Path(__file__).parents[2] / "schemas"
STEP_NS = 10 * MS
OLD_ENDS, ALL = 30, 60  # events; the second connection has them all, the first one the first half
LATER_NS = 3 * MS  # the second connection gets everything so much later

Rows = list[dict[str, Any]]


def trade_frame(number: int) -> bytes:
    msg = (
        f'{{"trade_id":"t-{number}","market_ticker":"TEST-1","yes_price_dollars":"0.5200","count_fp":"1.00",'
        f'"taker_side":"no","taker_outcome_side":"no","ts_ms":{START_NS // MS + number}}}'
    )
    return f'{{"type":"trade","sid":2,"seq":{number + 1},"msg":{msg}}}'.encode()


def quote_frame(number: int) -> bytes:
    msg = {
        "market_ticker": "TEST-1", "ts_ms": START_NS // MS + number, "yes_bid_dollars": "0.5000",
        "yes_ask_dollars": "0.5200", "price_dollars": "0.5200", "yes_bid_size_fp": f"{number}.00",
        "yes_ask_size_fp": "1.00", "last_trade_size_fp": "1.00", "volume_fp": "7.00", "open_interest_fp": "3.00",
    }  # fmt: skip
    return json.dumps({"type": "ticker", "sid": 3, "msg": msg}).encode()


class Overlap(World):
    """Trade and quote in turn; `old` and `new` are what each connection brought, by number of the event."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for sent, archived, count, late_ns in (("x-1", "c-1", OLD_ENDS, 0), ("x-2", "c-2", ALL, LATER_NS)):
            for number in range(count):
                kind, sid = ("ticker", 3) if number % 2 else ("trade", 2)
                frame = quote_frame(number) if number % 2 else trade_frame(number)
                at_ns = START_NS + number * STEP_NS + late_ns
                seq = None if number % 2 else number + 1
                # what makes frames of two connections differ on the wire
                frame = frame[:-1] + b',"via":"' + archived.encode() + b'"}'
                self.lines.append(Line(sent, archived, number, kind, sid, seq, frame, at_ns))
        self.first_n: int | None = OLD_ENDS
        self.also: list[list[int]] = []
        self.ended_n: int | None = OLD_ENDS - 1
        self.before = "c-1"

    @property
    def begins_ns(self) -> int:
        """When the first frame of the new connection came."""
        return next(line for line in self.lines if line.archived == "c-2").recv_ns

    @property
    def takes_over_ns(self) -> int:
        """When the frame before the cut came; a nanosecond after the first one when there is none."""
        before = [line.recv_ns for line in self.lines if line.archived == "c-2" and line.n < (self.first_n or 0)]
        return max(before, default=self.begins_ns + 1)

    def begin_late(self, number: int) -> None:
        """The new connection brings nothing before an event; all of it is published."""
        self.lines = [line for line in self.lines if line.archived == "c-1" or line.n >= number]
        for n, line in enumerate(line for line in self.lines if line.archived == "c-2"):
            line.n = n
        self.first_n = 0

    def lag(self, connection: str, from_number: int, late_ns: int) -> None:
        """A connection brings everything from an event on so much later."""
        for line in self.lines:
            if line.archived == connection and line.n >= from_number:
                line.t_ns += late_ns

    def line(self, connection: str, number: int) -> Line:
        """The frame that brought an event over a connection."""
        return next(line for line in self.lines if line.archived == connection and line.n == number)

    def write(self, rows: Rows) -> None:
        """Ledger, archive, handovers and the normalized archive."""
        self.write_ledger()
        self.write_archive()
        folder = self.day / "_handovers"
        folder.mkdir()
        for at_ns, first_n, old in (
            (self.begins_ns, None, ""),
            (self.takes_over_ns, self.first_n, self.before),
        ):
            record = {
                "feed": "kalshi", "to": "c-2", "at_ns": at_ns, "first_n": first_n, "from": old, "last_n": None,
                "also": self.also if old else [],
            }  # fmt: skip
            if old and self.ended_n is not None:  # records of before say nothing about it
                record["ended_n"] = self.ended_n
            (folder / f"{at_ns}-c-2.json").write_text(json.dumps(record))
        capnp.remove_import_hook()
        for kind, name in (("trade", "Trade"), ("ticker", "Quote")):
            struct = getattr(capnp.load(str(SCHEMAS / f"{kind}.capnp")), name)
            its = [made for made in rows if ("tradeId" in made) == (kind == "trade")]
            content = b"".join(struct.new_message(**made).to_bytes() for made in its)
            file = self.storage / "ssmd-normalized" / "kalshi" / "v1" / kind / DAY / "TEST-1" / "data.capnp.zst"
            file.parent.mkdir(parents=True)
            file.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))

    def findings(self) -> list[str]:
        return [str(each) for each in check([self.ledger], self.storage, schemas=SCHEMAS).findings]


def row(line: Line) -> dict[str, Any]:
    """The event of a frame, as it should have been written."""
    msg = json.loads(line.frame)["msg"]
    made = {
        "exchangeTime": msg["ts_ms"] * MS, "receivedTime": line.recv_ns, "ticker": "TEST-1",
        "connection": line.archived, "sid": line.sid, "seq": line.seq or 0,
    }  # fmt: skip
    if line.type == "trade":
        return made | {"price": 520_000, "size": 1_000_000, "side": "sell", "tradeId": msg["trade_id"]}
    sizes = {"bidSize": "yes_bid_size_fp", "askSize": "yes_ask_size_fp", "lastSize": "last_trade_size_fp"}
    sizes |= {"volume": "volume_fp", "openInterest": "open_interest_fp"}
    prices = {"bid": "yes_bid_dollars", "ask": "yes_ask_dollars", "last": "price_dollars"}
    return made | {name: int(Decimal(msg[text]) * 1_000_000) for name, text in (sizes | prices).items()}


@pytest.fixture
def overlap(tmp_path: Path) -> Overlap:
    return Overlap(tmp_path)


def merged(overlap: Overlap, cut: int = OLD_ENDS) -> Rows:
    """The old connection's events to its end, the new one's from frame `cut` on."""
    old = [row(overlap.line("c-1", number)) for number in range(OLD_ENDS)]
    return old + [row(overlap.line("c-2", number)) for number in range(cut, ALL)]


def test_two_connections_that_are_merged_once_are_green(overlap: Overlap) -> None:
    overlap.write(merged(overlap))

    assert overlap.findings() == []


def test_an_event_of_before_the_cut_is_green_when_the_record_names_it(overlap: Overlap) -> None:
    for number in (OLD_ENDS - 2, OLD_ENDS - 1):  # the old connection lost them
        overlap.lines.remove(overlap.line("c-1", number))
    overlap.ended_n = OLD_ENDS - 3
    overlap.also = [[OLD_ENDS - 2, OLD_ENDS - 1]]
    old = [row(overlap.line("c-1", number)) for number in range(OLD_ENDS - 2)]
    overlap.write(old + [row(overlap.line("c-2", number)) for number in range(OLD_ENDS - 2, ALL)])

    assert overlap.findings() == []


def twice_trade(rows: Rows, overlap: Overlap) -> Rows:
    return [*rows, row(overlap.line("c-2", OLD_ENDS - 2))]


def twice_quote(rows: Rows, overlap: Overlap) -> Rows:
    return [*rows, rows[1]]


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (twice_trade, "is there twice"),
        (twice_quote, "is there 2 times"),
        (lambda rows, _: rows[:OLD_ENDS] + rows[OLD_ENDS + 1 :], "is not in the normalized archive"),
        (lambda rows, _: rows[: OLD_ENDS - 1] + rows[OLD_ENDS:], "is not in the normalized archive"),
        (lambda rows, _: rows[: OLD_ENDS + 1] + rows[OLD_ENDS + 2 :], "is not in the normalized archive"),
    ],
    ids=["trade twice", "quote twice", "first trade lost", "last quote of the old one lost", "first quote lost"],
)
def test_an_event_twice_or_lost_at_the_cut_is_red(
    overlap: Overlap, plant: Callable[[Rows, Overlap], Rows], message: str
) -> None:
    overlap.write(plant(merged(overlap), overlap))

    assert [finding for finding in overlap.findings() if message in finding], overlap.findings()


def test_a_quote_from_both_connections_is_red(overlap: Overlap) -> None:
    overlap.also = [[OLD_ENDS - 1, OLD_ENDS - 1]]
    overlap.write([*merged(overlap), row(overlap.line("c-2", OLD_ENDS - 1))])

    assert any("is there from" in finding for finding in overlap.findings())


def test_a_cut_that_comes_too_late_is_red_even_if_raw_and_normalized_agree(overlap: Overlap) -> None:
    overlap.first_n = OLD_ENDS + 6
    overlap.write(merged(overlap, OLD_ENDS + 6))

    assert any("stood by, and no other one brought it" in finding for finding in overlap.findings())
    assert any("M " in finding and "is not in the normalized archive" in finding for finding in overlap.findings())


def test_a_record_that_nobody_can_read_is_red(overlap: Overlap) -> None:
    overlap.write(merged(overlap))
    for file in (overlap.day / "_handovers").iterdir():
        file.write_bytes(file.read_bytes()[:-9])

    assert any("is not a handover object" in finding for finding in overlap.findings())


def test_a_record_that_does_not_say_where_the_old_one_ended_is_green(overlap: Overlap) -> None:
    overlap.ended_n = None
    overlap.write(merged(overlap))

    assert overlap.findings() == []


@pytest.mark.parametrize(("connection", "number"), [("c-1", OLD_ENDS - 9), ("c-2", 5)])
def test_a_connection_that_lags_for_seconds_is_green(overlap: Overlap, connection: str, number: int) -> None:
    overlap.lag(connection, number, 4_000 * MS)
    overlap.write(merged(overlap))

    assert overlap.findings() == []


def test_a_tail_of_the_old_one_that_is_not_archived_is_red(overlap: Overlap) -> None:
    overlap.ended_n = OLD_ENDS + 4
    overlap.write(merged(overlap))

    (finding,) = overlap.findings()
    assert "c-1 ends with frame 29, it captured 34" in finding


def test_an_old_connection_that_is_not_there_is_red(overlap: Overlap) -> None:
    overlap.before = "c-9"
    overlap.first_n = 0
    overlap.lines = [line for line in overlap.lines if line.archived == "c-2"]
    overlap.write([row(overlap.line("c-2", number)) for number in range(ALL)])

    (finding,) = overlap.findings()
    assert "no frame of c-9 is there" in finding


def test_a_record_that_ends_a_connection_which_only_stood_by_is_red(overlap: Overlap) -> None:
    overlap.write(merged(overlap))
    record = {"feed": "kalshi", "to": "c-1", "at_ns": START_NS, "first_n": None, "from": "", "last_n": None, "also": []}
    (overlap.day / "_handovers" / f"{START_NS}-c-1.json").write_text(json.dumps(record))

    assert any("c-1 only stood by" in finding for finding in overlap.findings())


@pytest.mark.parametrize("explained", [True, False])
def test_a_hole_between_two_connections_is_red_unless_a_gap_covers_it(overlap: Overlap, explained: bool) -> None:
    begins = OLD_ENDS + 8  # 90 ms after the last event of the old one; 10 ms are between others
    overlap.begin_late(begins)
    rows = [row(overlap.line("c-1", number)) for number in range(OLD_ENDS)]
    rows += [row(overlap.line("c-2", number)) for number in range(ALL - begins)]
    if explained:
        overlap.gaps.append(gap("c-1", None, rows[OLD_ENDS - 1]["receivedTime"], overlap.begins_ns, "startup"))
    overlap.write(rows)

    holes = [finding for finding in overlap.findings() if "are in no gap" in finding]
    assert len(holes) == (not explained)
    assert explained or "0.093 s" in holes[0]
