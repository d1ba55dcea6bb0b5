"""Row: the normalizer, frame to Cap'n Proto bytes with the state of every book."""

from collections.abc import Callable
from functools import partial

from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.wire import normalized
from tests.bench.broker import FEED
from tests.bench.connector import CONNECTION
from tests.bench.frames import Tape
from tests.bench.measure import Lap, timed
from tests.bench.naive import NaiveNormalizer

_BATCH = 256
_RECEIVED_NS = 1_795_363_200_000_000_000


def _ours(tape: Tape) -> Callable[[list[bytes]], list[bytes]]:
    decode, mapper, encode = KalshiDecoder().decode, KalshiMapper(FEED, CONNECTION), normalized.encode

    def normalize(frames: list[bytes]) -> list[bytes]:
        take = mapper.map
        events = [take(decode(frame), _RECEIVED_NS) for frame in frames]
        return [encode(event) for event in events if event is not None]

    normalize(tape.opening)
    return normalize


def _naive(tape: Tape) -> Callable[[list[bytes]], list[bytes]]:
    normalizer = NaiveNormalizer(FEED, CONNECTION)

    def normalize(frames: list[bytes]) -> list[bytes]:
        messages = [normalizer.normalize(frame, _RECEIVED_NS) for frame in frames]
        return [message[1] for message in messages if message is not None]

    normalize(tape.opening)
    return normalize


def _lap(normalize: Callable[[list[bytes]], list[bytes]], frames: list[bytes]) -> Lap:
    def work(begin: int, end: int) -> None:
        for start in range(begin, end, _BATCH):
            normalize(frames[start : min(start + _BATCH, end)])

    warm = len(frames) // 4  # a service runs for a day: its first seconds are left out
    work(0, warm)
    return timed(len(frames) - warm, partial(work, warm, len(frames)))


async def ours(tape: Tape, frames: int) -> Lap:
    """One lap of ssmd."""
    return _lap(_ours(tape), tape.frames[:frames])


async def naive(tape: Tape, frames: int) -> Lap:
    """One lap of the baseline."""
    return _lap(_naive(tape), tape.frames[:frames])


def check_equal(tape: Tape, frames: int = 2_000) -> None:
    """Both do the same work: RuntimeError when an event of the first `frames` frames differs."""
    decode, mapper = KalshiDecoder().decode, KalshiMapper(FEED, CONNECTION)
    their_normalize = NaiveNormalizer(FEED, CONNECTION).normalize
    for number, frame in enumerate((tape.opening + tape.frames)[: len(tape.opening) + frames]):
        ours = mapper.map(decode(frame), _RECEIVED_NS)
        theirs = their_normalize(frame, _RECEIVED_NS)
        if ours is None or theirs is None:
            same = ours is None and theirs is None
        else:
            same = normalized.decode(normalized.event_type_of(ours), theirs[1]) == ours
        if not same:
            raise RuntimeError(f"the baseline makes something else of frame {number}: {frame[:200]!r}")
