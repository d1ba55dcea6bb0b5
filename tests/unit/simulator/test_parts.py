"""The small parts: fixed-point numbers, WebSocket frames, signatures, key pairs, options, ledger, hostile corpus."""

import base64
import hashlib
import json
import stat
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import ConfigError
from ssmd.simulator import frames
from ssmd.simulator.auth import Gatekeeper
from ssmd.simulator.fixed import contracts, dollars, parse_fixed, rfc3339
from ssmd.simulator.hostile import CORPUS, Hostile
from ssmd.simulator.keys import make_key_pair
from ssmd.simulator.ledger import Ledger, ledger_line
from ssmd.simulator.options import SimulatorOptions, allowed_keys
from ssmd.simulator.protocol import Sent

NOW_MS = 1_795_363_200_123
PATH = "/trade-api/ws/v2"


@given(st.integers(-(10**15), 10**15))
def test_numbers_survive_printing_and_parsing(value: int) -> None:
    assert parse_fixed(dollars(value)) == value
    assert parse_fixed(contracts(value)) == value
    assert Decimal(dollars(value)) * 1_000_000 == value


@pytest.mark.parametrize(
    ("text", "value"), [("0.4800", 480_000), ("-54.00", -54_000_000), ("7", 7_000_000), ("-0.01", -10_000)]
)
def test_fixed_point_strings_are_exact(text: str, value: int) -> None:
    assert parse_fixed(text) == value


@pytest.mark.parametrize("text", ["", "x", "NaN", "1e999", "0.0000001", "1.2.3", "٣.00"])
def test_what_is_no_fixed_point_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fixed-point"):
        parse_fixed(text)


def test_times_lose_their_trailing_zeros() -> None:
    assert rfc3339(1_795_363_200_123_400_000) == "2026-11-22T16:00:00.1234Z"
    assert rfc3339(1_795_363_200_000_000_000) == "2026-11-22T16:00:00Z"


def masked(payload: bytes, opcode: int, *, fin: bool = True) -> bytes:
    """A client's frame, by the book."""
    mask = b"\x11\x22\x33\x44"
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_client_frames_of_every_size_are_read_byte_by_byte_or_at_once(size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    data = masked(payload, frames.TEXT) + masked(b"x", frames.PING)

    whole = frames.FrameReader().feed(data)
    reader = frames.FrameReader()
    pieces = [incoming for at in range(0, len(data), 997) for incoming in reader.feed(data[at : at + 997])]

    assert whole == pieces == [(frames.TEXT, payload), (frames.PING, b"x")]


def test_fragments_are_joined_and_control_frames_may_come_between() -> None:
    data = masked(b"ab", frames.TEXT, fin=False) + masked(b"p", frames.PING) + masked(b"cd", 0x0)

    assert frames.FrameReader().feed(data) == [(frames.PING, b"p"), (frames.TEXT, b"abcd")]


@pytest.mark.parametrize(
    "data",
    [
        frames.encode(b"unmasked"),
        masked(b"", 0x0),
        masked(b"a", frames.TEXT, fin=False) + masked(b"b", frames.TEXT),
        bytes([0xF1, 0x80, 0, 0, 0, 0]),
        masked(b"x" * 126, frames.PING),
        b"\x81\xff" + (1 << 40).to_bytes(8, "big"),
    ],
    ids=["unmasked", "orphan", "nested", "reserved", "long-control", "huge"],
)
def test_a_client_that_breaks_the_protocol_is_told_so(data: bytes) -> None:
    with pytest.raises(frames.ProtocolViolation):
        frames.FrameReader().feed(data)


def sign(private: Path, key_id: str, timestamp_ms: int, path: str = PATH) -> dict[str, str]:
    key = load_pem_private_key(private.read_bytes(), None)
    text = f"{timestamp_ms}GET{path}".encode()
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(text)
    else:
        assert isinstance(key, RSAPrivateKey)
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        signature = key.sign(text, pss, hashes.SHA256())
    return {
        "kalshi-access-key": key_id,
        "kalshi-access-timestamp": str(timestamp_ms),
        "kalshi-access-signature": base64.b64encode(signature).decode(),
    }


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
@pytest.mark.parametrize("which", [1, 2], ids=["private-pem", "public-pem"])
def test_a_signed_request_is_let_in(tmp_path: Path, algorithm: str, which: int) -> None:
    pair = make_key_pair(tmp_path, algorithm)
    keeper = Gatekeeper([(pair[0], tmp_path / pair[which])])

    assert keeper.refusal("GET", PATH, sign(pair[1], pair[0], NOW_MS), NOW_MS + 4_900) is None
    assert keeper.refusal("GET", f"{PATH}?x=1", sign(pair[1], pair[0], NOW_MS), NOW_MS) is None


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_anything_else_is_refused(tmp_path: Path, algorithm: str) -> None:
    key_id, private, public = make_key_pair(tmp_path, algorithm)
    _, other, _ = make_key_pair(tmp_path / "other", algorithm)
    keeper = Gatekeeper([(key_id, public)])
    good = sign(private, key_id, NOW_MS)

    assert keeper.refusal("GET", PATH, {}, NOW_MS) == "missing authentication headers"
    assert keeper.refusal("GET", PATH, {**good, "kalshi-access-key": "x"}, NOW_MS) == "unknown key id"
    assert keeper.refusal("GET", PATH, good, NOW_MS + 5_100) == "timestamp outside the allowed skew"
    assert keeper.refusal("GET", PATH, {**good, "kalshi-access-timestamp": "soon"}, NOW_MS) is not None
    for headers in (sign(other, key_id, NOW_MS), sign(private, key_id, NOW_MS, "/other")):
        assert keeper.refusal("GET", PATH, headers, NOW_MS) == "signature does not match"
    for signature in ("AAAA", "not base64!", ""):
        assert keeper.refusal("GET", PATH, {**good, "kalshi-access-signature": signature}, NOW_MS) is not None
    assert keeper.refusal("POST", PATH, good, NOW_MS) == "signature does not match"


def test_several_keys_are_valid_at_once_each_with_its_own_signature(tmp_path: Path) -> None:
    old, new = make_key_pair(tmp_path / "old", "ed25519"), make_key_pair(tmp_path / "new", "ed25519")
    keeper = Gatekeeper(allowed_keys([old[0], new[0]], [old[2], new[2]]))

    for key_id, private, _ in (old, new):
        assert keeper.refusal("GET", PATH, sign(private, key_id, NOW_MS), NOW_MS) is None
    assert keeper.refusal("GET", PATH, sign(old[1], new[0], NOW_MS), NOW_MS) == "signature does not match"
    assert keeper.refusal("GET", PATH, sign(new[1], "other", NOW_MS), NOW_MS) == "unknown key id"


def test_one_public_key_may_stand_for_several_ids_or_for_any(tmp_path: Path) -> None:
    _, private, public = make_key_pair(tmp_path, "ed25519")
    two, any_id = Gatekeeper(allowed_keys(["a", "b"], [public])), Gatekeeper(allowed_keys([], [public]))

    assert [two.refusal("GET", PATH, sign(private, name, NOW_MS), NOW_MS) for name in ("a", "b")] == [None, None]
    assert two.refusal("GET", PATH, sign(private, "c", NOW_MS), NOW_MS) == "unknown key id"
    assert any_id.refusal("GET", PATH, sign(private, "c", NOW_MS), NOW_MS) is None
    with pytest.raises(ConfigError, match="3 key ids and 2 public keys"):
        allowed_keys(["a", "b", "c"], [public, public])


def test_without_a_key_everyone_is_let_in() -> None:
    assert Gatekeeper([]).refusal("GET", PATH, {}, NOW_MS) is None


def test_a_file_that_is_no_key_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n")

    with pytest.raises(ConfigError, match=r"key\.pem"):
        Gatekeeper([("k", file)])


def test_a_key_pair_is_private_and_is_kept(tmp_path: Path) -> None:
    first = make_key_pair(tmp_path / "keys")
    second = make_key_pair(tmp_path / "keys")

    assert first == second
    assert first[1].read_bytes().startswith(b"-----BEGIN PRIVATE KEY")
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "keys").iterdir()} == {0o600}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "example.com", "::", ""])
def test_the_exchange_refuses_to_listen_to_the_world(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        SimulatorOptions(host=host).check()


@pytest.mark.parametrize(
    "options",
    [
        SimulatorOptions(port=70_000),
        SimulatorOptions(rate=0),
        SimulatorOptions(speed=-1),
        SimulatorOptions(window_s=0),
        SimulatorOptions(tapes=(Path("no-such-tape"),)),
    ],
    ids=["port", "rate", "speed", "window", "tape"],
)
def test_options_that_cannot_be_are_refused(options: SimulatorOptions) -> None:
    with pytest.raises(ConfigError):
        options.check()


def test_a_ledger_line_describes_the_frame(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.ndjson")
    sent = Sent(b'{"type":"trade"}', 2, 17, "trade", 'odd "ticker"\n')
    ledger.write([ledger_line(b"x-1", 3, sent, dropped=True, hostile=False)])
    ledger.write([ledger_line(b"x-1", 4, Sent(b"", None, None, "ok", ""), dropped=False, hostile=True)])

    rows = [json.loads(line) for line in (tmp_path / "deep" / "ledger.ndjson").read_text().splitlines()]
    ledger.close()
    times = [row.pop("t_ns") for row in rows]
    assert times == sorted(times)
    assert rows[0] == {
        "conn": "x-1",
        "n": 3,
        "sid": 2,
        "seq": 17,
        "type": "trade",
        "ticker": 'odd "ticker"\n',
        "sha256": hashlib.sha256(sent.frame).hexdigest(),
        "bytes": 16,
        "dropped": True,
        "hostile": False,
    }
    assert (rows[1]["sid"], rows[1]["seq"], rows[1]["ticker"], rows[1]["hostile"]) == (None, None, None, True)


def test_an_unwritable_ledger_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="ledger"):
        Ledger(tmp_path / "file" / "ledger")


def test_the_hostile_corpus_is_large_and_its_names_are_unique() -> None:
    names = [hostile.name for hostile in CORPUS]

    assert len(names) == len(set(names)) >= 40
    assert max(len(hostile.payload(1, 1)) for hostile in CORPUS) > 5_000_000
    assert any(hostile.fragments > 1 for hostile in CORPUS)
    assert any(hostile.opcode == frames.BINARY for hostile in CORPUS)


@pytest.mark.parametrize("hostile", [each for each in CORPUS if each.channel], ids=lambda each: str(each.name))
def test_numbered_hostile_frames_carry_the_numbers_they_consume(hostile: Hostile) -> None:
    frame = json.loads(hostile.payload(7, 99))

    assert (frame["sid"], frame["seq"]) == (7, 99)
