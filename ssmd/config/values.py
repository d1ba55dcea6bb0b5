"""What values of an environment file may be: key references, addresses, times, patterns; checked as they are read."""

import re
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

KEY_PREFIX = "$key:"
KEY_NAME = r"[a-z][a-z0-9_-]{0,62}"
KEY_FIELD = r"[a-z][a-z0-9_]{0,62}"
_REFERENCE = re.compile(rf"\$key:({KEY_NAME})(?:\.({KEY_FIELD}))?")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")
_ONLY_URL = re.compile(r"(\s*[A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[^:@\[\]]*)(?::\d*)?")
_WEB = ("http", "https", "ws", "wss")
# NATS reads a lone user as a token, and web servers may; PostgreSQL's lone user is a name.
_TAKE_TOKENS = ("nats", "tls", *_WEB)
_NAMED = r"[?&][^=&\s]*(?:pass|pwd|secret|token|key|signature)[^=&\s]*="
_PARAMETER = re.compile(rf"({_NAMED})[^&\s]+", re.IGNORECASE)
_PARAMETER_TO_END = re.compile(rf"({_NAMED})[^&]+", re.IGNORECASE)  # in a URL that stands alone
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,39}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_loopback(host: str) -> bool:
    """Is `host` an address of this machine only?"""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def masked(text: str) -> str:
    """`text` with the secrets of every URL in it (password, token, `?password=…`) replaced by `***`.

    A URL that is not well-formed (`@`, `/` or blanks in its password) rather loses too much than too little.
    """
    alone = _ONLY_URL.fullmatch(text)
    return _masked_url(alone) if alone else _PARAMETER.sub(r"\1***", _URL.sub(_masked_url, text))


def _masked_url(match: re.Match[str]) -> str:
    scheme, rest = match[1], _PARAMETER_TO_END.sub(r"\1***", match[2])
    before, at, after = rest.rpartition("@")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, sign, place = authority.rpartition("@")
    kind = scheme.strip().lower()
    if not at or (kind in _WEB and not sign and _PLACE.fullmatch(place)):  # any `@` is one of its path
        return f"{scheme}://{rest}"
    name, colon, _ = before.partition(":")
    if sign and ":" not in user and kind not in _TAKE_TOKENS and _PLACE.fullmatch(place):
        return f"{scheme}://{rest}"
    if colon:
        return f"{scheme}://{name}:***@{after}"
    return f"{scheme}://***@{after}" if kind in _TAKE_TOKENS else f"{scheme}://{rest}"


def masked_within(value: Any) -> Any:
    """`value` with every text in it masked: of mappings the values, of lists the items."""
    if isinstance(value, dict):
        return {name: masked_within(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked_within(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value


class Section(BaseModel):
    """A mapping of the file: immutable, no unknown keys, no conversions; its repr hides passwords."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value


class KeyRef(NamedTuple):
    """`$key:name` or `$key:name.field`: where a secret stands in place of its value."""

    name: str
    field: str | None = None

    def __str__(self) -> str:
        return f"{KEY_PREFIX}{self.name}" + (f".{self.field}" if self.field else "")

    @classmethod
    def parse(cls, text: str) -> "KeyRef | None":
        """The reference in `text`; None when it is an ordinary value, ValueError when it is misspelled."""
        if not text.lstrip().lower().startswith("$key"):
            return None
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ValueError("is not a key reference; write $key:name or $key:name.field in lower case")
        return cls(match[1], match[2])


def _split(text: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """The parts of a URL with one of `schemes` and a host; ValueError says what to write."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may quote the password
        raise ValueError(f"is not a URL; write it like {example}") from None
    if "@" in parts.netloc.rpartition("@")[0]:
        raise ValueError('has an "@" in its user or password; percent-encode it: %40')
    if parts.scheme not in schemes:
        allowed = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"must begin with {allowed}; write it like {example}")
    if not host or not _HOST.fullmatch(host) or re.search(r"[\s\x00-\x1f]", text):
        raise ValueError(f"names no valid host; write it like {example}")
    if port == 0:
        raise ValueError("names port 0; ports are 1 to 65535")
    return parts


def _key_reference(text: str) -> str:
    if KeyRef.parse(text) is None:
        raise ValueError("must be a key reference like $key:name; a secret never stands in an environment file")
    return text


def _nats_url(text: str) -> str:
    if KeyRef.parse(text) is None:
        parts = _split(text, ("nats", "tls"), "nats://127.0.0.1:4222")
        if parts.port is None:
            raise ValueError("names no port; write it like nats://127.0.0.1:4222")
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("has a path; write it like nats://127.0.0.1:4222")
    return text


def _redis_url(text: str) -> str:
    if KeyRef.parse(text) is None:
        _split(text, ("redis", "rediss", "valkey", "valkeys"), "redis://127.0.0.1:6379")
    return text


def _database_url(text: str) -> str:
    if KeyRef.parse(text) is not None:
        return text
    if text.startswith(("postgresql://", "postgres://", "postgresql+psycopg://", "postgresql+asyncpg://")):
        raise ValueError(
            f"must name the driver: write postgresql+psycopg2:// in place of {text.partition('://')[0]}://"
        )
    parts = _split(text, ("postgresql+psycopg2",), "postgresql+psycopg2://postgres@127.0.0.1:5432/ssmd")
    if not re.fullmatch(r"/[A-Za-z_][A-Za-z0-9_-]{0,62}", parts.path):
        raise ValueError("names no database; write it like postgresql+psycopg2://postgres@127.0.0.1:5432/ssmd")
    return text


def _http_url(text: str) -> str:
    if KeyRef.parse(text) is None:
        _split(text, ("http", "https"), "https://host/path")
    return text


def _websocket_url(text: str) -> str:
    if KeyRef.parse(text) is None:
        _split(text, ("ws", "wss"), "wss://host/path")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("is no host name or IP address; write 127.0.0.1 (this machine only) or 0.0.0.0 (everyone)")
    return text


def _time_of_day(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError('is not a time of day; write it in quotes like "00:10"')
    return text


def _timezone(text: str) -> str:
    if text == "UTC":
        return text
    zones = available_timezones()
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if not zones:
            raise ValueError("cannot be checked: this machine has no time zone data; write UTC") from error
        raise ValueError("is not an IANA time zone; write UTC or a name like America/New_York") from error
    return text


def _path(text: str) -> str:
    if not text.strip() or "\x00" in text:
        raise ValueError("is not a path")
    return text


def _bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text) or ".." in text:
        raise ValueError("is not a bucket name: 3 to 63 lower-case letters, digits, '.' and '-'")
    return text


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", text) or set(text) & set("[]"):
        raise ValueError("is not a ticker pattern: printable characters with * (anything) and ? (one character)")
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
Credentials = Annotated[str, AfterValidator(_key_reference)]
NatsUrl = Annotated[str, AfterValidator(_nats_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
WebSocketUrl = Annotated[str, AfterValidator(_websocket_url)]
Host = Annotated[str, AfterValidator(_host)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
FilePath = Annotated[str, AfterValidator(_path)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Pattern = Annotated[str, AfterValidator(_pattern)]
