"""Subscriptions of one client, without sockets: every answer and every number."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.simulator.market import MarketGenerator
from ssmd.simulator.protocol import Sent, Subscriptions
from ssmd.simulator.source import Message

NOW_NS = 1_795_363_200_123_000_000


def generator(seed: int = 3) -> MarketGenerator:
    return MarketGenerator(seed=seed, now_ns=NOW_NS, rate=1000.0, window_s=900, strikes=2)


SOURCE = generator()
TICKERS = [row["ticker"] for row in SOURCE.markets()]


@pytest.fixture
def client() -> Subscriptions:
    return Subscriptions(SOURCE, max_tickers=10)


def ask(client: Subscriptions, cmd: str, command_id: int = 0, **params: Any) -> list[dict[str, Any]]:
    command: dict[str, Any] = {"id": command_id, "cmd": cmd}
    if params:
        command["params"] = params
    return read(client.command(json.dumps(command).encode(), NOW_NS))


def read(answers: list[Sent]) -> list[dict[str, Any]]:
    """The frames, each checked against what the ledger would say about it."""
    frames = [json.loads(sent.frame) for sent in answers]
    for frame, sent in zip(frames, answers, strict=True):
        assert (frame["type"], frame.get("sid"), frame.get("seq")) == (sent.type, sent.sid, sent.seq)
        assert frame["sending_ts_ms"] == NOW_NS // 1_000_000
    return frames


def short(frames: list[dict[str, Any]]) -> list[tuple[str, int | None, int | None]]:
    return [(frame["type"], frame.get("sid"), frame.get("seq")) for frame in frames]


def test_a_subscribe_gives_one_sid_per_channel_and_snapshots_numbered_from_one(client: Subscriptions) -> None:
    frames = ask(client, "subscribe", 1, channels=["trade", "orderbook_delta"], market_tickers=TICKERS[:2])

    assert short(frames) == [
        ("subscribed", None, None),
        ("subscribed", None, None),
        ("orderbook_snapshot", 2, 1),
        ("orderbook_snapshot", 2, 2),
    ]
    assert [frame["msg"] for frame in frames[:2]] == [
        {"channel": "trade", "sid": 1},
        {"channel": "orderbook_delta", "sid": 2},
    ]
    assert frames[0]["id"] == 1
    assert "id" not in frames[2]
    assert frames[2]["msg"]["market_ticker"] == TICKERS[0]


def test_a_second_subscribe_merges_and_gives_snapshots_of_new_tickers_only(client: Subscriptions) -> None:
    ask(client, "subscribe", 1, channels=["orderbook_delta"], market_tickers=TICKERS[:2])

    frames = ask(client, "subscribe", 2, channels=["orderbook_delta"], market_tickers=TICKERS[1:4])

    assert short(frames) == [("ok", 1, 3), ("orderbook_snapshot", 1, 4), ("orderbook_snapshot", 1, 5)]
    assert frames[0]["msg"] == {"market_tickers": TICKERS[:4]}
    assert [frame["msg"]["market_ticker"] for frame in frames[1:]] == TICKERS[2:4]


@pytest.mark.parametrize("sids", [{"sid": 1}, {"sids": [1]}], ids=["sid", "sids"])
def test_adding_a_ticker_that_is_there_gives_a_fresh_snapshot(client: Subscriptions, sids: dict[str, Any]) -> None:
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:2])

    frames = ask(
        client, "update_subscription", 5, action="add_markets", market_tickers=[TICKERS[1], TICKERS[2]], **sids
    )

    assert short(frames) == [("ok", 1, 3), ("orderbook_snapshot", 1, 4), ("orderbook_snapshot", 1, 5)]
    assert frames[0]["msg"]["market_tickers"] == TICKERS[:3]


def test_a_deleted_ticker_is_acknowledged_with_the_rest_and_heard_no_more(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:2])

    frames = ask(client, "update_subscription", sid=1, action="delete_markets", market_tickers=TICKERS[:1])

    assert short(frames) == [("ok", 1, 3)]
    assert frames[0]["msg"]["market_tickers"] == TICKERS[1:2]
    assert client.number(Message("orderbook_delta", "orderbook_delta", TICKERS[0], b"", b"", b"")) is None
    assert client.number(Message("orderbook_delta", "orderbook_delta", TICKERS[1], b"", b",", b"")) is not None


def test_get_snapshot_carries_the_id_and_changes_nothing(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:2])

    frames = ask(client, "update_subscription", 7, sid=1, action="get_snapshot", market_tickers=TICKERS[:1])

    assert short(frames) == [("orderbook_snapshot", 1, 3)]
    assert frames[0]["id"] == 7
    assert list(client.by_channel["orderbook_delta"].tickers or ()) == TICKERS[:2]


def test_an_unknown_ticker_gets_an_empty_snapshot_with_an_empty_market_id(client: Subscriptions) -> None:
    frames = ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=["NO-SUCH-MARKET"])

    assert frames[1]["msg"] == {"market_ticker": "NO-SUCH-MARKET", "market_id": ""}


def test_unsubscribe_consumes_a_number_and_a_new_subscription_gets_a_new_sid(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["orderbook_delta", "trade"], market_tickers=TICKERS[:1])

    frames = ask(client, "unsubscribe", 8, sids=[1, 2, 9])

    assert short(frames) == [("unsubscribed", 1, 2), ("unsubscribed", 2, 1), ("error", None, None)]
    assert "msg" not in frames[0]
    assert short(ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:1])) == [
        ("subscribed", None, None),
        ("orderbook_snapshot", 3, 1),
    ]


def test_list_subscriptions_answers_with_an_array(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["ticker", "market_lifecycle_v2"])

    frames = ask(client, "list_subscriptions", 9)

    assert frames[0]["msg"] == [{"channel": "ticker", "sid": 1}, {"channel": "market_lifecycle_v2", "sid": 2}]
    assert frames[0]["id"] == 9


def test_the_ticker_channel_has_no_numbers_and_an_initial_snapshot_on_demand(client: Subscriptions) -> None:
    frames = ask(client, "subscribe", channels=["ticker"], market_tickers=TICKERS[:2], send_initial_snapshot=True)

    assert short(frames) == [("subscribed", None, None), ("ticker", 1, None), ("ticker", 1, None)]
    assert short(ask(client, "subscribe", channels=["ticker"], market_tickers=TICKERS[2:3])) == [("ok", 1, None)]


def test_a_later_subscribe_without_tickers_means_every_market(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["trade"], market_tickers=TICKERS[:1])
    ask(client, "subscribe", channels=["trade"])

    assert client.number(Message("trade", "trade", "ANY", b"", b",", b"")) is not None


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"not json", 1),
        (b"[]", 1),
        (b'{"id":"x","cmd":"subscribe"}', 1),
        (b"[" * 100_000, 1),
        (b'{"cmd":"subscribe"}', 2),
        (b'{"cmd":"subscribe","params":[]}', 2),
        (b'{"cmd":"subscribe","params":{"market_ticker":"A"}}', 3),
        (b'{"cmd":"unsubscribe","params":{"x":1}}', 4),
        (b'{"cmd":"dance","params":{"x":1}}', 5),
        (b'{"cmd":"update_subscription","params":{"sid":7,"action":"add_markets","market_tickers":["A"]}}', 7),
        (b'{"cmd":"subscribe","params":{"channels":["nope"]}}', 8),
        (b'{"cmd":"subscribe","params":{"channels":["trade"],"market_tickers":[7]}}', 11),
        (b'{"cmd":"update_subscription","params":{"sids":[1,2],"action":"add_markets"}}', 12),
        (b'{"cmd":"update_subscription","params":{"sid":1,"action":"dance","market_tickers":["A"]}}', 13),
        (b'{"cmd":"subscribe","params":{"channels":["orderbook_delta"]}}', 14),
        (b'{"cmd":"update_subscription","params":{"sid":1,"action":"add_markets"}}', 14),
        (b'{"cmd":"update_subscription","params":{"sid":1,"market_tickers":["A"]}}', 15),
    ],
)
def test_a_wrong_command_gets_its_error_code(client: Subscriptions, command: bytes, code: int) -> None:
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:1])

    frames = read(client.command(command, NOW_NS))

    assert [(frame["type"], frame["msg"]["code"]) for frame in frames] == [("error", code)]


def test_an_error_within_a_subscription_consumes_a_number(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:1])

    frames = ask(client, "update_subscription", sid=1, action="dance", market_tickers=["A"])

    assert short(frames) == [("error", 1, 2)]


def test_too_many_tickers_are_refused_whole(client: Subscriptions) -> None:
    many = [f"T-{number}" for number in range(11)]

    assert ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=many)[0]["msg"]["code"] == 26
    assert client.by_channel == {}
    ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=many[:10])
    assert ask(client, "subscribe", channels=["orderbook_delta"], market_tickers=many)[0]["msg"]["code"] == 26


def test_an_overflow_ends_every_subscription_with_a_numbered_error(client: Subscriptions) -> None:
    ask(client, "subscribe", channels=["orderbook_delta", "trade"], market_tickers=TICKERS[:1])

    frames = read(client.end(25, NOW_NS))

    assert short(frames) == [("error", 1, 2), ("error", 2, 1)]
    assert client.by_channel == {}


COMMANDS: st.SearchStrategy[tuple[str, Any, list[str]]] = st.one_of(
    st.tuples(
        st.just("subscribe"),
        st.sampled_from(["orderbook_delta", "trade", "ticker"]),
        st.lists(st.sampled_from(TICKERS), max_size=4),
    ),
    st.tuples(
        st.sampled_from(["add_markets", "delete_markets", "get_snapshot"]),
        st.integers(1, 4),
        st.lists(st.sampled_from(TICKERS), max_size=4),
    ),
    st.tuples(st.just("unsubscribe"), st.integers(1, 4), st.just([])),
    st.tuples(st.just("play"), st.integers(1, 30), st.just([])),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(COMMANDS, max_size=25), st.integers(0, 5))
def test_numbers_are_contiguous_from_one_on_every_sid_whatever_happens(
    commands: list[tuple[str, Any, list[str]]], seed: int
) -> None:
    source = generator(seed)
    client = Subscriptions(source)
    sent: list[Sent] = []
    now = NOW_NS
    for name, argument, tickers in commands:
        if name == "play":
            now += 20_000_000
            sent += [frame for message in source.take(now, argument) if (frame := client.number(message)) is not None]
            continue
        params: dict[str, Any] = {"market_tickers": tickers}
        if name == "subscribe":
            params["channels"] = [argument]
        elif name == "unsubscribe":
            params = {"sids": [argument]}
        else:
            params |= {"sid": argument, "action": name}
        cmd = name if name in ("subscribe", "unsubscribe") else "update_subscription"
        sent += client.command(json.dumps({"id": 1, "cmd": cmd, "params": params}).encode(), NOW_NS)

    numbers: dict[int, list[int]] = {}
    for frame in sent:
        parsed = json.loads(frame.frame)
        assert (parsed.get("sid"), parsed.get("seq")) == (frame.sid, frame.seq)
        if frame.sid is not None and frame.seq is not None:
            numbers.setdefault(frame.sid, []).append(frame.seq)
    for seqs in numbers.values():
        assert seqs == list(range(1, len(seqs) + 1))
