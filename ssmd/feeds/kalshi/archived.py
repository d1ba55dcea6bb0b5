"""Frames of the archive to events in one step: what decoder and mapper do one after the other, for the usual frame."""

from collections.abc import Callable
from typing import Any

from ssmd.feeds.interface import ReadFrame
from ssmd.feeds.kalshi.decoder import DECODE_ERRORS, KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.messages import KIND_OF, decode_strict
from ssmd.market.events import Event

_FLAT = {kind: name for kind, (name, group) in KIND_OF.items() if group in ("orderbook", "trades", "ticker")}


def frame_reader(decoder: KalshiDecoder, mapper: KalshiMapper) -> ReadFrame:
    """Reads frames as `mapper.map(decoder.decode(frame), received_ns)` does; a decoder's problem is told as well.

    Live, a frame must also be filed under its name and group; here it only has to be read. Market data in sequence
    takes the short way; everything else, and everything that is wrong, goes through decoder and mapper.
    """
    handlers: dict[type, Callable[[Any, int], Event | None]] = {
        kind: mapper.handlers[name] for kind, name in _FLAT.items()
    }
    last = mapper.last
    decode, map_decoded, handler_of = decoder.decode, mapper.map, handlers.get

    def read(frame: bytes, received_ns: int) -> tuple[Event | None, str]:
        try:
            message = decode_strict(frame)
        except DECODE_ERRORS:
            message = None
        handler = handler_of(message.__class__)
        if handler is not None:
            sid, seq = message.sid, message.seq
            if sid is None or seq is None:
                mapper.received_ns = received_ns
                return handler(message, received_ns), ""
            if last.get(sid, 0) + 1 == seq:
                last[sid] = seq
                mapper.received_ns = received_ns
                return handler(message, received_ns), ""
        decoded = decode(frame)
        return map_decoded(decoded, received_ns), decoded.problem

    return read
