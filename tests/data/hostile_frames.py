"""Frames that an exchange should never send, and what the decoder must make of each. All of them are synthetic."""

from typing import NamedTuple

TICKER = b'"market_ticker":"TEST-26NOV22-T1"'
DELTA = TICKER + b',"market_id":"m","price_dollars":"0.4500","delta_fp":"-1.00","side":"yes","ts_ms":1795363200123'
TRADE = TICKER + b',"trade_id":"t-1","yes_price_dollars":"0.4500","count_fp":"1.00","taker_side":"yes"'


class Hostile(NamedTuple):
    """A frame and the expected `Decoded` of it."""

    name: str
    frame: bytes
    type: str = "invalid"
    group: str = "control"
    inline: bool = False
    sid: int | None = None
    seq: int | None = None
    problem: str = "invalid_json"


def _delta(body: bytes, head: bytes = b'"sid":1,"seq":7') -> bytes:
    return b'{"type":"orderbook_delta",%b,"msg":{%b}}' % (head, body)


def _drift(name: str, frame: bytes, *, inline: bool = True, sid: int | None = 1, seq: int | None = 7) -> Hostile:
    return Hostile(name, frame, "orderbook_delta", "orderbook", inline, sid, seq, "shape_drift")


def _lacking(name: str, frame: bytes) -> Hostile:
    return Hostile(name, frame, "orderbook_delta", "orderbook", True, 1, 7, "missing_field")


def _fine(name: str, frame: bytes, *, inline: bool) -> Hostile:
    """A frame that is mapped all the same; only its bytes may not be able to stand in a raw line."""
    return Hostile(name, frame, "orderbook_delta", "orderbook", inline, 1, 7, "")


NOT_JSON = [
    Hostile("empty", b""),
    Hostile("one space", b" "),
    Hostile("NUL", b"\x00"),
    Hostile("plain text", b"heartbeat"),
    Hostile("cut in the middle", _delta(DELTA)[:60]),
    Hostile("cut before the last brace", _delta(DELTA)[:-1]),
    Hostile("trailing NUL", _delta(DELTA) + b"\x00"),
    Hostile("two objects", _delta(DELTA) + _delta(DELTA)),
    Hostile("trailing comma", b'{"type":"trade",}'),
    Hostile("single quotes", b"{'type':'trade'}"),
    Hostile("byte order mark", b"\xef\xbb\xbf" + _delta(DELTA)),
    Hostile("UTF-16", _delta(DELTA).decode().encode("utf-16")),
    Hostile("gzip header", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    Hostile("html", b"<html><body>502 Bad Gateway</body></html>"),
    Hostile("NaN", _delta(DELTA + b',"x":NaN')),
    Hostile("Infinity", _delta(DELTA + b',"x":-Infinity')),
    Hostile("leading zero", _delta(DELTA + b',"x":01')),
    Hostile("hex number", _delta(DELTA + b',"x":0x1F')),
    Hostile("control character in a string", _delta(DELTA + b',"x":"a\x01b"')),
    Hostile("line break in a string", _delta(DELTA + b',"x":"a\nb"')),
    Hostile("comment", b'{"type":"trade"/* now */}'),
    Hostile("bad escape", _delta(DELTA + b',"x":"\\q"')),
    Hostile("only 0xff", b"\xff" * 64),
    Hostile("protocol injection", b"PUB ssmd.admin.stop 2\r\n{}\r\n"),
    Hostile("nested 100,000 arrays", b"[" * 100_000 + b"]" * 100_000, problem="too_deep"),
    Hostile("nested 100,000 objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, problem="too_deep"),
    Hostile("100,000 open arrays", b"[" * 100_000, problem="too_deep"),
    Hostile("a trade nested deeply", b'{"type":"trade","x":' + b"[" * 500 + b"]" * 500 + b"}", problem="too_deep"),
    Hostile(
        "an acknowledgement nested deeply",
        b'{"type":"ok","id":1,"msg":' + b"[" * 500 + b"]" * 500 + b"}",
        problem="too_deep",
    ),
]

NOT_MESSAGES = [
    Hostile("null", b"null", inline=True, problem="not_object"),
    Hostile("a number", b"42", inline=True, problem="not_object"),
    Hostile("a string", b'"trade"', inline=True, problem="not_object"),
    Hostile("an array of frames", b"[" + _delta(DELTA) + b"]", inline=True, problem="not_object"),
    Hostile("an empty object", b"{}", inline=True, problem="no_type"),
    Hostile("type is null", b'{"type":null,"sid":3,"seq":4}', inline=True, sid=3, seq=4, problem="no_type"),
    Hostile("type is a number", b'{"type":7}', inline=True, problem="no_type"),
    Hostile("type is empty", b'{"type":""}', inline=True, problem="no_type"),
    Hostile("type in capitals", b'{"Type":"trade"}', inline=True, problem="no_type"),
    Hostile("type is a lone surrogate", b'{"type":"\\ud800"}', problem="bad_type"),
    Hostile("type begins with a hyphen", b'{"type":"-x"}', inline=True, problem="bad_type"),
    Hostile(
        "an unknown type", b'{"type":"trades_v3","sid":2,"seq":9}', "trades_v3", "control", True, 2, 9, "unknown_type"
    ),
    Hostile("a type with wildcards", b'{"type":"*.>"}', "*.>", "control", True, None, None, "unknown_type"),
    Hostile("a type with CRLF", b'{"type":"a\\r\\nb"}', "a\r\nb", "control", True, None, None, "unknown_type"),
    Hostile(
        "a type of 5,000 letters", b'{"type":"%b"}' % (b"x" * 5000), "x" * 64, "control", True, problem="unknown_type"
    ),
    Hostile("a type with a space", b'{"type":"trade "}', "trade ", "control", True, problem="unknown_type"),
]

DRIFTED = [
    _lacking("no body", b'{"type":"orderbook_delta","sid":1,"seq":7}'),
    _lacking("an empty body", _delta(b"")),
    _drift("a body that is an array", b'{"type":"orderbook_delta","sid":1,"seq":7,"msg":[]}'),
    _drift("price as a number", _delta(DELTA.replace(b'"0.4500"', b"0.45"))),
    _lacking("price renamed", _delta(DELTA.replace(b"price_dollars", b"price_usd"))),
    _lacking("integer cents as of old", _delta(TICKER + b',"price":45,"delta":-1,"side":"yes"')),
    _lacking("ticker missing", _delta(DELTA.replace(TICKER, b'"ticker":"T"'))),
    _drift("ticker is null", _delta(DELTA.replace(b'"TEST-26NOV22-T1"', b"null"))),
    _drift("sid as text", _delta(DELTA, b'"sid":"1","seq":7'), sid=None),
    _drift("sid too large", _delta(DELTA, b'"sid":4294967296,"seq":7'), sid=None),
    _drift("seq negative", _delta(DELTA, b'"sid":1,"seq":-7'), seq=None),
    _drift("seq as a float", _delta(DELTA, b'"sid":1,"seq":7.0'), seq=None),
    _drift("seq too large", _delta(DELTA, b'"sid":1,"seq":9223372036854775808'), seq=None),
    _drift("seq of 5,000 digits", _delta(DELTA, b'"sid":1,"seq":%b' % (b"9" * 5000)), inline=False, seq=None),
    _drift("seq is true", _delta(DELTA, b'"sid":1,"seq":true'), seq=None),
    _drift("time before 1970", _delta(DELTA.replace(b"1795363200123", b"-1"))),
    _drift("clock as text", _delta(DELTA + b',"clock":"12"')),
    _drift("ticker is a lone surrogate", _delta(DELTA.replace(b"TEST", b"\\ud800")), inline=False),
    _drift("ticker is not UTF-8", _delta(DELTA.replace(b"TEST", b"\xff\xfe")), inline=False),
    _drift("type twice", b'{"type":"trade","type":"orderbook_delta","sid":1,"seq":7,"msg":{}}'),
]

MAPPED = [
    _fine("pretty-printed over lines", _delta(DELTA).replace(b",", b",\n "), inline=False),
    _fine("ends with a line break", _delta(DELTA) + b"\n", inline=False),
    _fine("ends with CRLF", _delta(DELTA) + b"\r\n", inline=False),
    _fine(
        "odd white space", b'\t{ "type" :\t"orderbook_delta" ,"sid": 1,"seq":7, "msg" : { %b } } ' % DELTA, inline=True
    ),
    _fine("a key twice", _delta(b'"side":"no",' + DELTA), inline=True),
    _fine("escaped letters", _delta(DELTA.replace(b"TEST", b"\\u0054EST")), inline=True),
    _fine("a new field", _delta(DELTA + b',"venue":{"id":[1,2.5,null]}'), inline=True),
    _fine("1e999 in a new field", _delta(DELTA + b',"x":1e999'), inline=False),
    _fine("5,000 digits in a new field", _delta(DELTA + b',"x":%b' % (b"9" * 5000)), inline=False),
    _fine("invalid UTF-8 in a new field", _delta(DELTA + b',"x":"\xff"'), inline=False),
    _fine("invalid UTF-8 in a new key", _delta(DELTA + b',"\xc3\x28":1'), inline=False),
    _fine("an overlong slash in a new field", _delta(DELTA + b',"x":"\xc0\xaf"'), inline=False),
    _fine("emoji in a new field", _delta(DELTA + b',"x":"\xf0\x9f\x93\x88"'), inline=True),
    _fine("NUL escape in a new field", _delta(DELTA + b',"x":"\\u0000"'), inline=True),
    _fine("type last", b'{"sid":1,"seq":7,"msg":{%b},"type":"orderbook_delta"}' % DELTA, inline=True),
    _fine("a megabyte in a new field", _delta(DELTA + b',"x":"%b"' % (b"y" * 1_000_000)), inline=True),
]

HOSTILE_FRAMES = NOT_JSON + NOT_MESSAGES + DRIFTED + MAPPED
