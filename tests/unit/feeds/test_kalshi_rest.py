"""The REST client against a small HTTP server on the loopback, with waits that take no time."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ssmd.errors import ConfigError, DataError, RateLimited, SsmdError, Unavailable
from ssmd.feeds.kalshi import rest as kalshi_rest
from ssmd.feeds.kalshi.rest import KalshiRest, Limits
from ssmd.feeds.kalshi.rest_answers import NotListed, QueryRefused, parse_body
from ssmd.feeds.kalshi.throttle import Backoff, TokenBucket
from ssmd.registry.interface import ListedEvent
from tests.tapes import tape

Answer = Callable[[web.Request], web.StreamResponse]
JSON = "application/json"


class Exchange:
    """Answers with what a test lays out, in turn; the last answer stays."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request)

    def says(self, body: Any, status: int = 200, **headers: str) -> "Exchange":
        text = body if isinstance(body, str) else json.dumps(body)
        self.answers.append(lambda _request: web.Response(text=text, status=status, content_type=JSON, headers=headers))
        return self

    def queries(self) -> list[dict[str, str]]:
        return [dict(request.query) for request in self.requests]


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def base_url(exchange: Exchange) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", exchange.handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/trade-api/v2"))


@pytest.fixture
async def rest(base_url: str, clock: Clock) -> AsyncIterator[KalshiRest]:
    backoff = Backoff(attempts=4, uniform=lambda _low, high: high)
    async with KalshiRest(base_url, backoff=backoff, sleep=clock.sleep) as client:
        yield client


def market(ticker: str, **fields: Any) -> dict[str, Any]:
    times = {"open_time": "2026-11-22T16:00:00Z", "close_time": "2026-11-22T16:15:00Z"}
    return (
        {"ticker": ticker, "event_ticker": "E", "status": "active", "result": "", "yes_sub_title": "up"}
        | times
        | fields
    )


async def test_markets_are_read_page_by_page_to_the_empty_cursor(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"markets": [market("A"), market("B")], "cursor": "c1"})
    exchange.says({"markets": [], "cursor": "c2"}).says({"markets": [market("C", floor_strike=1.5)], "cursor": ""})
    markets = [each async for each in rest.markets(status="open", mve_filter="exclude")]
    assert [each.ticker for each in markets] == ["A", "B", "C"]
    assert (markets[0].title, markets[0].status, markets[0].close_time) == ("up", "active", "2026-11-22T16:15:00Z")
    assert markets[2].raw["floor_strike"] == 1.5
    first = {"status": "open", "mve_filter": "exclude", "limit": "1000"}
    assert exchange.queries() == [first, {**first, "cursor": "c1"}, {**first, "cursor": "c2"}]
    assert exchange.requests[0].path == "/trade-api/v2/markets"


async def test_many_tickers_are_asked_for_in_pieces_that_fit_a_url(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"markets": [], "cursor": ""})
    tickers = [f"TEST-26NOV22-{n:05d}" for n in range(1000)]
    assert [each async for each in rest.markets(tickers=tickers)] == []
    asked = [query["tickers"] for query in exchange.queries()]
    assert ",".join(asked).split(",") == tickers
    assert max(len(each) for each in asked) <= 6_200
    assert [each async for each in rest.markets(tickers=[])] == []
    assert len(exchange.requests) == len(asked)
    with pytest.raises(DataError, match="comma"):
        _ = [each async for each in rest.markets(tickers=["A,B"])]


async def test_a_cursor_that_comes_twice_ends_the_loop_with_an_error(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"markets": [market("A")], "cursor": "x"}).says({"markets": [], "cursor": "y"})
    exchange.says({"markets": [], "cursor": "x"})
    with pytest.raises(DataError, match="'x' came twice after 2 pages"):
        _ = [each async for each in rest.markets()]


async def test_a_list_without_end_is_an_error_however_few_objects_its_pages_hold(
    base_url: str, exchange: Exchange
) -> None:
    for page in range(10):
        exchange.says({"markets": [], "cursor": f"c{page}"})
    async with KalshiRest(base_url, limits=Limits(pages=5)) as rest:
        with pytest.raises(DataError, match=r"/markets: the list has no end after 5 pages"):
            _ = [each async for each in rest.markets()]
    assert len(exchange.requests) == 5
    exchange.answers.clear()
    for page in range(4):
        exchange.says({"markets": [market(f"A{page}")], "cursor": f"c{page}"})
    exchange.says({"markets": [market("LAST")], "cursor": ""})
    async with KalshiRest(base_url, limits=Limits(pages=5)) as rest:
        assert len([each async for each in rest.markets()]) == 5


@pytest.mark.parametrize("trouble", ["no server", "busy", "no list", "cursor", "endless", "too large", "exchange"])
async def test_no_error_shows_the_password_of_the_address(
    base_url: str, exchange: Exchange, clock: Clock, trouble: str
) -> None:
    url = base_url.replace("http://", "http://user:SECRET@")
    if trouble == "no server":
        url = "http://user:SECRET@127.0.0.1:9/v2"
    elif trouble == "busy":
        exchange.says({"error": f"busy: {url}"}, 429)
    elif trouble == "no list":
        exchange.says({})
    elif trouble == "cursor":
        exchange.says({"markets": [], "cursor": "x"})
    elif trouble == "endless":
        exchange.says({"markets": [], "cursor": "x"}).says({"markets": [], "cursor": "y"})
    elif trouble == "too large":
        exchange.says({"markets": ["x" * 1000]})
    else:
        exchange.says({"error": "gateway"}, 503)
    backoff = Backoff(attempts=2)
    async with KalshiRest(url, backoff=backoff, sleep=clock.sleep, limits=Limits(body_bytes=500, pages=2)) as rest:
        asked = rest.exchange_status() if trouble == "exchange" else anext(aiter(rest.markets()))
        with pytest.raises(SsmdError) as caught:
            await asked
    assert "SECRET" not in f"{caught.value}"
    assert "http://user:***@127.0.0.1" in caught.value.message
    async with KalshiRest("nonsense user:SECRET@x", sleep=clock.sleep) as rest:
        with pytest.raises(SsmdError):
            _ = [each async for each in rest.markets()]


async def test_events_come_in_pages_without_their_markets(rest: KalshiRest, exchange: Exchange) -> None:
    event = {"event_ticker": "E", "series_ticker": "S", "title": "t", "last_updated_ts": "2026-11-21T15:00:00Z"}
    exchange.says({"events": [{**event, "markets": [market("A")]}, {"title": "no ticker"}], "cursor": ""})
    pages = [page async for page in rest.event_pages(status="open")]
    assert pages == [[ListedEvent("E", "S", "t", "", "2026-11-21T15:00:00Z", event)]]
    assert rest.malformed == 1
    exchange.answers.clear()
    exchange.says({"events": [], "cursor": ""})
    assert [page async for page in rest.event_pages(["E", "F"], multivariate=True)] == [[]]
    assert [(request.path, dict(request.query)) for request in exchange.requests] == [
        ("/trade-api/v2/events", {"limit": "200", "status": "open"}),
        ("/trade-api/v2/events/multivariate", {"limit": "200", "tickers": "E,F"}),
    ]


async def test_series_and_trades_are_read(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"series": None})
    assert await rest.series(min_updated_ts=5) == []
    exchange.answers.clear()
    exchange.says({"series": [{"ticker": "S", "category": "Crypto"}, 7]})
    assert [(each.ticker, each.category) for each in await rest.series()] == [("S", "Crypto")]
    exchange.answers.clear()
    exchange.says({"trades": [{"trade_id": "1"}, {"trade_id": "0"}], "cursor": ""})
    assert [each["trade_id"] async for each in rest.trades("A", 1, 2)] == ["1", "0"]
    assert exchange.queries() == [
        {"min_updated_ts": "5"},
        {},
        {"ticker": "A", "min_ts": "1", "max_ts": "2", "limit": "1000"},
    ]


async def test_markets_that_settled_long_ago_are_asked_for_elsewhere(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"markets": [market("A", status="finalized")], "cursor": ""})
    assert [each.status async for each in rest.historical_markets(["A"])] == ["finalized"]
    assert exchange.requests[0].path == "/trade-api/v2/historical/markets"
    assert exchange.queries() == [{"limit": "1000", "tickers": "A"}]


async def test_a_malformed_market_is_left_out_and_counted(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"markets": [market("A"), {"title": "no ticker"}, 7, None, market("")], "cursor": ""})
    assert [each.ticker async for each in rest.markets()] == ["A"]
    assert rest.malformed == 4


async def test_a_flood_of_malformed_objects_is_one_line_in_the_log(
    rest: KalshiRest, exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange.says({"markets": [None, *([{}] * 999)], "cursor": ""})
    assert [each async for each in rest.markets()] == []
    lines = [line for line in capsys.readouterr().out.splitlines() if "malformed" in line]
    assert len(lines) == 1
    assert "objects=1000" in lines[0]


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        ({"title": "no \x1b[31mticker"}, ["ticker= ", "reason='it has no ticker'", "title='no \ufffd[31mticker'"]),
        ({"ticker": 7, "title": {}}, ["ticker=7", "reason='its ticker is a number, not a text'"]),
        (["A"], ["ticker= ", "reason='a list where an object was expected'"]),
        (None, ["ticker= ", "reason='null where an object was expected'"]),
    ],
)
async def test_a_malformed_object_is_told_by_ticker_and_reason(
    rest: KalshiRest, exchange: Exchange, capsys: pytest.CaptureFixture[str], item: Any, fields: list[str]
) -> None:
    exchange.says({"markets": [market("A"), item], "cursor": ""})
    assert [each.ticker async for each in rest.markets()] == ["A"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "malformed" in line]
    assert [field for field in fields if field not in f"{line} "] == []
    assert "{" not in line


ERROR_BODIES = [
    ({"code": "too_many", "message": "slow down", "details": "d"}, "too_many: slow down: d"),
    ({"error": {"code": "not_found", "message": "not found"}}, "not_found: not found"),
    ({"error": "too many requests"}, "too many requests"),
    ("<html>502 Bad Gateway</html>", "502 Bad Gateway"),
    ("", "an empty body"),
    ("[1]", "[1]"),
    ({"error": None}, "error"),
]


@pytest.mark.parametrize(("body", "says"), ERROR_BODIES)
@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [(429, RateLimited, 4), (500, Unavailable, 4), (503, Unavailable, 4), (302, Unavailable, 4),
     (400, QueryRefused, 1), (404, NotListed, 1), (401, ConfigError, 1), (403, ConfigError, 1)],
)  # fmt: skip
async def test_every_error_body_gives_the_error_of_its_status(
    rest: KalshiRest, exchange: Exchange, body: Any, says: str, status: int, kind: type[SsmdError], attempts: int
) -> None:
    exchange.says(body, status)
    with pytest.raises(kind) as caught:
        _ = [each async for each in rest.markets()]
    assert f"status {status}" in str(caught.value)
    assert says in str(caught.value)
    assert len(exchange.requests) == attempts


async def test_a_busy_exchange_is_asked_again_after_growing_waits(
    rest: KalshiRest, exchange: Exchange, clock: Clock
) -> None:
    exchange.says({"error": "too many requests"}, 429).says("oops", 502)
    exchange.says({"error": "too many requests"}, 429, **{"Retry-After": "7"})
    exchange.says({"markets": [market("A")], "cursor": ""})
    assert [each.ticker async for each in rest.markets()] == ["A"]
    assert clock.slept == [0.5, 1.0, 7.0]


async def test_a_server_that_is_not_there_is_unavailable(clock: Clock) -> None:
    async with KalshiRest("http://127.0.0.1:9", backoff=Backoff(attempts=2), sleep=clock.sleep) as rest:
        with pytest.raises(Unavailable, match=r"GET http://127.0.0.1:9/markets"):
            _ = [each async for each in rest.markets()]
    async with KalshiRest("nonsense", sleep=clock.sleep) as rest:
        with pytest.raises(ConfigError, match=r"spec\.endpoints\.rest"):
            _ = [each async for each in rest.markets()]


async def test_a_redirect_is_not_followed_with_our_headers(rest: KalshiRest, exchange: Exchange, base_url: str) -> None:
    exchange.says("", 302, Location=f"{base_url}/elsewhere")
    exchange.says("", 302, Location=f"{base_url}/elsewhere")
    with pytest.raises(Unavailable, match="status 302"):
        _ = [each async for each in rest.markets()]
    assert {request.path for request in exchange.requests} == {"/trade-api/v2/markets"}


async def test_a_connection_cut_in_the_middle_of_a_body_is_tried_again(
    rest: KalshiRest, exchange: Exchange, base_url: str
) -> None:
    whole = json.dumps({"markets": [market("A")], "cursor": ""})

    class Cut(web.Response):
        async def write_eof(self, data: bytes = b"") -> None:
            transport = exchange.requests[-1].transport
            assert transport is not None
            transport.close()

    exchange.answers.append(lambda _request: Cut(headers={"Content-Length": "1000"}, text="{"))
    exchange.says(whole)
    assert [each.ticker async for each in rest.markets()] == ["A"]
    assert len(exchange.requests) == 2


@pytest.mark.parametrize("body", ["<html>\n<b>Sorry</b>", "null", "[1]", "", '{"markets":'])
@pytest.mark.parametrize("status", [200, 404, 502])
async def test_an_answer_that_is_not_json_is_told_in_words_with_the_next_command(
    base_url: str, exchange: Exchange, clock: Clock, body: str, status: int
) -> None:
    exchange.says(body, status)
    backoff = Backoff(attempts=2)
    async with KalshiRest(base_url, backoff=backoff, sleep=clock.sleep, environment="kalshi-prod") as rest:
        with pytest.raises(SsmdError) as caught:
            _ = [each async for each in rest.markets()]
    if body:
        assert "answered with something that is not the JSON expected: '" in caught.value.message
    else:
        assert "an empty body" in caught.value.message
    assert "\n" not in caught.value.message
    if status == 200:
        assert "ssmd feed show kalshi" in caught.value.hint
        assert "kalshi-prod" in caught.value.hint
    elif status == 502:
        assert "ssmd status" in caught.value.hint


async def test_a_refused_login_names_the_environment_and_what_was_sent(base_url: str, exchange: Exchange) -> None:
    exchange.says({"error": "who are you"}, 401)
    for auth, hint in ((lambda *_: {}, "Run: ssmd key set kalshi-prod kalshi "), (None, "No key is needed here")):
        async with KalshiRest(base_url, auth=auth, environment="kalshi-prod") as rest:
            with pytest.raises(ConfigError) as caught:
                await rest.series()
        assert caught.value.hint.startswith(hint)
        assert "kalshi-prod" in caught.value.hint
        assert "ENV" not in caught.value.hint.replace("SSMD_KEY", "")


async def test_an_exchange_that_is_silent_is_said_to_be_so_for_how_long(clock: Clock) -> None:
    over = asyncio.Event()

    async def silence(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/{path:.*}", silence)
    async with TestServer(app) as server:
        url = str(server.make_url("/v2"))
        async with KalshiRest(
            url, backoff=Backoff(attempts=1), sleep=clock.sleep, limits=Limits(timeout_s=0.02)
        ) as rest:
            with pytest.raises(Unavailable) as caught:
                await rest.series()
        over.set()
    assert caught.value.message == f"GET {url}/series: no whole answer within 0.02 s"


async def test_pages_are_decoded_beside_the_event_loop(
    rest: KalshiRest, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def recorded(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*arguments)

        return call

    for name in ("parse_body", "to_market"):
        monkeypatch.setattr(f"ssmd.feeds.kalshi.rest.{name}", recorded(getattr(kalshi_rest, name)))
    exchange.says({"markets": [market("A"), market("B")], "cursor": ""})
    assert [each.ticker async for each in rest.markets()] == ["A", "B"]
    assert len(threads) == 3
    assert threading.main_thread() not in threads


def test_a_page_is_read_object_by_object(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"markets": [market(f"A{n}") for n in range(50)], "cursor": "c"}).encode()
    longest = 0

    class Decoder:
        def decode(self, raw: Any) -> Any:
            nonlocal longest
            longest = max(longest, len(bytes(raw)))
            return json.loads(bytes(raw))

    monkeypatch.setattr("ssmd.feeds.kalshi.rest_answers._VALUE", Decoder())
    assert parse_body(body) == json.loads(body)
    assert longest < 200


@pytest.mark.parametrize(
    "body", ["not json", "[]", "42", '{"markets":{}}', '{"other":[]}', '{"markets":[],"cursor":7}']
)
async def test_an_answer_of_the_wrong_shape_is_a_data_error(rest: KalshiRest, exchange: Exchange, body: str) -> None:
    exchange.says(body)
    with pytest.raises(DataError):
        _ = [each async for each in rest.markets()]
    assert len(exchange.requests) == 1


async def test_a_body_is_bounded(base_url: str, exchange: Exchange) -> None:
    exchange.says({"markets": [market("A", title="x" * 100_000)], "cursor": ""})
    async with KalshiRest(base_url, limits=Limits(body_bytes=50_000)) as rest:
        with pytest.raises(DataError, match="larger than 50000 bytes"):
            _ = [each async for each in rest.markets()]


async def test_the_exchange_s_state_is_an_answer_even_when_it_is_away(rest: KalshiRest, exchange: Exchange) -> None:
    exchange.says({"exchange_active": False, "trading_active": False}, 503)
    assert (await rest.exchange_status())["trading_active"] is False
    exchange.answers.clear()
    exchange.says({"error": "gateway"}, 503)
    with pytest.raises(Unavailable, match="gateway"):
        await rest.exchange_status()


async def test_requests_are_signed_when_there_are_credentials(base_url: str, exchange: Exchange) -> None:
    exchange.says({"markets": [], "cursor": ""})
    seen: list[tuple[str, str]] = []

    def auth(method: str, path: str, now_ms: int) -> dict[str, str]:
        seen.append((method, path))
        return {"KALSHI-ACCESS-TIMESTAMP": str(now_ms)}

    async with KalshiRest(base_url, auth=auth) as rest:
        assert [each async for each in rest.markets(status="open")] == []
    assert seen == [("GET", "/trade-api/v2/markets")]
    assert len(exchange.requests[0].headers["KALSHI-ACCESS-TIMESTAMP"]) == 13


async def test_a_session_from_outside_is_left_open(base_url: str, exchange: Exchange) -> None:
    exchange.says({"markets": [], "cursor": ""})
    async with aiohttp.ClientSession() as session:
        async with KalshiRest(base_url, session) as rest:
            assert [each async for each in rest.markets()] == []
        assert not session.closed


async def test_the_bucket_lets_a_burst_through_and_then_keeps_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(20, 60, clock.now, clock.sleep)
    times = []
    for _ in range(100):
        await bucket.take()
        times.append(clock.now_s)
    assert times[59] == 0.0
    assert times[60:] == pytest.approx([(n + 1) / 20 for n in range(40)])
    clock.now_s += 1_000
    before = clock.now_s
    await asyncio.gather(*(bucket.take() for _ in range(61)))
    assert clock.now_s - before == pytest.approx(1 / 20)


def test_waits_are_bounded_in_number_length_and_sum() -> None:
    backoff = Backoff(attempts=5, total_s=60, first_s=1, longest_s=15, uniform=lambda _low, high: high)
    assert [backoff.wait_s(attempt, 0, None) for attempt in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, None]
    assert Backoff(attempts=50, uniform=lambda _low, high: high).wait_s(40, 0, None) == 15
    assert backoff.wait_s(1, 59.5, None) is None
    assert backoff.wait_s(1, 0, 61) is None
    low = Backoff(uniform=lambda low, _high: low)
    assert low.wait_s(1, 0, None) == 0


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_bucket_that_would_never_fill_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="positive rate"):
        TokenBucket(rate, burst)


@pytest.mark.replay
async def test_recorded_bodies_of_today_and_of_january_become_markets(rest: KalshiRest, exchange: Exchange) -> None:
    seen = 0
    for folder, wrapped in (("kalshi_rest_2026-09-25", False), ("kalshi_golden_2026-01", True)):
        for path in sorted(tape(folder).glob("markets_*.json")):
            body = json.loads(path.read_text())
            body = body["response"] if wrapped else body
            exchange.answers.clear()
            exchange.says({**body, "cursor": ""})
            markets = [each async for each in rest.markets()]
            assert [each.ticker for each in markets] == [each["ticker"] for each in body["markets"]]
            assert [each.raw for each in markets] == body["markets"]
            assert all(each.title and each.event_ticker and each.status and each.close_time for each in markets)
            seen += len(markets)
    assert seen > 10
    assert rest.malformed == 0


def test_a_lone_surrogate_in_one_title_does_not_cost_the_page() -> None:
    body = parse_body(b'{"markets":[{"ticker":"A","title":"lone \\ud800 surrogate"},{"ticker":"B"}],"cursor":""}')
    assert isinstance(body, dict)
    assert [market["ticker"] for market in body["markets"]] == ["A", "B"]
    assert parse_body(b'{"title":"\\ud800"') is None
