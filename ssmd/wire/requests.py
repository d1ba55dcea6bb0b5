"""What clients of the gateway may ask for: one JSON object per message, checked down to the last field.

What cannot be followed is a RequestError with a code for programs, a message that names the bad part, and what to do
next. `HINTS` has every code.
"""

import re
from typing import Any, Literal, NoReturn, TypeAlias, cast

import msgspec

from ssmd.errors import DataError
from ssmd.market.subjects import encode_ticker
from ssmd.nearest import nearest

ALL_SYMBOLS = "*"
ACTIONS = ("subscribe", "unsubscribe", "snapshot", "query", "ping")
MODES = ("realtime", "conflated", "latest")
CHANNELS = ("trade", "orderbook", "ticker", "status")
MAX_REQUEST_BYTES = 65_536
MAX_SYMBOLS = 1_024
MAX_ID_CHARS = 64
MAX_QUESTION_CHARS = 500
INTERVALS_MS = 10, 60_000
DEFAULT_INTERVAL_MS = 100

RequestId: TypeAlias = str | int | None
Mode: TypeAlias = Literal["realtime", "conflated", "latest"]

HINTS = {
    "too_large": f"Send at most {MAX_REQUEST_BYTES} bytes in one message, for example the symbols in several.",
    "bad_json": 'Send one JSON object as a text message, for example {"action":"ping"}.',
    "bad_request": 'Send one JSON object as a text message, for example {"action":"subscribe","symbols":["*"]}.',
    "bad_id": f"Leave id out, or give a whole number or a text of at most {MAX_ID_CHARS} characters.",
    "unknown_action": f"Use one of {', '.join(ACTIONS)}.",
    "unknown_field": "Correct the name of the field.",
    "unknown_mode": f"Use one of {', '.join(MODES)}.",
    "bad_interval": f'Use "mode":"conflated" and whole milliseconds, {INTERVALS_MS[0]} to {INTERVALS_MS[1]}.',
    "bad_channels": f"Leave channels out for all, or list some of {', '.join(CHANNELS)}.",
    "bad_symbols": 'Give symbols as a list of tickers, or ["*"] for all.',
    "bad_symbol": "Leave that symbol out, or take the ticker from GET /v1/markets.",
    "too_many_symbols": f'Name at most {MAX_SYMBOLS} symbols in one message, or subscribe to ["*"].',
    "bad_from_seq": "Give the seq of the last message that you have, with the first subscribe of a connection.",
    "bad_question": f'Give "natural_language": a question of 1 to {MAX_QUESTION_CHARS} characters.',
    "no_book": "Wait: the book is sent to its subscribers as soon as it is known.",
    "not_available": "Use GET /v1/markets with its filters.",
    "too_many_requests": "Ask again after a minute, and less often.",
}


class Request(msgspec.Struct, frozen=True):
    """What a client asks for.

    `symbols` are tickers or `*`; `channels` () means all; `mode` None means the connection's; `from_seq` is the number
    of the last message that the client has of this very subscription. `id` comes back in the answer.
    """

    action: str
    symbols: tuple[str, ...] = ()
    id: RequestId = None
    channels: tuple[str, ...] = ()
    mode: Mode | None = None
    interval_ms: int = 0
    from_seq: int | None = None
    natural_language: str = ""


_BYTE = re.compile(r"byte (\d+)")

FIELDS = Request.__struct_fields__


class RequestError(DataError):
    """A client's message that cannot be followed; `code` is for programs, the message and `next` for people."""

    def __init__(self, code: str, message: str, id: RequestId = None, next: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.id = id
        self.next = next or HINTS[code]


def parse_request(data: bytes | str) -> Request:
    """A client's message. RequestError (a DataError with a code) when it is not a request the gateway knows."""
    if len(data) > MAX_REQUEST_BYTES:
        raise RequestError("too_large", f"a request has at most {MAX_REQUEST_BYTES} bytes, this one {len(data)}")
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestError("bad_json", f"this is not JSON{_place(error)}") from error
    if not isinstance(fields, dict):
        raise RequestError("bad_request", "a request is a JSON object")
    return _Fields(fields).request()


class _Fields:
    """The fields of one request, checked one by one."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._id: RequestId = None

    def request(self) -> Request:
        for name in ("interval_ms", "from_seq"):  # to JSON Schema 3.0 is an integer
            value = self._fields.get(name)
            if isinstance(value, float) and value.is_integer():
                self._fields[name] = int(value)
        self._id = self._request_id()
        action = self._fields.get("action")
        if not isinstance(action, str) or action not in ACTIONS:
            said = f"there is no action {_short(action)}" if "action" in self._fields else "action is missing"
            self._refuse("unknown_action", said)
        for name in self._fields.keys() - set(FIELDS):
            if meant := nearest(name, FIELDS, 80.0):
                self._refuse("unknown_field", f"there is no field {_short(name)}; did you mean {meant!r}?")
        if action == "ping":
            return Request(action, id=self._id)
        if action == "query":
            return Request(action, id=self._id, natural_language=self._question())
        symbols = self._symbols(action)
        if action == "snapshot":
            return Request(action, symbols, self._id, self._channels())
        if action == "unsubscribe":
            return Request(action, symbols, self._id, self._channels())
        mode, interval_ms = self._mode()
        return Request(action, symbols, self._id, self._channels(), mode, interval_ms, self._from_seq())

    def _refuse(self, code: str, message: str) -> NoReturn:
        raise RequestError(code, message, self._id)

    def _request_id(self) -> RequestId:
        value = self._fields.get("id")
        if value is None or (_is_whole(value) and abs(value) < 1 << 63):
            return cast(RequestId, value)
        if isinstance(value, str) and len(value) <= MAX_ID_CHARS:
            return value
        return self._refuse("bad_id", f"id {_short(value)} cannot be repeated in the answer")

    def _symbols(self, action: str) -> tuple[str, ...]:
        value = self._fields.get("symbols")
        if action == "snapshot" and value is None:
            return ()
        if not isinstance(value, list) or not value:
            self._refuse("bad_symbols", f"{action} needs symbols: a list of tickers, or of *")
        if len(value) > MAX_SYMBOLS:
            self._refuse("too_many_symbols", f"at most {MAX_SYMBOLS} symbols, not {len(value)}")
        if action == "snapshot" and ALL_SYMBOLS in value:
            self._refuse("bad_symbol", "snapshot needs single tickers, not *")
        for place, symbol in enumerate(value, 1):
            if not isinstance(symbol, str):
                self._refuse("bad_symbols", f"symbol {place} of {len(value)} is {_short(symbol)}, not a text")
            try:
                encode_ticker(symbol)
            except DataError as error:
                message = f"symbol {place} of {len(value)}: {error.message}"
                raise RequestError("bad_symbol", message, self._id) from error
        return tuple(dict.fromkeys(value))

    def _channels(self) -> tuple[str, ...]:
        value = self._fields.get("channels")
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self._refuse("bad_channels", "channels is a list that is not empty")
        for channel in value:
            if channel not in CHANNELS:
                self._refuse("bad_channels", f"there is no channel {_short(channel)}")
        return tuple(channel for channel in CHANNELS if channel in value)

    def _mode(self) -> tuple[Mode | None, int]:
        mode, interval_ms = self._fields.get("mode"), self._fields.get("interval_ms")
        if mode is not None and mode not in MODES:
            self._refuse("unknown_mode", f"there is no mode {_short(mode)}")
        if mode != "conflated":
            if interval_ms is not None:
                self._refuse("bad_interval", f"interval_ms belongs to mode conflated, not to {mode or 'none'}")
            return mode, 0
        if interval_ms is None:
            return "conflated", DEFAULT_INTERVAL_MS
        if not _is_whole(interval_ms) or not INTERVALS_MS[0] <= interval_ms <= INTERVALS_MS[1]:
            self._refuse("bad_interval", f"interval_ms cannot be {_short(interval_ms)}")
        return "conflated", interval_ms

    def _from_seq(self) -> int | None:
        value = self._fields.get("from_seq")
        if value is not None and not (_is_whole(value) and 0 <= value < 1 << 63):
            self._refuse("bad_from_seq", f"from_seq cannot be {_short(value)}")
        return cast("int | None", value)

    def _question(self) -> str:
        value = self._fields.get("natural_language")
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_QUESTION_CHARS:
            self._refuse("bad_question", "query needs natural_language: a question")
        return value


def _place(error: Exception) -> str:
    """Where the parser stopped, when it says so."""
    found = _BYTE.search(str(error))
    return f": look at byte {int(found[1]) + 1}" if found else ""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    """What was sent, printable and cut."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else ascii(value)
    return text if len(text) <= 60 else text[:59] + "…"
