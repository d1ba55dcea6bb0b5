"""The stream's events against those that raw gives: which are missing, and which should not be there."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from ssmd.archive.layout import SegmentObject
from ssmd.archive.normalize import identity_of
from ssmd.archive.reader import read_messages
from ssmd.archive.segments import symbol_of
from ssmd.archive.spill import Spill
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.normalized import decode

_DIGEST_BYTES = 16


async def read_stream(storage: Storage, bucket: str, segments: Sequence[SegmentObject], spill: Spill) -> None:
    """Put the identities of the segments' events into `spill`, by type and ticker; DataError as `read_messages`."""
    for its in segments:
        async for messages in read_messages(storage, bucket, its.key):
            for message in messages:
                symbol = symbol_of(decode(its.type, message))
                spill.add((its.type, symbol), digest(identity_of(its.type, message)))


class StreamComparison:
    """Made with what `read_stream` filled; `ticker` for each file from raw, then `finish`.

    `missing`: events that raw has and the stream had not, by type; `only`: the other way round.
    """

    def __init__(self, stream: Spill) -> None:
        self._stream = stream
        self._left = set(stream.sorted_keys())
        self.missing: Counter[str] = Counter()
        self.only: Counter[str] = Counter()

    def ticker(self, event_type: str, symbol: str, identities: Counter[bytes]) -> None:
        """All events of one type and ticker, as raw gives them: digests of their identities."""
        key = (event_type, symbol)
        self._left.discard(key)
        stream = Counter(chain.from_iterable(self._stream.lists(key)))
        if event_type == "trade":
            # Beyond its window for duplicates the broker keeps a repeated trade; raw keeps each once.
            stream = Counter(stream.keys())
        self.missing[event_type] += (identities - stream).total()
        self.only[event_type] += (stream - identities).total()

    def finish(self) -> None:
        """Count the tickers that raw does not have."""
        for key in self._left:
            self.only[key[0]] += len(set(chain.from_iterable(self._stream.lists(key))))
        self._left.clear()


def digest(identity: bytes) -> bytes:
    """What stands for an identity in a comparison."""
    return hashlib.blake2b(identity, digest_size=_DIGEST_BYTES).digest()
