"""Raw lines: the frame's own bytes, one line each, cut out again unchanged."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import DataError
from ssmd.wire import raw
from ssmd.wire.raw import MAX_TYPE_CHARS, RawRecord, Received, parse_line, parse_lines, raw_line

RECEIVED_NS = 1_786_410_915_579_123_456
FRAME = b'{"type":"trade","sid":1,"seq":2,"msg":{"trade_id":"x"}}'

HOSTILE = {
    "empty": b"",
    "odd whitespace": b'  { "a" :\t1 }  ',
    "duplicate keys": b'{"a":1,"a":2}',
    "big number": b'{"a":1e999,"b":123456789012345678901234567890}',
    "closing brace": b"}",
    "looks like the end": b'"}\n',
    "another line in it": b'{"a":1}}\n{"ts":1,"type":"x","conn":"c","n":0,"recv_ns":1000000,"data":{}',
    "data key in it": b'{"data":{"data_b64":"AAAA"},"recv_ns":5}',
    "newline": b'{"a":\n1}',
    "carriage return": b'{"a":\r1}',
    "line separator": '{"a":"\u2028\u0085"}'.encode(),
    "invalid UTF-8": b'{"a":"\xff\xfe\xc0\x80"}',
    "lone surrogate escape": rb'{"a":"\ud800"}',
    "NUL": b"\0",
    "binary": bytes(range(256)),
    "percent": b'{"a":"%d%b%s%"}',
    "not JSON": b"hello",
    "html": b"<html>502 Bad Gateway</html>",
    "quote": b'"',
    "backslash": b"\\",
    "a megabyte": b'{"a":"' + b"x" * 1_000_000 + b'"}',
}


def is_one_json_line(frame: bytes) -> bool:
    try:
        json.loads(frame.decode())
    except ValueError:
        return False
    return b"\n" not in frame and b"\r" not in frame


def test_a_line_is_what_the_archive_format_says() -> None:
    line = raw_line(RECEIVED_NS, "trade", "c-1", 1234, FRAME, True)

    assert line == (
        b'{"ts":1786410915579,"type":"trade","conn":"c-1","n":1234,"recv_ns":1786410915579123456,"data":'
        + FRAME
        + b"}\n"
    )


def test_a_frame_that_is_no_json_stands_in_base64() -> None:
    line = raw_line(RECEIVED_NS, "invalid", "c-1", 0, b"\xff\n", False)

    assert line.endswith(b',"data_b64":"/wo="}\n')


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("frame", list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_hostile_frame_comes_back_bit_for_bit(frame: bytes, inline: bool) -> None:
    line = raw_line(RECEIVED_NS, "trade", "c-1", 7, frame, inline)

    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert parse_line(line) == RawRecord(RECEIVED_NS // 1_000_000, "trade", "c-1", 7, RECEIVED_NS, frame)


@pytest.mark.parametrize("frame", list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_line_is_json_for_any_reader(frame: bytes) -> None:
    line = raw_line(RECEIVED_NS, "trade", "c-1", 7, frame, is_one_json_line(frame))

    fields = json.loads(line.decode(errors="strict"))
    assert list(fields)[-1] in ("data", "data_b64")
    assert (fields["n"], fields["recv_ns"]) == (7, RECEIVED_NS)


@given(
    st.integers(0, (1 << 63) - 1),
    st.text(max_size=80),
    st.text(max_size=40),
    st.integers(0, (1 << 63) - 1),
    st.binary(max_size=200),
    st.booleans(),
)
@settings(max_examples=300)
def test_every_record_comes_back(ns: int, kind: str, connection: str, n: int, frame: bytes, inline: bool) -> None:
    line = raw_line(ns, kind, connection, n, frame, inline)

    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert parse_line(line) == RawRecord(ns // 1_000_000, kind[:MAX_TYPE_CHARS], connection, n, ns, frame)
    assert parse_line(line[:-1]) == parse_line(line)


@pytest.mark.parametrize("text", ['a"b', "a\\", "a\nb", "%d %s %", "\ud800", "ü", "\0", "\x7f", "</script>"], ids=ascii)
def test_hostile_names_are_escaped(text: str) -> None:
    line = raw_line(RECEIVED_NS, text, text, 0, b"{}", True)

    assert json.loads(line)["type"] == json.loads(line)["conn"] == text
    assert (parse_line(line).type, parse_line(line).connection) == (text, text)


def test_a_type_is_cut_after_64_characters() -> None:
    assert parse_line(raw_line(RECEIVED_NS, "x" * 10_000, "c", 0, b"{}", True)).type == "x" * MAX_TYPE_CHARS


LINE = raw_line(RECEIVED_NS, "trade", "c-1", 1234, FRAME, True)
LINE_B64 = raw_line(RECEIVED_NS, "trade", "c-1", 1234, b"\xff\xfe", False)


NOT_LINES = [
    b"",
    b"\n",
    b"{}",
    FRAME,
    LINE[:-4],
    LINE[:-4] + b"\n",
    LINE[:100],
    LINE + LINE,
    LINE + b"\n",
    b" " + LINE,
    LINE[:-1] + b"\r\n",
    LINE.replace(b'"ts":1786410915579', b'"ts":1786410915580'),
    LINE.replace(b'"n":1234', b'"n":01234'),
    LINE.replace(b'"n":1234', b'"n":-1'),
    LINE.replace(b'"n":1234', b'"n": 1234'),
    LINE.replace(b'"type":"trade"', rb'"type":"tr\u0061de"', 1),
    LINE.replace(b'"type":"trade"', rb'"type":"\x"', 1),
    LINE.replace(b'"type":"trade"', b'"type":"' + b"t" * 65 + b'"', 1),
    LINE.replace(b'"conn":"c-1"', b'"conn":"\xff"'),
    LINE.replace(b'"conn":"c-1",', b""),
    LINE.replace(FRAME, b""),
    LINE.replace(FRAME, b"{\n}"),
    LINE_B64.replace(b"//4=", b"//5="),
    LINE_B64.replace(b"//4=", b"//4"),
    LINE_B64.replace(b"//4=", b"//4=\n"),
    LINE_B64.replace(b"//4=", "ä".encode()),
    LINE_B64.replace(b'"//4="', b"//4="),
    LINE_B64.replace(b'"//4="', b'"'),
]


@pytest.mark.parametrize("line", NOT_LINES, ids=[f"{index}" for index in range(len(NOT_LINES))])
def test_what_no_writer_wrote_is_a_data_error(line: bytes) -> None:
    with pytest.raises(DataError, match="not a line of the raw archive"):
        parse_line(line)


@given(st.sampled_from([LINE, LINE_B64]), st.lists(st.tuples(st.integers(0, 1_000), st.integers(1, 255)), max_size=4))
@settings(max_examples=300)
def test_a_changed_line_is_a_data_error_or_exactly_what_a_writer_writes(
    line: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(line)
    for position, change in changes:
        changed[position % len(line)] ^= change
    try:
        record = parse_line(bytes(changed))
    except DataError:
        return

    assert b'"data' in bytes(changed)
    written = {
        raw_line(record.received_ns, record.type, record.connection, record.n, record.frame, inline)
        for inline in (True, False)
    }
    assert bytes(changed) in written


@given(st.binary(max_size=200))
def test_random_bytes_are_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError):
        parse_line(data)


PIECES = st.sampled_from(
    [
        b'{"ts":1786410915579,"type":"trade","conn":"c-1","n":7,"recv_ns":1786410915579123456,"data":{"a":1}}\n',
        b'{"ts":1786410915579,', b'"type":"trade",', b'"type":"tr\\u0041de",', b'"type":"tr%de",', b'"conn":"c-1",',
        b'"conn":"c,\\"n\\":2",', b'"n":7,', b'"n":07,', b'"n":+7,', b'"n":12345678901234567890,', b'"n":"7",',
        b'"recv_ns":1786410915579123456,', b'"recv_ns":1786410915580123456,', b'"recv_ns":78641091557912345,',
        b'"data":', b'"data_b64":"AAE="', b"{}", b"}", b"\n", b"\r", b"\r\n", b" ", b"\x00", b"\xff", b'"', b"x" * 70,
        b'{"ts":1786410915579,"type":"' + b"t" * 65 + b'","conn":"c","n":0,"recv_ns":1786410915579000000,"data":1}\n',
        b'{"ts":1786410915578,"type":"t","conn":"c","n":0,"recv_ns":1786410915579000000,"data":1}\n',
        b'{"ts":1786410915579,"type":"t","conn":"c","n":07,"recv_ns":1786410915579000000,"data":1}\n',
        b'{"ts":1786410915579,"type":"t","conn":"c","n":7,"recv_ns":1786410915579000000,"data":1\r}\n',
        b'{"ts":1786410915579,"type":"t","conn":"c","n":7,"recv_ns":1786410915579000000,"data":}\n',
        b'{"ts":1786410915579,"type":"t","conn":"c","n":7,"recv_ns":1786410915579000000,"data":1}',
        b'{"ts":1786410915579,"type":"","conn":"","n":0,"recv_ns":1786410915579000000,"data":1}\n',
        b'x{"ts":1786410915579,"type":"t","conn":"c","n":0,"recv_ns":1786410915579000000,"data":1}\n',
        b'{"ts":1786410915579,"type":"t","conn":"c","n":0,"recv_ns":1786410915579000000,"data":}\n',
    ]
)  # fmt: skip


def one_by_one(block: bytes) -> list[Received] | str:
    """The records of a block by the strict parser alone, or what it says is wrong."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    try:
        records = [parse_line(line) for line in lines]
    except DataError as error:
        return error.message
    return [(record.received_ns, record.connection, record.n, record.frame) for record in records]


def by_the_block(block: bytes) -> list[Received] | str:
    try:
        return parse_lines(block)
    except DataError as error:
        return error.message


@settings(max_examples=500)
@given(st.lists(PIECES | st.binary(max_size=5), max_size=14).map(b"".join))
def test_a_block_is_read_as_its_lines_are_whatever_it_holds(block: bytes) -> None:
    assert by_the_block(block) == one_by_one(block)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1) | st.integers(10**18, 10**19 - 1),
            st.text(max_size=70) | st.sampled_from(["trade", "orderbook_delta"]),
            st.text(max_size=10) | st.just("c-1"),
            st.integers(0, 10**20 - 1) | st.integers(0, 10**6),
            st.binary(max_size=30) | st.just(b'{"type":"trade"}'),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_a_block_of_lines_as_they_are_written_comes_back(
    lines: list[tuple[int, str, str, int, bytes, bool]],
) -> None:
    block = b"".join(raw_line(*line) for line in lines)

    assert parse_lines(block) == [(ns, connection, n, frame) for ns, _, connection, n, frame, _ in lines]


def test_the_usual_block_needs_no_strict_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    block = b"".join(raw_line(RECEIVED_NS + n, "trade", "c-1", n, b'{"n":%d}' % n, True) for n in range(9))
    monkeypatch.setattr(raw, "parse_line", None)

    assert [record[2] for record in parse_lines(block)] == list(range(9))
