"""Reads ledgers, raw objects, manifests and gap objects from a folder, with the standard library and zstd only."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from tests.checker.model import Archive, Entry, Finding, Gap, Handover, Record

_DAY = re.compile(r"(\d{4})/(\d{2})/(\d{2})/(.+)")
_RAW_NAME = re.compile(r"(trades|orderbook|ticker|lifecycle|control)(-[a-z0-9-]+?)?-(\d{2,})\.jsonl\.zst")
_STRING = rb'("(?:[^"\\]|\\.)*")'
_LINE = re.compile(
    rb'\{"ts":(\d+),"type":' + _STRING + rb',"conn":' + _STRING + rb',"n":(\d+),"recv_ns":(\d+),"data(_b64)?":'
)
_CHUNK = 1 << 20


class Unreadable(Exception):
    """An object is not what it should be."""


def read_ledger(files: Iterable[Path]) -> dict[str, list[Entry]]:
    """Entries by connection, in the order in which they were sent."""
    connections: dict[str, list[Entry]] = {}
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                row = json.loads(line)
                entries = connections.setdefault(row["conn"], [])
                if row["n"] != len(entries):
                    raise ValueError(f"{file}: connection {row['conn']} has n {row['n']} after {len(entries)} lines")
                entries.append(
                    Entry(
                        len(entries),
                        row["t_ns"],
                        row["conn"],
                        row["sid"],
                        row["seq"],
                        row["type"],
                        row["ticker"],
                        row["sha256"],
                        row["dropped"],
                    )
                )
    return connections


def decompress(data: bytes) -> Iterator[bytes]:
    """The content of each zstd frame; a frame that is cut or damaged is an error, not an end."""
    while data:
        frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        try:
            content = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise Unreadable(f"damaged zstd frame ({error})") from error
        if not frame.eof:
            raise Unreadable("the last zstd frame is truncated")
        data = frame.unused_data
        yield content


def split_line(line: bytes) -> tuple[str, str, int, int, int, bytes]:
    """(type, connection, n, recv_ns, ts, frame): the frame is cut out by bytes, never parsed."""
    head = _LINE.match(line)
    if head is None or not line.endswith(b"}"):
        raise Unreadable(f"not a raw line: {line[:120]!r}")
    rest = line[head.end() : -1]
    if head[6]:
        try:
            rest = base64.b64decode(json.loads(rest), validate=True)
        except (ValueError, TypeError, binascii.Error) as error:
            raise Unreadable(f"data_b64 is not base64: {line[:120]!r}") from error
    return json.loads(head[2]), json.loads(head[3]), int(head[4]), int(head[5]), int(head[1]), rest


def read_archive(storage: Path, feed: str, bucket: str = "ssmd-raw") -> Archive:
    """All raw objects, manifests and gaps of a feed; what is wrong with an object by itself is a finding already."""
    archive = Archive()
    root = storage / bucket / feed
    manifests: set[str] = set()
    names: set[str] = set()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        key = f"{feed}/{file.relative_to(root).as_posix()}"
        match = _DAY.fullmatch(key.removeprefix(f"{feed}/"))
        rest = match[4] if match else ""
        if rest.startswith("_gaps/") and rest.endswith(".json"):
            _read_gap(archive, key, file, feed)
        elif rest.startswith("_handovers/") and rest.endswith(".json"):
            _read_handover(archive, key, file, feed)
        elif rest.startswith("_manifest/") and rest.endswith(".json"):
            manifests.add(key)
        elif match and _RAW_NAME.fullmatch(rest):
            names.add(key)
            day = f"{match[1]}-{match[2]}-{match[3]}"
            manifest = file.parent / "_manifest" / f"{rest.removesuffix('.jsonl.zst')}.json"
            _read_object(archive, key, file, manifest, day)
        else:
            archive.findings.append(Finding("I9", key, "is neither a raw object, a manifest, a gap nor a handover"))
    for key in sorted(manifests):
        folder, _, name = key.partition("/_manifest/")
        if f"{folder}/{name.removesuffix('.json')}.jsonl.zst" not in names:
            archive.findings.append(Finding("I9", key, "describes an object that is not there"))
    for records in archive.records.values():
        records.sort(key=lambda record: record.n)
    return archive


def _read_object(archive: Archive, key: str, file: Path, manifest: Path, day: str) -> None:
    data = file.read_bytes()
    archive.objects += 1
    archive.size += len(data)
    try:
        records = list(_records(archive, key, data, day))
    except Unreadable as error:
        archive.findings.append(Finding("I9", key, str(error)))
        return
    for record in records:
        archive.records.setdefault(record.connection, []).append(record)
    last: dict[str, int] = {}
    for record in records:
        if record.n <= last.get(record.connection, -1):
            message = f"{record.connection} n {record.n} stands after n {last[record.connection]}"
            archive.findings.append(Finding("I3", key, message))
        last[record.connection] = record.n
    try:
        described = json.loads(manifest.read_bytes())
    except (OSError, ValueError) as error:
        archive.findings.append(Finding("I9", key, f"has no readable manifest ({type(error).__name__})"))
        return
    for name, value in _description(key, data, records).items():
        if described.get(name) != value:
            message = f"manifest says {name} = {described.get(name)!r}, the object {value!r}"
            archive.findings.append(Finding("I9", key, message[:500]))


def _records(archive: Archive, key: str, data: bytes, day: str) -> Iterator[Record]:
    rest = b""
    for content in decompress(data):
        lines = (rest + content).split(b"\n")
        rest = lines.pop()
        for line in lines:
            kind, connection, n, recv_ns, ts, frame = split_line(line)
            record = Record(connection, n, recv_ns, kind, hashlib.sha256(frame).hexdigest(), key)
            if ts != recv_ns // 1_000_000:
                archive.findings.append(Finding("I9", key, f"{connection} n {n}: ts {ts} is not recv_ns {recv_ns}"))
            if datetime.fromtimestamp(recv_ns // 1_000_000_000, UTC).date().isoformat() != day:
                archive.findings.append(Finding("I9", key, f"{connection} n {n} was not received on {day}"))
            if kind == "trade":
                archive.raw_trades.append((record, frame))
            if kind == "ticker" and archive.handovers:  # they are read first: `_` comes before letters
                archive.raw_quotes.append((record, frame))
            yield record
    if rest:
        raise Unreadable("the last line has no end")


def _description(key: str, data: bytes, records: list[Record]) -> dict[str, Any]:
    """What the manifest must say, counted again."""
    ranges: dict[str, dict[str, int]] = {}
    for record in records:
        span = ranges.setdefault(record.connection, {"first_n": record.n, "last_n": record.n})
        span["first_n"], span["last_n"] = min(span["first_n"], record.n), max(span["last_n"], record.n)
    times = [record.recv_ns for record in records]
    return {
        "key": key,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "records": len(records),
        "first_ns": min(times, default=0),
        "last_ns": max(times, default=0),
        "connections": ranges,
    }


def _read_gap(archive: Archive, key: str, file: Path, feed: str) -> None:
    try:
        row = json.loads(file.read_bytes())
        tickers = row["tickers"]
        gap = Gap(
            key,
            row["connection"] or None,
            row["sid"],
            row["from_ns"],
            row["to_ns"],
            row["reason"],
            None if tickers is None else frozenset(tickers),
        )
        if row["feed"] != feed or gap.from_ns > gap.to_ns:
            raise ValueError("another feed, or it ends before it begins")
    except (OSError, ValueError, KeyError, TypeError) as error:
        archive.findings.append(Finding("I9", key, f"is not a gap object ({error})"))
        return
    archive.gaps.append(gap)


def _read_handover(archive: Archive, key: str, file: Path, feed: str) -> None:
    try:
        row = json.loads(file.read_bytes())
        also = tuple((first, last) for first, last in row["also"])
        handover = Handover(
            key, row["to"], row["at_ns"], row["first_n"], row["from"], row["last_n"], also, row.get("ended_n")
        )
        if row["feed"] != feed or not key.endswith(f"/{handover.at_ns}-{handover.to}.json"):
            raise ValueError("another feed, or another name than what it holds")
    except (OSError, ValueError, KeyError, TypeError) as error:
        archive.findings.append(Finding("I9", key, f"is not a handover object ({error})"))
        return
    archive.handovers.append(handover)
