"""Events as Cap'n Proto: exact inverses, pycapnp's own bytes, readable by others and from others."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import capnp
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, Event, Gap, Kind, OrderBookUpdate, Quote, Side, Status, Trade
from ssmd.resources import resource
from ssmd.wire import normalized, packing, unpacking
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode, encode, event_type_of, iter_events, received_ns, split
from tests.unit.wire.reference import HEAD, SAMPLES, TICKER, build, fill, values
from tests.unit.wire.strategies import events

samples = pytest.mark.parametrize("event", list(SAMPLES.values()), ids=list(SAMPLES))
TRADE = SAMPLES["trade"]


@given(events)
@settings(max_examples=400)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    again = decode(event_type_of(event), encode(event))

    assert again == event
    assert [type(value) for value in msgspec.structs.astuple(again)] == [
        type(value) for value in msgspec.structs.astuple(event)
    ]


@given(events)
@settings(max_examples=400)
def test_the_bytes_are_those_pycapnp_builds(event: Event) -> None:
    assert encode(event) == build(event)


@samples
def test_the_bytes_of_each_sample_are_those_pycapnp_builds_and_come_back(event: Event) -> None:
    data = encode(event)

    assert data == build(event)
    assert decode(event_type_of(event), data) == event


@samples
def test_pycapnp_reads_every_field(event: Event) -> None:
    with normalized.STRUCTS[event_type_of(event)].from_bytes(encode(event)) as reader:
        found = reader.to_dict()

    assert found["priceExponent"] == found["sizeExponent"] == -6
    for name, value in values(event).items():
        if isinstance(value, tuple):
            value = [{"price": item[0], "size": item[1]} if isinstance(item, tuple) else item for item in value]
        assert found[name] == (value.name.lower() if isinstance(value, Side | Kind | Status) else value)


@samples
def test_a_second_event_of_the_same_shape_does_not_remember_the_first(event: Event) -> None:
    other = msgspec.structs.replace(event, connection=event.connection[:-1] + "2")

    assert decode(event_type_of(event), encode(event)) == event
    assert decode(event_type_of(event), encode(other)) == other
    assert encode(event) == build(event)


def test_a_book_of_a_thousand_levels_comes_back() -> None:
    levels = tuple((price, price * 7) for price in range(1_000))
    event = OrderBookUpdate(*HEAD, 1, Kind.SNAPSHOT, levels, levels[:400])

    assert encode(event) == build(event)
    assert decode("orderbook", encode(event)) == event


@pytest.mark.parametrize("event_type", list(EVENT_TYPES))
def test_the_status_and_kind_enumerants_are_those_of_the_events(event_type: str) -> None:
    enums = {"side": Side, "kind": Kind, "status": Status}
    for name, field in normalized.STRUCTS[event_type].schema.fields.items():
        if name in enums:
            assert list(field.schema.enumerants) == [item.name.lower() for item in enums[name]]


def test_each_event_names_its_type() -> None:
    assert {event_type_of(event) for event in SAMPLES.values()} == set(EVENT_TYPES)


@given(events)
def test_the_receive_time_is_read_without_decoding(event: Event) -> None:
    assert received_ns(encode(event)) == (event.to_ns if isinstance(event, Gap) else event.received_ns)


# --- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"ticker": "A\ud800"},
        {"connection": "\udfff"},
        {"trade_id": "\ud800"},
        {"price": 1 << 63},
        {"size": -(1 << 63) - 1},
        {"seq": -1},
        {"seq": 1 << 64},
        {"sid": 1 << 32},
        {"exchange_ns": -1},
        {"received_ns": 1 << 80},
    ],
    ids=repr,
)
def test_what_does_not_fit_is_a_data_error(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        encode(msgspec.structs.replace(TRADE, **change))


def test_an_unknown_event_type_is_a_data_error() -> None:
    with pytest.raises(DataError, match="not an event type"):
        decode("trades", encode(TRADE))


def test_a_hundred_thousand_tickers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit is made small: what is watched is that the table of templates is emptied and goes on.
    monkeypatch.setattr(packing, "_MAX_TEMPLATES", 10)
    made: dict[Any, Any] = {}
    for index in range(100):
        packing._remember(made, (index,), (bytes, b"", b""), 10)
        assert len(made) <= 10
    packing._remember(made, ("huge",), (bytes, b"", b""), 1_000_000)

    assert ("huge",) not in made
    assert (99,) in made


def test_hostile_shapes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_MAX_PLANS", 10)
    plans = unpacking._Plans[int](lambda shape: shape[1])
    for index in range(100):
        assert plans[(1 << 32, index)] == index
        assert len(plans) <= 10

    assert plans[(1_000 << 32, 5)] == 5
    assert (1_000 << 32, 5) not in plans


# --- messages of others ------------------------------------------------------------------------------------------


@given(events, st.integers(1, 12))
@settings(max_examples=200)
def test_a_message_of_several_segments_is_read(event: Event, words: int) -> None:
    assert decode(event_type_of(event), build(event, words)) == event


def test_the_small_first_segment_above_makes_several_segments() -> None:
    assert build(TRADE, 1)[0] > 0


@given(events, st.randoms(use_true_random=False))
def test_a_message_whose_fields_were_set_in_another_order_is_read(event: Event, chance: random.Random) -> None:
    names = list(normalized.STRUCTS[event_type_of(event)].schema.fieldnames)
    chance.shuffle(names)

    assert decode(event_type_of(event), build(event, names=names)) == event


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schemas as a later version may have them: fields appended, under ids of their own."""
    folder = tmp_path_factory.mktemp("newer")
    found = {}
    for index, (event_type, cls) in enumerate(EVENT_TYPES.items()):
        text = (resource("schemas") / f"{event_type}.capnp").read_text()
        count = len(normalized.STRUCTS[event_type].schema.fieldnames)
        added = f"later @{count} :UInt64;\n  note @{count + 1} :Text;\n  flag @{count + 2} :Bool;\n}}"
        start = text.index(f"struct {cls.__name__} ")
        text = (
            f"@{0xF000000000000000 + index:#x};"
            + text[text.index(";") + 1 : start]
            + text[start:].replace("}", added, 1)
        )
        path = folder / f"newer_{event_type}.capnp"
        path.write_text(text)
        found[event_type] = getattr(capnp.load(str(path)), cls.__name__)
    return found


@samples
def test_a_message_of_a_newer_schema_is_read(event: Event, newer: dict[str, Any]) -> None:
    message = newer[event_type_of(event)].new_message(1 << 10)
    fill(message, event)
    message.later, message.note, message.flag = 99, "something new", True

    assert decode(event_type_of(event), bytes(message.to_bytes())) == event


@samples
def test_a_reader_of_a_newer_schema_reads_our_messages(event: Event, newer: dict[str, Any]) -> None:
    with newer[event_type_of(event)].from_bytes(encode(event)) as reader:
        assert (reader.later, reader.note, reader.flag) == (0, "", False)
        assert reader.connection == event.connection


def with_trade(**fields: Any) -> bytes:
    message = normalized.STRUCTS["trade"].new_message(1 << 10)
    fill(message, TRADE)
    for name, value in fields.items():
        setattr(message, name, value)
    return bytes(message.to_bytes())


def test_other_exponents_are_converted_exactly() -> None:
    event = decode("trade", with_trade(price=45, priceExponent=-2, size=12_500_000_000, sizeExponent=-9))

    assert isinstance(event, Trade)
    assert (event.price, event.size) == (450_000, 12_500_000)


@pytest.mark.parametrize(
    "fields",
    [{"price": 1, "priceExponent": -7}, {"price": 1, "priceExponent": 127}, {"size": 1 << 62, "sizeExponent": -5}],
    ids=repr,
)
def test_numbers_that_millionths_cannot_hold_are_a_data_error(fields: dict[str, int]) -> None:
    with pytest.raises(DataError):
        decode("trade", with_trade(**fields))


@pytest.mark.parametrize(
    ("name", "field"), [("trade", "side"), ("delta, bid", "kind"), ("opened", "status")], ids=["side", "kind", "status"]
)
def test_an_enumerant_of_the_future_is_a_data_error(name: str, field: str) -> None:
    event = SAMPLES[name]

    with pytest.raises(DataError, match=field):
        decode(event_type_of(event), encode(msgspec.structs.replace(event, **{field: 9})))


# --- files of messages -------------------------------------------------------------------------------------------


def test_concatenated_messages_are_split_and_read_in_order() -> None:
    trades = [msgspec.structs.replace(TRADE, seq=seq, trade_id="x" * (seq % 20)) for seq in range(50)]
    messages = [build(trade, 1 + trade.seq % 9) for trade in trades if isinstance(trade, Trade)]

    assert split(b"".join(messages)) == messages
    assert list(iter_events("trade", b"".join(messages))) == trades


def test_nothing_is_no_message() -> None:
    assert split(b"") == []
    assert list(iter_events("trade", b"")) == []
    with pytest.raises(DataError):
        decode("trade", b"")


def test_a_file_cut_anywhere_inside_a_message_is_a_data_error() -> None:
    data = encode(TRADE)
    for length in range(1, len(data)):
        with pytest.raises(DataError):
            split(data + data[:length])
        with pytest.raises(DataError):
            decode("trade", data[:length])


def test_the_events_before_a_cut_are_read() -> None:
    data = encode(TRADE)
    found = iter_events("trade", data + data[:20])

    assert next(found) == TRADE
    with pytest.raises(DataError):
        next(found)


def test_two_messages_are_not_one() -> None:
    with pytest.raises(DataError, match="more than one"):
        decode("trade", encode(TRADE) * 2)


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 8, b"\xff\xff\xff\xff" + b"\0" * 4096, b"\x00\x02\x00\x00" + b"\0" * 4096],
    ids=["all ones", "4 billion segments", "513 segments"],
)
def test_an_absurd_segment_table_is_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError):
        message_end(data)
    with pytest.raises(DataError):
        decode("trade", data)


# --- bad bytes ---------------------------------------------------------------------------------------------------


def valid_or_data_error(event_type: str, data: bytes) -> None:
    try:
        event = decode(event_type, data)
    except DataError:
        return
    assert isinstance(event, EVENT_TYPES[event_type])
    assert decode(event_type, encode(event)) == event


@given(st.sampled_from(list(EVENT_TYPES)), st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_are_a_data_error_or_an_event(event_type: str, data: bytes) -> None:
    valid_or_data_error(event_type, data)


@given(st.sampled_from(list(EVENT_TYPES)), st.lists(st.integers(0, (1 << 64) - 1), max_size=40))
@settings(max_examples=300)
def test_random_words_in_a_valid_frame_are_a_data_error_or_an_event(event_type: str, words: list[int]) -> None:
    layout = normalized._LAYOUTS[event_type]
    body = b"".join(word.to_bytes(8, "little") for word in (layout.root, *words))

    valid_or_data_error(event_type, (len(body) // 8 << 32).to_bytes(8, "little") + body)


@samples
def test_every_flipped_bit_gives_a_data_error_or_an_event(event: Event) -> None:
    data = encode(event)
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        valid_or_data_error(event_type_of(event), bytes(flipped))


@given(events, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=2, max_size=8))
@settings(max_examples=300)
def test_several_changed_bytes_give_a_data_error_or_an_event(event: Event, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encode(event))
    for position, change in changes:
        data[position % len(data)] ^= change

    valid_or_data_error(event_type_of(event), bytes(data))


@samples
def test_an_event_read_as_another_type_is_a_data_error_or_an_event(event: Event) -> None:
    for event_type in EVENT_TYPES:
        valid_or_data_error(event_type, encode(event))


@pytest.mark.parametrize("name", ["trade", "block trade", "quote", "delta, bid", "snapshot"])
def test_the_quick_and_the_general_decoder_agree_on_every_flipped_bit(name: str) -> None:
    event = SAMPLES[name]
    event_type, data = event_type_of(event), encode(event)

    def outcome(read: Callable[[str, bytes], Event], message: bytes) -> Event | type[DataError]:
        try:
            return read(event_type, message)
        except DataError:
            return DataError

    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        message = bytes(flipped)
        assert outcome(decode, message) == outcome(normalized._decode_any, message), position


@pytest.mark.parametrize("name", ["trade", "quote", "delta, bid", "snapshot", "empty snapshot"])
def test_our_own_messages_take_the_quick_way(name: str) -> None:
    event = SAMPLES[name]
    quick = normalized._DECODERS[event_type_of(event)]

    assert quick is not None
    assert quick(encode(event)) == event


def test_a_list_that_claims_millions_of_empty_levels_is_refused_quickly() -> None:
    # A list of structs without any words takes no bytes, whatever count its tag claims.
    layout = normalized._LAYOUTS["orderbook"]
    words = [0] * layout.body_words
    words[0] = layout.root
    slot = layout.pointers["bids"]
    words[1 + layout.data_words + slot] = (layout.pointer_words - slot - 1) << 2 | 1 | 7 << 32
    words.append(((1 << 29) - 1) << 2)
    body = b"".join(word.to_bytes(8, "little") for word in words)

    with pytest.raises(DataError):
        decode("orderbook", (len(words) << 32).to_bytes(8, "little") + body)


def test_a_text_without_its_closing_nul_is_a_data_error() -> None:
    data = encode(TRADE)
    end = data.index(TICKER.encode()) + len(TICKER)

    with pytest.raises(DataError):
        decode("trade", data[:end] + b"!" + data[end + 1 :])


def test_a_text_that_is_not_utf8_is_a_data_error() -> None:
    with pytest.raises(DataError):
        decode("trade", encode(TRADE).replace(TICKER.encode(), b"\xff" * len(TICKER)))


# --- the capnp command -------------------------------------------------------------------------------------------


def run_capnp(verb: str, event: Event, data: bytes) -> bytes:
    event_type = event_type_of(event)
    schema: Path = resource("schemas") / f"{event_type}.capnp"
    command = ["capnp", verb, str(schema), EVENT_TYPES[event_type].__name__]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True, timeout=30).stdout


@samples
def test_the_capnp_command_reads_our_messages_and_we_read_its(event: Event, capnp_command: None) -> None:
    text = run_capnp("decode", event, encode(event))

    assert decode(event_type_of(event), run_capnp("encode", event, text)) == event


def test_the_capnp_command_shows_the_values(capnp_command: None) -> None:
    text = run_capnp("decode", TRADE, encode(TRADE)).decode()

    for part in (f'ticker = "{TICKER}"', "price = 450000", "size = 9850000", "side = sell", "receivedTime = 178641"):
        assert part in text
    quote = SAMPLES["quote"]
    assert isinstance(quote, Quote)
    assert f"openInterest = {quote.open_interest}" in run_capnp("decode", quote, encode(quote)).decode()
