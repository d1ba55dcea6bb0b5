"""What the HTTP API consists of: routes with their parameters, scope and answer; read by the server and by its docs.

A handler gets an `Ask` whose values were checked already, and returns a document that `msgspec` can encode (then sent
as JSON) or a whole response. Whatever is wrong with a request is one `ApiProblem` that names the bad part.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from ssmd.errors import DataError
from ssmd.gateway.caller import CALLER, Caller, Scope
from ssmd.gateway.problems import ApiProblem
from ssmd.market.subjects import MAX_TICKER_BYTES, encode_ticker
from ssmd.nearest import did_you_mean

MAX_QUERY_CHARS = 8_192
MAX_TEXT_CHARS = 256
_BARE = re.compile(r"\{(\w+)\}")

SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Parameter(msgspec.Struct, frozen=True):
    """One value of a request. `read` turns its text into the value, and raises ValueError with what it should be."""

    name: str
    read: Callable[[str], Any]
    schema: dict[str, Any]
    description: str
    where: Literal["path", "query"] = "query"
    default: Any = None
    required: bool = False


class Ask:
    """A checked request: `ask["limit"]` is a parameter's value, `caller` who asks, `body` the decoded JSON body."""

    def __init__(self, request: web.Request, values: Mapping[str, Any], caller: Caller, body: Any = None) -> None:
        self.request = request
        self.caller = caller
        self.body = body
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]


class Reply(msgspec.Struct, frozen=True):
    """A document that is sent with headers of its own."""

    document: object
    headers: Mapping[str, str]


Handler: TypeAlias = Callable[[Ask], Awaitable[object]]


class Route(msgspec.Struct, frozen=True):
    """A path and what stands behind it. `scope` None: for everyone, also without a key.

    `answer` is the msgspec type that describes the JSON document (None: a page of `media` type). `etag`: unchanged
    documents are answered 304. `problems` are the error statuses that the handler itself gives.
    """

    path: str
    handler: Handler
    scope: Scope | None
    summary: str
    answer: Any = None
    parameters: tuple[Parameter, ...] = ()
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: type[msgspec.Struct] | None = None
    description: str = ""
    tag: str = "markets"
    media: str = "application/json"
    etag: bool = False
    problems: tuple[int, ...] = ()
    codes: tuple[int, ...] = (200,)


# --- parameters -------------------------------------------------------------------------------------------------------


def whole(name: str, description: str, *, default: int | None, most: int, least: int = 1) -> Parameter:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    if default is not None:
        schema["default"] = default
    return Parameter(name, read, schema, description, default=default)


def words(name: str, description: str, *, most: int = MAX_TEXT_CHARS, required: bool = False) -> Parameter:
    """Some text, neither empty nor longer than `most` characters."""

    def read(text: str) -> str:
        if not 1 <= len(text) <= most or "\x00" in text:
            raise ValueError(f"1 to {most} characters")
        return text

    schema = {"type": "string", "minLength": 1, "maxLength": most, "pattern": "^[^\\u0000]*$"}
    return Parameter(name, read, schema, description, required=required)


def choice(name: str, description: str, options: Sequence[str], default: str | None = None) -> Parameter:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in options:
            raise ValueError(f"one of {', '.join(options)}")
        return text

    schema: dict[str, Any] = {"type": "string", "enum": list(options)}
    if default is not None:
        schema["default"] = default
    return Parameter(name, read, schema, description, default=default)


def moment(name: str, description: str, *, end_of_day: bool = False) -> Parameter:
    """A time with zone (`2026-11-22T18:00:00Z`), or a day: its first moment, or with `end_of_day` its last."""

    def read(text: str) -> datetime:
        try:
            if len(text) == len("2026-11-22"):
                day = date.fromisoformat(text)
                time = datetime.max.time() if end_of_day else datetime.min.time()
                return datetime.combine(day, time, UTC)
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ValueError("a day like 2026-11-22 or a time like 2026-11-22T18:00:00Z") from error

    schema = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}
    return Parameter(name, read, schema, description)


def day(name: str, description: str, *, where: Literal["path", "query"] = "query", required: bool = False) -> Parameter:
    """A UTC day."""

    def read(text: str) -> date:
        try:
            if len(text) != len("2026-11-22"):
                raise ValueError
            return date.fromisoformat(text)
        except ValueError as error:
            raise ValueError("a day like 2026-11-22") from error

    return Parameter(name, read, {"type": "string", "format": "date"}, description, where, required=required)


def name_in_path(name: str, description: str, pattern: str = "^[a-z][a-z0-9-]{0,62}$") -> Parameter:
    """A name that is part of the path: of a feed, a schema, an environment, a client."""

    def read(text: str) -> str:
        if not 1 <= len(text) <= MAX_TEXT_CHARS or not text.isprintable():
            raise ValueError(f"a name of at most {MAX_TEXT_CHARS} printable characters")
        return text

    schema = {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": 63}
    return Parameter(name, read, schema, description, "path", required=True)


def _read_ticker(text: str) -> str:
    try:
        encode_ticker(text)
    except DataError as error:
        raise ValueError(f"a ticker of 1 to {MAX_TICKER_BYTES} bytes") from error
    return text


TICKER = Parameter(
    "ticker",
    _read_ticker,
    {"type": "string", "minLength": 1, "maxLength": MAX_TICKER_BYTES},
    "The exchange's ticker of the market.",
    "path",
    required=True,
)

AS_OF = moment("as_of", "As it was then: a day (its end) or a time.", end_of_day=True)
KNOWN_AT = moment("known_at", "As ssmd knew it then: a day (its end) or a time.", end_of_day=True)


# --- serving ----------------------------------------------------------------------------------------------------------


def serve(routes: Sequence[Route]) -> list[web.RouteDef]:
    """The routes for aiohttp. Names in paths may hold anything, also the braces that aiohttp does not expect."""
    return [web.route(route.method, _BARE.sub(r"{\1:[^/]+}", route.path), _handler(route)) for route in routes]


def _handler(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller: Caller = request[CALLER]
        answer = await route.handler(Ask(request, read_parameters(route, request), caller, await _body(route, request)))
        return answer if isinstance(answer, web.StreamResponse) else _reply(route, request, answer)

    return handle


def read_parameters(route: Route, request: web.Request) -> dict[str, Any]:
    """The values of all parameters of `route`. ApiProblem 400 for the first that is wrong, repeated or unknown."""
    if len(request.query_string) > MAX_QUERY_CHARS:
        raise ApiProblem(
            414, "query_too_long", f"the query has more than {MAX_QUERY_CHARS} characters", "Ask for less."
        )
    given: dict[str, str] = {}
    expected = [parameter.name for parameter in route.parameters if parameter.where == "query"]
    for name, text in _query(request):
        if name not in expected:
            known = f"Known: {', '.join(expected)}." if expected else "It takes none."
            raise _wrong(name, f"is not one of {route.path}", did_you_mean(name[:64], expected, known))
        if name in given:
            raise _wrong(name, "is given twice", "Give it once.")
        given[name] = text
    values: dict[str, Any] = {}
    for parameter in route.parameters:
        source: Mapping[str, str] = request.match_info if parameter.where == "path" else given
        given_text = source.get(parameter.name)
        if given_text is None:
            if parameter.required:
                raise _wrong(parameter.name, "is missing", f"{parameter.description} Add it to the query.")
            values[parameter.name] = parameter.default
            continue
        try:
            given_text.encode()
            values[parameter.name] = parameter.read(given_text)
        except UnicodeEncodeError as error:
            raise _wrong(parameter.name, "is not valid UTF-8", parameter.description) from error
        except ValueError as error:
            raise _wrong(parameter.name, f"must be {error}, not {given_text[:60]!r}", parameter.description) from error
    return values


_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"missing required field `(\w+)`")
_WRONG_FIELD = re.compile(r"at `\$\.(\w+)")


def _query(request: web.Request) -> list[tuple[str, str]]:
    return parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, max_num_fields=256)


def _wrong(name: str, what: str, next_step: str) -> ApiProblem:
    return ApiProblem(400, "bad_parameter", f"parameter {name[:64]!r} {what}", next_step, parameter=name[:64])


async def _body(route: Route, request: web.Request) -> Any:
    if route.body is None:
        return None
    if request.content_type != "application/json":
        raise ApiProblem(415, "not_json", "the body must be application/json", "Set Content-Type: application/json.")
    expected = ", ".join(route.body.__struct_fields__)
    try:
        fields = msgspec.json.decode(await request.read())
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        step = f"Send one JSON object with {expected}."
        raise ApiProblem(400, "bad_body", "the body is not JSON", step) from error
    if isinstance(fields, dict):  # to JSON Schema 3.0 is an integer
        fields = {name: int(x) if isinstance(x, float) and x.is_integer() else x for name, x in fields.items()}
    try:
        return msgspec.convert(fields, route.body)
    except msgspec.ValidationError as error:
        step = f"Its fields: {expected}. GET /openapi.json describes them."
        raise ApiProblem(400, "bad_body", _what_is_wrong(str(error)), step) from error


def _what_is_wrong(error: str) -> str:
    """Which field of a body cannot be taken, and why; `error` is the decoder's."""
    if found := _UNKNOWN_FIELD.search(error):
        return f"the body has no field {found[1][:64]!a}"
    if found := _MISSING_FIELD.search(error):
        return f"the body lacks the field {found[1]}"
    if found := _WRONG_FIELD.search(error):
        return f"{found[1]} cannot have this value"
    return "the body is not a JSON object"


def _reply(route: Route, request: web.Request, document: object) -> web.Response:
    headers = {**SAFE_HEADERS, "Cache-Control": "no-cache" if route.etag else "no-store"}
    if isinstance(document, Reply):
        headers |= document.headers
        document = document.document
    body = msgspec.json.encode(document)
    if route.etag:
        tag = hashlib.blake2b(body, digest_size=12).hexdigest()
        headers["ETag"] = f'"{tag}"'
        if any(known.value in (tag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers, content_type="application/json")
