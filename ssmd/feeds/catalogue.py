"""Which code speaks for a feed on a date: decoders change when an exchange changes its messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from ssmd.errors import ConfigError
from ssmd.feeds.interface import Decoded, Decoder, ListedTrade, Mapper, ReadFrame, Session
from ssmd.feeds.kalshi.archived import frame_reader
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.legacy import LegacyKalshiDecoder
from ssmd.feeds.kalshi.listed_trades import to_listed_trade
from ssmd.feeds.kalshi.mapper import EVENTLESS, KalshiMapper
from ssmd.feeds.kalshi.market_fields import VOLATILE, settlement_millionths, status_of
from ssmd.feeds.kalshi.session import DEFAULT_CHANNELS, KalshiSession
from ssmd.feeds.kalshi.signing import secret_problem, sign_headers
from ssmd.market.events import Event, Status
from ssmd.nearest import did_you_mean

if TYPE_CHECKING:
    import aiohttp

    from ssmd.feeds.kalshi.rest import KalshiRest

FIRST_DAY = date(2021, 6, 30)


class OpenSession(Protocol):
    """Makes the session that goes with a mapper; both live as long as one connection."""

    def __call__(
        self,
        mapper: Mapper,
        wants: Callable[[str], bool] = ...,
        channels: Sequence[str] = ...,
        max_tickers: int = ...,
    ) -> Session:
        """`wants` chooses among markets heard of while connected; `channels` are the exchange's names."""
        ...


@dataclass(frozen=True)
class FeedParts:
    """What a service needs to speak with an exchange, or to read what it said on a date.

    `new_mapper(connection)` and `new_session(mapper, ...)` make the state of one connection. `sign(key_id,
    private_key_pem, method, path, now_ms)` gives the headers of an authenticated request; `secret_problem(field,
    value)` says what a value of its key is in place of what is needed, "" when it is right. `new_rest(base_url, ...)`
    opens the REST client. `volatile` names the fields of a listed market that trading changes, `status_of(word)` is the
    state that the exchange's word for it means, `settlement_millionths(text)` a settlement value in millionths,
    `listed_trade(item)` a trade of the REST client's `trades`. `new_reader(mapper)` makes what reads the archive's
    frames: decoder and mapper in one step. `eventless` are the problems of frames that give no event and need not: of a
    kind that nobody knows, out of sequence, or about what is not followed.
    """

    feed: str
    version: str
    decoder: Decoder
    new_mapper: Callable[[str], Mapper]
    new_session: OpenSession
    sign: Callable[[str, str, str, str, int], dict[str, str]]
    secret_problem: Callable[[str, str], str]
    new_rest: Callable[..., "KalshiRest"]
    volatile: frozenset[str]
    status_of: Callable[[str], Status]
    settlement_millionths: Callable[[str], int | None]
    listed_trade: Callable[[object], ListedTrade | None]
    new_reader: Callable[[Mapper], ReadFrame]
    eventless: frozenset[str]


@dataclass(frozen=True)
class Version:
    """The message format of a feed from `first` to `last` (inclusive; None: until today and beyond)."""

    name: str
    first: date
    last: date | None
    decoder: Callable[[], Decoder]


KALSHI = (
    Version("integer-cents", FIRST_DAY, date(2026, 3, 11), LegacyKalshiDecoder),
    Version("fixed-point", date(2026, 3, 12), None, KalshiDecoder),
)
FEEDS: dict[str, tuple[Version, ...]] = {"kalshi": KALSHI}


def check_versions(feed: str, versions: Sequence[Version]) -> None:
    """ValueError unless each version ends the day before the next begins and the last is open."""
    if not versions or versions[-1].last is not None:
        raise ValueError(f"feed {feed}: the last version must be open-ended")
    for version in versions:
        if version.last is not None and version.last < version.first:
            raise ValueError(f"feed {feed}: version {version.name} ends before it begins")
    for before, after in pairwise(versions):
        if before.last is None or before.last.toordinal() + 1 != after.first.toordinal():
            raise ValueError(f"feed {feed}: version {after.name} must begin the day after {before.name} ends")


for _feed, _versions in FEEDS.items():
    check_versions(_feed, _versions)


def open_feed(name: str, on: date) -> FeedParts:
    """The parts of feed `name` as its messages were on day `on`.

    Raises ConfigError for an unknown feed, with near misses, and for a day before the feed's first version.
    """
    versions = FEEDS.get(name)
    if versions is None:
        otherwise = f"Known feeds: {', '.join(sorted(FEEDS))}."
        raise ConfigError(f"feed {name[:80]!r} is unknown", did_you_mean(name, FEEDS, otherwise))
    for version in versions:
        if version.first <= on and (version.last is None or on <= version.last):
            return _parts(name, version)
    raise ConfigError(f"feed {name!r} has no message format for {on}", f"its first day is {versions[0].first}")


def _parts(feed: str, version: Version) -> FeedParts:
    def new_mapper(connection: str) -> Mapper:
        return KalshiMapper(feed, connection)

    decoder = version.decoder()

    def new_reader(mapper: Mapper) -> ReadFrame:
        if isinstance(decoder, KalshiDecoder) and isinstance(mapper, KalshiMapper):
            return frame_reader(decoder, mapper)
        return partial(_read, decoder.decode, mapper.map)

    return FeedParts(
        feed, version.name, decoder, new_mapper, _new_session, sign_headers,
        secret_problem, _new_rest, VOLATILE, status_of, settlement_millionths,
        to_listed_trade, new_reader, EVENTLESS,
    )  # fmt: skip


def _read(
    decode: Callable[[bytes], Decoded], map_decoded: Callable[[Decoded, int], Event | None], frame: bytes, at_ns: int
) -> tuple[Event | None, str]:
    decoded = decode(frame)
    return map_decoded(decoded, at_ns), decoded.problem


def _new_session(
    mapper: Mapper,
    wants: Callable[[str], bool] = lambda _ticker: True,
    channels: Sequence[str] = DEFAULT_CHANNELS,
    max_tickers: int = 20_000,
) -> Session:
    return KalshiSession(wants, channels, lambda: mapper.stale_tickers, max_tickers)


def _new_rest(base_url: str, session: "aiohttp.ClientSession | None" = None, *, environment: str = "") -> "KalshiRest":
    # Imported here: decoding needs no HTTP, and commands that only read the archive should start fast.
    from ssmd.feeds.kalshi.rest import KalshiRest

    return KalshiRest(base_url, session, environment=environment)
