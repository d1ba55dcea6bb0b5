"""Lines of a tape: the recorded frame is cut out by bytes, and its two numbers are found without printing it again."""

import gzip
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from ssmd.errors import ConfigError
from ssmd.simulator.source import CHANNEL_OF_TYPE, Message

LINE = re.compile(rb'\s*\{\s*"recv_ms"\s*:\s*(\d+)[^,]*,\s*"event"\s*:\s*')
TICKER = re.compile(rb'"market_ticker"\s*:\s*("(?:[^"\\]|\\.)*")')
_HEAD = re.compile(rb'\{"type":"([a-z0-9_]+)","sid":(\d+)(?:(,"seq":)(\d+))?(?=[,}])')


class TapeLine(msgspec.Struct, gc=False):
    """One playable line: when it was received and what it says."""

    recv_ms: int
    message: Message
    event: bytes


def read_lines(file: Path) -> Iterator[bytes]:
    """The lines of a tape, plain or gzipped. ConfigError when it cannot be read."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield from lines
    except (OSError, EOFError) as error:
        raise ConfigError(f"cannot read tape {file}: {error}", "Give NDJSON or gzipped NDJSON files") from error


def parse_line(line: bytes) -> TapeLine | None:
    """Cut the frame out of a tape line and find its two numbers; None when it is no data frame of a known channel."""
    start = LINE.match(line)
    if start is None:
        return None
    event = line[start.end() :].rstrip()[:-1].rstrip()
    message = parse_event(event)
    return None if message is None else TapeLine(int(start[1]), message, event)


def parse_event(event: bytes) -> Message | None:
    """A recorded frame as a message; None when it is no data frame (an acknowledgement, an unknown type)."""
    head = _HEAD.match(event)
    found = TICKER.search(event)
    ticker = "" if found is None else _unquote(found[1])
    if head is None or (head[3] is None and b'"seq"' in event):
        return _parse_unusual(event, ticker)
    kind = head[1].decode()
    channel = CHANNEL_OF_TYPE.get(kind)
    if channel is None:
        return None
    if head[3] is None:
        return Message(channel, kind, ticker, event[: head.start(2)], event[head.end(2) :], numbered=False)
    return Message(channel, kind, ticker, event[: head.start(2)], head[3], event[head.end(4) :])


def _parse_unusual(event: bytes, ticker: str) -> Message | None:
    """Any other order of keys or whitespace: find the spans of the top-level numbers."""
    spans = top_level_spans(event)
    kind = json.loads(event[slice(*spans["type"])]) if "type" in spans else None
    channel = CHANNEL_OF_TYPE.get(kind) if isinstance(kind, str) else None
    if channel is None or "sid" not in spans:
        return None
    sid_start, sid_end = spans["sid"]
    if "seq" not in spans:
        return Message(channel, str(kind), ticker, event[:sid_start], event[sid_end:], numbered=False)
    seq_start, seq_end = spans["seq"]
    if seq_start < sid_start:
        return Message(
            channel, str(kind), ticker, event[:seq_start], event[seq_end:sid_start], event[sid_end:], seq_first=True
        )
    return Message(channel, str(kind), ticker, event[:sid_start], event[sid_end:seq_start], event[seq_end:])


def top_level_spans(event: bytes) -> dict[str, tuple[int, int]]:
    """Where the values of the outermost object stand; empty when `event` is not an object."""
    text = event.decode("latin-1")  # one character a byte: positions are byte positions
    decoder = json.JSONDecoder(strict=False)
    spans: dict[str, tuple[int, int]] = {}
    at = _skip_space(text, 0)
    if text[at : at + 1] != "{":
        return {}
    at = _skip_space(text, at + 1)
    try:
        while text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            at = _skip_space(text, _skip_space(text, at) + 1)
            _, end = decoder.raw_decode(text, at)
            spans[str(key)] = (at, end)
            at = _skip_space(text, end)
            if text[at] == ",":
                at = _skip_space(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        return {}
    return spans


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


@lru_cache(maxsize=65_536)
def _unquote(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[1:-1].decode("utf-8", "replace")
