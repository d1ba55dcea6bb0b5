"""What a stream's messages mean, against a gateway of a few lines that cuts, skips and forgets anywhere."""

import json
import random
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.client.books import Books
from ssmd.client.errors import GatewayError
from ssmd.client.events import BookState, Event, Gap, Subscribed, Trade, decode
from ssmd.client.following import BOOKS, SUBSCRIBE, Follower, Wanted

ALL = ("trade", "orderbook", "ticker", "status")


def follower(*channels: str) -> Follower:
    return Follower(Wanted(("*",), channels or ALL, "realtime", 0), Books(), lambda: 1_000_000)


class Gateway:
    """Numbers, keeps and sends messages as the real one does; whole books are owed, and sent one by one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.books: dict[str, dict[str, Decimal]] = {}
        self.logs: dict[str, list[dict[str, Any]]] = {"all": [], "trade": []}
        self.base = {"all": 1_000, "trade": 500_000}
        self.group = ""
        self.due: list[dict[str, Any] | str] = []
        self.out: list[str] = []
        self.resumes = True
        self.trades = 0

    def seq(self, group: str) -> int:
        return self.base[group] + len(self.logs[group])

    def say(self, **fields: Any) -> None:
        self.out.append(json.dumps(fields, default=float))

    def happens(self, ticker: str) -> None:
        """A trade and a change of the book."""
        self.trades += 1
        price, size = self.rng.randrange(1, 99), self.rng.choice([0, 1, 2])
        kind = "delta" if ticker in self.books else "snapshot"
        book = self.books.setdefault(ticker, {})
        book[f"0.{price:02}"] = Decimal(size)
        delta = {"kind": kind, "bids": [[price / 100, size]], "asks": []}
        self.log(("all", "trade"), "trade", ticker,
                 price=0.5, size=1, side="buy", trade_id=str(self.trades))  # fmt: skip
        self.log(("all",), "orderbook", ticker, **delta)

    def log(self, groups: tuple[str, ...], type: str, ticker: str, **fields: Any) -> None:
        for group in groups:
            message = {"type": type, "feed": "f", "ticker": ticker, "ts": 1, **fields, "seq": self.seq(group) + 1}
            self.logs[group].append(message)
            if group == self.group:
                self.say(**message)

    def connect(self) -> None:
        self.out, self.due, self.group = [], [], ""

    def skip(self) -> None:
        """The client read too slowly: all that is on its way is lost."""
        lost = [json.loads(text) for text in self.out]
        numbers = [message["seq"] for message in lost if "seq" in message and message["type"] != "subscribed"]
        data = [message for message in lost if message["type"] in ("trade", "orderbook") and "seq" in message]
        if not numbers or len(data) < len(lost):
            return
        self.out = []
        self.say(type="gap", code="SKIPPED", reason="slow_reader", **{"from": numbers[0], "to": numbers[-1]},
                 books=sorted(self.books), message="")  # fmt: skip
        self.due += [ticker for ticker in self.books if ticker not in self.due]

    def follow(self, request: dict[str, Any]) -> None:
        if request["action"] == "snapshot":
            self.due.append({"type": "snapshot", "symbols": [], "missing": [], "id": request["id"]})
            return
        if request["action"] == "unsubscribe":
            self.due = [piece for piece in self.due if isinstance(piece, dict)]
            self.group = "trade"
            self.say(type="unsubscribed", symbols=["*"], channels=["trade"], seq=self.seq("trade"))
            return
        before, self.group = self.group, "all" if "orderbook" in request["channels"] else "trade"
        said = {"type": "subscribed", "symbols": ["*"], "mode": "realtime", "unknown": [], "id": request["id"]}
        said["channels"] = request["channels"]
        number, now = request.get("from_seq"), self.seq(self.group)
        if number is not None and self.resumes:
            self.say(**said, seq=number, resumed=True)
            for message in self.logs[self.group][number - self.base[self.group] :]:
                self.say(**message)
            return
        self.say(**said, seq=now, **({} if number is None else {"resumed": False}))
        if number is not None:
            self.say(type="gap", code="RESUME_FAILED", reason="not_kept", message="",
                     **{"from": min(number + 1, now), "to": now})  # fmt: skip
        if before != "all" and self.group == "all":
            self.due += list(self.books)

    def send_due(self) -> None:
        piece = self.due.pop(0)
        if isinstance(piece, dict):
            self.say(**piece)
        else:
            levels = [[float(price), size] for price, size in self.books[piece].items() if size]
            self.say(type="orderbook", feed="f", ticker=piece, kind="snapshot", ts=1, bids=levels, asks=[])


ACTS = st.lists(
    st.tuples(st.sampled_from(["event", "event", "event", "due", "read", "read", "cut", "forget", "skip"]),
              st.integers(0, 4)), max_size=150,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(ACTS, st.integers(0, 1 << 30))
def test_every_trade_comes_once_or_is_in_a_gap_and_books_end_up_right(acts: list[tuple[str, int]], seed: int) -> None:
    gateway, client = Gateway(random.Random(seed)), follower()
    seen: list[Event] = []

    def read(count: int) -> None:
        for text in gateway.out[:count]:
            events, requests = client.take(text)
            seen.extend(events)
            for request in requests:
                gateway.follow(request)
        del gateway.out[:count]

    gateway.connect()
    gateway.follow(client.opening())
    for act, n in acts:
        if act == "event":
            gateway.happens(f"T{n}")
        elif act == "due" and gateway.due:
            gateway.send_due()
        elif act == "read":
            read(n + 1)
        elif act == "skip":
            gateway.skip()
        elif act in ("cut", "forget"):
            client.lost()
            gateway.resumes = act == "cut"
            gateway.connect()
            gateway.follow(client.opening())
    while gateway.out or gateway.due:
        while gateway.due:
            gateway.send_due()
        read(1_000_000)
    gateway.happens("T0")
    read(1_000_000)

    ids = [int(event.trade_id) for event in seen if isinstance(event, Trade)]
    assert ids == sorted(set(ids))
    gaps = [event for event in seen if isinstance(event, Gap)]
    first = ids[0]
    if not gaps:
        assert ids == list(range(first, gateway.trades + 1))
    assert "hole" not in {event.kind for event in gaps}
    for ticker, levels in gateway.books.items():
        book = client.books[ticker]
        assert {str(level.price): level.size for level in book.bids} == {
            str(Decimal(price).normalize()): size for price, size in levels.items() if size
        }
        assert book.state == "live"


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200).map(lambda data: data.decode("latin-1")), st.text(max_size=200)))
def test_no_text_is_a_crash(text: str) -> None:
    client = follower()
    client.opening()
    assert client.take(text) == ([], [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=6), part, max_size=3),
    max_leaves=5,
)
TYPES = st.sampled_from(
    ["trade", "orderbook", "ticker", "status", "gap", "book_state", "subscribed", "unsubscribed", "system", "error",
     "snapshot", "heartbeat", "new-thing"]
)  # fmt: skip
FIELDS = st.dictionaries(
    st.sampled_from(["seq", "from", "to", "ts", "feed", "ticker", "price", "size", "bids", "asks", "kind", "channels",
                     "id", "code", "message", "state", "tickers", "books", "resumed", "mode", "symbols", "side"]),
    JSON | st.integers(0, 9) | st.sampled_from([SUBSCRIBE, BOOKS, "SKIPPED"]), max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TYPES, FIELDS), max_size=8))
def test_messages_of_any_shape_are_followed_or_an_error_of_ours(said: list[tuple[str, dict[str, Any]]]) -> None:
    client = follower()
    client.opening()
    errors: list[str] = []
    for kind, fields in said:
        try:
            client.take(json.dumps({"type": kind, **fields}))
        except GatewayError as error:
            errors.append(error.detail)
    assert all(text.isprintable() for text in errors)


def test_a_hole_in_the_numbers_is_told_and_the_books_are_asked_for_again() -> None:
    client = follower()
    client.opening()
    client.take('{"type":"subscribed","symbols":["*"],"channels":["trade","orderbook"],"seq":5,"unknown":[]}')
    client.take(json.dumps({"type": "snapshot", "id": BOOKS, "symbols": [], "missing": []}))
    trade = {"type": "trade", "feed": "f", "ticker": "A", "price": 0.1, "size": 1, "side": "buy", "ts": 1,
             "trade_id": "x"}  # fmt: skip
    events, requests = client.take(json.dumps(trade | {"seq": 9}))
    assert [type(event) for event in events] == [Gap, Trade]
    assert isinstance(events[0], Gap)
    assert (events[0].kind, events[0].from_seq, events[0].to_seq) == ("hole", 6, 8)
    assert [request["action"] for request in requests] == ["snapshot"]
    _, requests = client.take(json.dumps({"type": "snapshot", "id": BOOKS, "symbols": [], "missing": []}))
    assert [request["action"] for request in requests] == ["unsubscribe", "subscribe"]
    assert client.take(json.dumps(trade | {"seq": 9})) == ([], [])


def test_decimals_are_those_that_were_sent() -> None:
    text = '{"type":"trade","feed":"f","ticker":"A","price":0.1,"size":123456789012345678.123456,"side":"sell",'
    trade = decode(text + '"ts":1700000000123,"trade_id":"x"}')
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size) == (Decimal("0.1"), Decimal("123456789012345678.123456"))
    assert trade.time.isoformat() == "2023-11-14T22:13:20.123000+00:00"


def test_states_of_books_that_nobody_knows_are_only_told() -> None:
    client = follower()
    client.opening()
    client.take('{"type":"subscribed","symbols":["*"],"channels":["orderbook"],"seq":5,"unknown":[]}')
    events, _ = client.take('{"type":"book_state","feed":"f","state":"stale","tickers":["A"],"reason":"r","ts":1}')
    assert isinstance(events[0], BookState)
    assert not isinstance(events[0], Subscribed)
    assert len(client.books) == 0


SIGN = json.dumps({"type": "snapshot", "id": BOOKS, "symbols": [], "missing": []})
BEGUN = '{"type":"subscribed","symbols":["*"],"channels":["trade","orderbook","ticker","status"],"seq":5,"unknown":[]}'
WHOLE = '{"type":"orderbook","feed":"f","ticker":"A","kind":"snapshot","bids":[[0.5,1]],"asks":[],"ts":1}'


def skipped(first: int, last: int) -> str:
    return json.dumps({"type": "gap", "code": "SKIPPED", "from": first, "to": last, "books": ["A"], "reason": "slow"})


def test_a_book_that_missed_changes_is_not_live_until_it_comes_whole() -> None:
    client = follower()
    client.opening()
    for text in (BEGUN, WHOLE, SIGN):
        client.take(text)
    states = [str(client.books["A"].state)]
    for text in (skipped(6, 8), WHOLE):
        client.take(text)
        states.append(client.books["A"].state)
    client.lost()
    assert [*states, client.books["A"].state] == ["live", "syncing", "live", "away"]


def test_a_second_hole_is_waited_for_by_a_second_sign() -> None:
    client = follower()
    client.opening()
    for text in (BEGUN, WHOLE, SIGN, skipped(6, 8), skipped(9, 9)):
        client.take(text)
    _, requests = client.take(SIGN)
    assert [request["action"] for request in requests] == ["snapshot"]
    client.lost()
    assert client.opening()["from_seq"] == 9
    _, requests = client.take(BEGUN.replace('"seq":5', '"seq":9,"resumed":true'))
    assert [request["action"] for request in requests] == ["snapshot"], "some books were not received"


def test_a_failed_resume_is_told_even_when_the_connection_breaks_after_its_first_message() -> None:
    client = follower()
    client.opening()
    client.take(BEGUN)
    client.lost()
    client.opening()
    events, _ = client.take(BEGUN.replace('"seq":5', '"seq":9,"resumed":false'))
    assert [type(event) for event in events] == [Subscribed, Gap]
    gap = json.dumps({"type": "gap", "code": "RESUME_FAILED", "from": 6, "to": 9, "reason": "not_kept"})
    assert client.take(gap) == ([], [])
