"""A small correct archive with its ledger, made by hand."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

START_NS = 1_786_410_915_000_000_000  # 2026-08-11
MS = 1_000_000
DAY = "2026/08/11"
GROUPS = {"trade": "trades", "orderbook_delta": "orderbook", "orderbook_snapshot": "orderbook", "ticker": "ticker"}


@dataclass(slots=True)
class Line:
    """A frame that was sent and, unless `lost`, archived."""

    sent: str
    archived: str
    n: int
    type: str
    sid: int | None
    seq: int | None
    frame: bytes
    t_ns: int
    lost: bool = False

    @property
    def recv_ns(self) -> int:
        """Half a millisecond under way."""
        return self.t_ns + MS // 2

    def text(self) -> bytes:
        """The raw line."""
        head = {
            "ts": self.recv_ns // MS,
            "type": self.type,
            "conn": self.archived,
            "n": self.n,
            "recv_ns": self.recv_ns,
        }
        return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"data":' + self.frame + b"}"


@dataclass(slots=True)
class World:
    """Writes ledger and archive; a test changes the archived lines or the files in between."""

    folder: Path
    lines: list[Line] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def day(self) -> Path:
        return self.storage / "ssmd-raw" / "kalshi" / DAY

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.ndjson"

    def write_ledger(self) -> None:
        """What was sent; lost frames are in it."""
        counts: dict[str, int] = {}
        rows = []
        for line in self.lines:
            n = counts.get(line.sent, 0)
            counts[line.sent] = n + 1
            digest = hashlib.sha256(line.frame).hexdigest()
            rows.append(
                {
                    "t_ns": line.t_ns,
                    "conn": line.sent,
                    "n": n,
                    "sid": line.sid,
                    "seq": line.seq,
                    "type": line.type,
                    "ticker": "TEST-1" if line.sid else None,
                    "sha256": digest,
                    "bytes": len(line.frame),
                    "dropped": line.lost,
                    "hostile": False,
                }
            )
        self.ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_archive(self) -> None:
        """Objects of two segments per group, manifests and gaps."""
        (self.day / "_manifest").mkdir(parents=True)
        (self.day / "_gaps").mkdir()
        groups: dict[str, list[Line]] = {}
        for line in self.lines:
            if not line.lost:
                groups.setdefault(GROUPS.get(line.type, "control"), []).append(line)
        for group, lines in groups.items():
            half = (len(lines) + 1) // 2
            for number, part in enumerate((lines[:half], lines[half:])):
                if part:
                    self.write_object(f"{group}-{number:02d}", part)
        for gap in self.gaps:
            (self.day / "_gaps" / f"{gap['to_ns']}-{gap['connection']}.json").write_text(json.dumps(gap))

    def write_object(self, name: str, lines: list[Line], **wrong: Any) -> None:
        """One object of several zstd frames and its manifest; `wrong` overrides what the manifest says."""
        compress = zstandard.ZstdCompressor(write_checksum=True).compress
        data = b"".join(
            compress(b"".join(line.text() + b"\n" for line in lines[at : at + 7])) for at in range(0, len(lines), 7)
        )
        (self.day / f"{name}.jsonl.zst").write_bytes(data)
        spans: dict[str, dict[str, int]] = {}
        for line in lines:
            span = spans.setdefault(line.archived, {"first_n": line.n, "last_n": line.n})
            span["first_n"], span["last_n"] = min(span["first_n"], line.n), max(span["last_n"], line.n)
        manifest = {
            "key": f"kalshi/{DAY}/{name}.jsonl.zst",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "records": len(lines),
            "first_ns": min(line.recv_ns for line in lines),
            "last_ns": max(line.recv_ns for line in lines),
            "connections": spans,
        }
        (self.day / "_manifest" / f"{name}.json").write_text(json.dumps({**manifest, **wrong}))

    def archived(self, group: str, number: int) -> list[Line]:
        """The lines of one object, as `write_archive` cuts them."""
        lines = [line for line in self.lines if not line.lost and GROUPS.get(line.type, "control") == group]
        half = (len(lines) + 1) // 2
        return lines[half:] if number else lines[:half]


def _connection(world: World, sent: str, archived: str, start_ns: int, lost: range) -> None:
    """Two acknowledgements, then deltas on sid 1 and trades on sid 2; the deltas of `lost` never arrive."""
    frames: list[tuple[str, int | None, int | None, bytes]] = []
    for sid, channel in ((1, "orderbook_delta"), (2, "trade")):
        ack = {"type": "subscribed", "id": sid, "msg": {"channel": channel, "sid": sid}, "sent": start_ns}
        frames.append(("subscribed", None, None, json.dumps(ack).encode()))
    for number in range(40):
        msg = f'{{"market_ticker":"TEST-1","price_dollars":"0.{number + 10:02d}00","delta_fp":"1.00","side":"yes"}}'
        frame = f'{{"type":"orderbook_delta","sid":1,"seq":{number + 1},"msg":{msg},"sending_ts_ms":{start_ns}}}'
        frames.append(("orderbook_delta", 1, number + 1, frame.encode()))
        if number % 4 == 0:
            trade = (
                f'{{"trade_id":"t-{sent}-{number}","market_ticker":"TEST-1","yes_price_dollars":"0.5200",'
                f'"count_fp":"{number}.85","taker_side":"no","taker_outcome_side":"no","ts_ms":{start_ns // MS}}}'
            )
            frame = f'{{"type":"trade","sid":2,"seq":{number // 4 + 1},"msg":{trade}}}'
            frames.append(("trade", 2, number // 4 + 1, frame.encode()))
    n = 0
    for index, (kind, its_sid, seq, content) in enumerate(frames):
        is_lost = kind == "orderbook_delta" and seq is not None and seq in lost
        world.lines.append(Line(sent, archived, n, kind, its_sid, seq, content, start_ns + index * 10 * MS, is_lost))
        n += not is_lost


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two connections, one second between them; on the second, deltas 10 to 12 are lost on the way."""
    made = World(tmp_path)
    _connection(made, "x-1", "c-1", START_NS, range(0))
    _connection(made, "x-2", "c-2", START_NS + 1_600 * MS, range(10, 13))
    first = [line for line in made.lines if line.sent == "x-1"]
    second = [line for line in made.lines if line.sent == "x-2"]
    around = [line for line in second if line.sid == 1 and line.seq in (9, 13)]
    made.gaps = [
        gap("c-1", None, first[-1].recv_ns, second[0].recv_ns, "connection_lost"),
        gap("c-2", 1, around[0].recv_ns, around[1].recv_ns, "sequence_gap"),
    ]
    return made


def gap(connection: str, sid: int | None, from_ns: int, to_ns: int, reason: str) -> dict[str, Any]:
    """A gap object's content."""
    return {
        "feed": "kalshi",
        "connection": connection,
        "sid": sid,
        "from_ns": from_ns,
        "to_ns": to_ns,
        "reason": reason,
        "last_seq": None,
        "next_seq": None,
        "tickers": None,
    }
