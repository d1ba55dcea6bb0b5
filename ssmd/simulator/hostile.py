"""Frames that real exchanges, proxies and attackers have sent: each must be archived as it is and harm nothing.

Frames that a client can read numbers from carry a real `sid` and the next `seq` (`channel` is set), so that only the
content is hostile. The rest have no numbers, or none that can be read, and consume none.
"""

from collections.abc import Callable
from typing import NamedTuple

from ssmd.simulator.frames import BINARY, TEXT

_TRADE = b'"market_ticker":"TEST-HOSTILE","yes_price_dollars":"0.5200","no_price_dollars":"0.4800"'
_SIDES = b'"taker_side":"no","taker_outcome_side":"no","taker_book_side":"ask"'


class Hostile(NamedTuple):
    """One frame of the corpus: `payload(sid, seq)`; `channel` says whose numbers it takes, None: nobody's."""

    name: str
    payload: Callable[[int, int], bytes]
    channel: str | None = None
    opcode: int = TEXT
    fragments: int = 1


def _plain(name: str, payload: bytes, opcode: int = TEXT, fragments: int = 1) -> Hostile:
    return Hostile(name, lambda _sid, _seq: payload, None, opcode, fragments)


def _numbered(name: str, template: bytes, channel: str = "trade", fragments: int = 1) -> Hostile:
    """`@sid@` and `@seq@` in the template become the numbers."""

    def payload(sid: int, seq: int) -> bytes:
        return template.replace(b"@sid@", b"%d" % sid).replace(b"@seq@", b"%d" % seq)

    return Hostile(name, payload, channel, TEXT, fragments)


def _trade(name: str, inside: bytes, fragments: int = 1) -> Hostile:
    return _numbered(name, b'{"type":"trade","sid":@sid@,"seq":@seq@,"msg":{' + inside + b"}}", fragments=fragments)


_CLOCK = b'"ts":1786411118,"ts_ms":1786411118755'

CORPUS: tuple[Hostile, ...] = (
    _plain("empty", b""),
    _plain("whitespace-only", b" \n\t "),
    _plain("not-json", b"upstream connect error or disconnect/reset before headers"),
    _plain("html", b"<html><body><h1>502 Bad Gateway</h1></body></html>"),
    _plain("truncated", b'{"type":"trade","sid":2,"seq":9,"msg":{"trade_id":"5d93'),
    _plain("trailing-garbage", b'{"type":"trade","msg":{}}{"type":"trade"}'),
    _plain("two-lines", b'{"type":"trade","msg":{}}\n{"type":"trade","msg":{}}'),
    _plain("invalid-utf8", b'{"type":"notice","msg":{"text":"\xff\xfe\xfa"}}'),
    _plain("overlong-utf8", b'{"type":"notice","msg":{"text":"\xc0\xaf"}}'),
    _plain("utf8-surrogate-bytes", b'{"type":"notice","msg":{"text":"\xed\xa0\x80"}}'),
    _plain("cut-utf8", b'{"type":"notice","msg":{"text":"\xe2\x82"}}'),
    _plain("nul-bytes", b"\x00\x00\x00\x00"),
    _plain("raw-nul-in-string", b'{"type":"notice","msg":{"text":"a\x00b"}}'),
    _plain("escaped-nul", b'{"type":"notice","msg":{"text":"a\\u0000b"}}'),
    _plain("lone-surrogate", b'{"type":"notice","msg":{"text":"\\ud800"}}'),
    _plain("line-separators", '{"type":"notice","msg":{"text":"a\u2028b\u2029c\u0085d"}}'.encode()),
    _plain("bom", b'\xef\xbb\xbf{"type":"notice","msg":{}}'),
    _plain("utf16", '{"type":"notice"}'.encode("utf-16")),
    _plain("array", b"[1,2,3]"),
    _plain("number", b"42"),
    _plain("string", b'"subscribed"'),
    _plain("null", b"null"),
    _plain("no-type", b'{"msg":{"market_ticker":"TEST-HOSTILE"}}'),
    _plain("type-number", b'{"type":7,"msg":{}}'),
    _plain("type-null", b'{"type":null,"msg":{}}'),
    _plain("type-empty", b'{"type":"","msg":{}}'),
    _plain("type-quotes", b'{"type":"a\\"b\\\\,\\"data\\":","msg":{}}'),
    _plain("type-long", b'{"type":"' + b"x" * 4000 + b'","msg":{}}'),
    _plain("type-path", b'{"type":"../../etc/passwd","msg":{}}'),
    _plain("unknown-type", b'{"type":"orderbook_delta_v3","msg":{"market_ticker":"TEST-HOSTILE"}}'),
    _plain("missing-sid", b'{"type":"trade","msg":{"trade_id":"h-1",' + _TRADE + b',"count_fp":"1.00"}}'),
    _plain("sid-string", b'{"type":"trade","sid":"one","seq":"two","msg":{"trade_id":"h-2",' + _TRADE + b"}}"),
    _plain("sid-huge", b'{"type":"trade","sid":99999999999999999999,"seq":1,"msg":{"trade_id":"h-3",' + _TRADE + b"}}"),
    _plain("sid-negative", b'{"type":"trade","sid":-1,"seq":-1,"msg":{"trade_id":"h-4",' + _TRADE + b"}}"),
    _plain("sid-unknown", b'{"type":"trade","sid":4000000,"seq":1,"msg":{"trade_id":"h-5",' + _TRADE + b"}}"),
    _plain("nan", b'{"type":"notice","msg":{"value":NaN}}'),
    _plain("infinity", b'{"type":"notice","msg":{"value":-Infinity}}'),
    _plain("huge-exponent", b'{"type":"notice","msg":{"value":1e999}}'),
    _plain("single-quotes", b"{'type':'trade'}"),
    _plain("trailing-comma", b'{"type":"notice","msg":{},}'),
    _plain("deep-nesting", b'{"type":"notice","msg":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    _plain("unclosed-nesting", b"[" * 50_000),
    _plain("many-digits", b'{"type":"notice","msg":{"value":' + b"9" * 10_000 + b"}}"),
    _plain("binary-frame", b'{"type":"notice","msg":{"via":"binary"}}', opcode=BINARY),
    _plain("binary-random", bytes(range(256)) * 4, opcode=BINARY),
    _plain("five-megabytes", b'{"type":"notice","msg":{"text":"' + b"A" * 5_000_000 + b'"}}'),
    _plain("error-unasked", b'{"id":987654,"type":"error","msg":{"code":1,"msg":"Unable to process message"}}'),
    _plain("error-odd", b'{"type":"error","msg":"not an object"}'),
    _plain("raw-line-lookalike", b'{"ts":1,"type":"trade","conn":"c-x","n":0,"recv_ns":1,"data":{"type":"trade"}}'),
    _trade(
        "pretty-printed", b"\n  " + b'"trade_id":"h-10",\n  ' + _TRADE + b',\n  "count_fp":"1.00",' + _SIDES + b"\n"
    ),
    _numbered(
        "odd-whitespace",
        b' { "type" : "trade" ,\t"sid" : @sid@ , "seq" : @seq@ , "msg" : { "trade_id" : "h-11" , '
        + _TRADE
        + b' , "count_fp" : "2.50" , '
        + _SIDES
        + b" , "
        + _CLOCK
        + b" } } ",
    ),
    _trade("duplicate-keys", b'"trade_id":"h-12","trade_id":"h-12",' + _TRADE + b',"count_fp":"1.00",' + _SIDES),
    _trade("fragmented", b'"trade_id":"h-13",' + _TRADE + b',"count_fp":"3.00",' + _SIDES + b"," + _CLOCK, fragments=7),
    _trade("unknown-fields", b'"trade_id":"h-14",' + _TRADE + b',"count_fp":"1.00",' + _SIDES + b',"new":[{"a":null}]'),
    _trade("price-number", b'"trade_id":"h-15","market_ticker":"TEST-HOSTILE","yes_price_dollars":0.52,"count_fp":1'),
    _trade("price-word", b'"trade_id":"h-16","market_ticker":"TEST-HOSTILE","yes_price_dollars":"x","count_fp":"1.00"'),
    _trade("price-nan", b'"trade_id":"h-17","market_ticker":"TEST-HOSTILE","yes_price_dollars":"NaN","count_fp":"1"'),
    _trade("size-huge", b'"trade_id":"h-18",' + _TRADE + b',"count_fp":"1e999",' + _SIDES),
    _trade("side-unknown", b'"trade_id":"h-19",' + _TRADE + b',"count_fp":"1.00","taker_outcome_side":"maybe"'),
    _trade("ticker-missing", b'"trade_id":"h-20","yes_price_dollars":"0.5200","count_fp":"1.00",' + _SIDES),
    _trade(
        "ticker-path", b'"trade_id":"h-21","market_ticker":"../../x","yes_price_dollars":"0.5200","count_fp":"1.00"'
    ),
    _trade("ticker-crlf", b'"trade_id":"h-22","market_ticker":"A\\r\\nPUB x","yes_price_dollars":"0.5","count_fp":"1"'),
    _trade("ticker-wildcards", b'"trade_id":"h-23","market_ticker":"*.>","yes_price_dollars":"0.5","count_fp":"1.00"'),
    _trade("msg-array", b'"market_ticker":["TEST-HOSTILE"],"trade_id":{}'),
    _numbered("msg-null", b'{"type":"trade","sid":@sid@,"seq":@seq@,"msg":null}'),
    _numbered("msg-missing", b'{"type":"trade","sid":@sid@,"seq":@seq@}'),
    _numbered(
        "msg-last-key-first", b'{"msg":{"trade_id":"h-24",' + _TRADE + b'},"seq":@seq@,"sid":@sid@,"type":"trade"}'
    ),
    _numbered(
        "delta-unknown-side",
        b'{"type":"orderbook_delta","sid":@sid@,"seq":@seq@,"msg":{"market_ticker":"TEST-HOSTILE","price_dollars":'
        b'"0.5000","delta_fp":"1.00","side":"both"}}',
        "orderbook_delta",
    ),
    _numbered(
        "delta-negative-book",
        b'{"type":"orderbook_delta","sid":@sid@,"seq":@seq@,"msg":{"market_ticker":"TEST-HOSTILE","price_dollars":'
        b'"0.5000","delta_fp":"-1000000.00","side":"yes"}}',
        "orderbook_delta",
    ),
    _numbered(
        "snapshot-odd-levels",
        b'{"type":"orderbook_snapshot","sid":@sid@,"seq":@seq@,"msg":{"market_ticker":"TEST-HOSTILE","market_id":"",'
        b'"yes_dollars_fp":[["0.1000"],[],"0.2",[1,2]]}}',
        "orderbook_delta",
    ),
)
