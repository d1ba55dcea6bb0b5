"""What a feed may be: the values of the feed registry, and the checks that each of them passes before it is stored."""

import re
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ssmd.config.values import masked
from ssmd.errors import ConfigError
from ssmd.nearest import did_you_mean

TYPES = ("websocket", "rest", "multicast")
PROTOCOLS = {"wss": "websocket", "ws": "websocket", "https": "rest", "http": "rest", "multicast": "multicast"}
"""Each protocol, and the type of feed that uses it."""
AUTH_METHODS = ("none", "api_key", "oauth", "mtls")
STATUSES = ("active", "deprecated", "disabled")
TRANSPORTS = ("nats", "memory", "aeron")
_MAX_INTEGER = 2**31 - 1
_FEED = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SEALED = re.compile(r"sealed-secret/[a-z0-9]([a-z0-9.-]{0,98}[a-z0-9])?")
_KEY = re.compile(r"\$key:[a-z][a-z0-9_-]{0,62}(\.[a-z][a-z0-9_]{0,62})?")
_MAX_URL = 2_000


class FeedFacts(msgspec.Struct, frozen=True):
    """How a feed is reached and what it can do, from `effective_from` on; None means not known or not needed."""

    version: str
    effective_from: date
    protocol: str
    endpoint: str
    rest_endpoint: str | None = None
    auth_method: str = "none"
    secret_ref: str | None = None
    supports_orderbook: bool = False
    supports_trades: bool = True
    supports_historical: bool = False
    max_symbols_per_connection: int | None = None
    rate_limit_per_second: int | None = None
    parser_config: dict[str, Any] | None = None
    required_transport: tuple[str, ...] = ()  # empty: any


def check_name(name: str) -> str:
    """`name` if it can name a feed, else ConfigError."""
    if not _FEED.fullmatch(name):
        message = f"a feed cannot be called {name[:80]!r}"
        raise ConfigError(message, "A name begins with a letter and has at most 32 of a-z, 0-9 and -.")
    return name


def check_choice(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is allowed, else ConfigError with the nearest one that is."""
    if value not in allowed:
        hint = did_you_mean(value, allowed, f"Allowed: {', '.join(allowed)}.")
        raise ConfigError(f"{what} {value[:80]!r} is none of {', '.join(allowed)}", hint)
    return value


def check_text(what: str, text: str, limit: int) -> str:
    """`text` for people, if it is one printable line of at most `limit` characters, else ConfigError."""
    if len(text) > limit or not text.isprintable():
        raise ConfigError(f"{what} {text[:80]!r} is longer than {limit} characters, or more than one line")
    return text


def check_facts(feed_type: str, facts: FeedFacts) -> None:
    """Every value of a version, and that they fit together. ConfigError for the first that does not."""
    if not _VERSION.fullmatch(facts.version):
        raise ConfigError(f"{facts.version[:80]!r} cannot name a version", "Write v1, v2, ...")
    check_choice("protocol", facts.protocol, tuple(PROTOCOLS))
    if PROTOCOLS[facts.protocol] != feed_type:
        fitting = [name for name, kind in PROTOCOLS.items() if kind == feed_type]
        message = f"a {feed_type} feed is not reached by {facts.protocol}"
        raise ConfigError(message, f"Use --protocol {' or '.join(fitting)}, or --type {PROTOCOLS[facts.protocol]}.")
    _check_url("--endpoint", facts.endpoint, (facts.protocol,))
    if facts.rest_endpoint is not None:
        _check_url("--rest-endpoint", facts.rest_endpoint, ("https", "http"))
    check_choice("authentication", facts.auth_method, AUTH_METHODS)
    _check_secret(facts.auth_method, facts.secret_ref)
    for what, number in (
        ("--max-symbols", facts.max_symbols_per_connection),
        ("--rate-limit", facts.rate_limit_per_second),
    ):
        if number is not None and not 1 <= number <= _MAX_INTEGER:
            raise ConfigError(f"{what} {str(number)[:40]} is not between 1 and {_MAX_INTEGER}")
    for transport in facts.required_transport:
        check_choice("transport", transport, TRANSPORTS)


def scheme_of(url: str) -> str:
    """What a URL begins with; "" when it has no scheme, or is none at all."""
    return url.partition("://")[0] if "://" in url else ""


def _check_url(option: str, url: str, schemes: tuple[str, ...]) -> None:
    hint = f"Write {schemes[0]}://host/path."
    if not url or len(url) > _MAX_URL or not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise ConfigError(f"{option} {_shown(url)!r} is not a URL", hint)
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{option} {_shown(url)!r} is not a URL", hint) from error
    if parts.username is not None or parts.password is not None:
        # Not echoed: it may hold a password.
        raise ConfigError(f"{option} holds a user name; credentials do not belong into a URL", "Use --secret.")
    if parts.scheme not in schemes:
        raise ConfigError(f"{option} {_shown(url)!r} does not begin with {'://, '.join(schemes)}://", hint)
    if not host:
        raise ConfigError(f"{option} {_shown(url)!r} names no host", hint)


def _shown(url: str) -> str:
    """A URL as errors show it: short, and without a password or token."""
    return masked(url)[:80]


def _check_secret(auth_method: str, secret_ref: str | None) -> None:
    if secret_ref is None:
        if auth_method != "none":
            raise ConfigError(f"authentication by {auth_method} needs a secret", "Add --secret sealed-secret/NAME.")
        return
    if auth_method == "none":
        raise ConfigError("a secret without authentication is used by nothing", "Add --auth-method api_key.")
    if not _SEALED.fullmatch(secret_ref) and not _KEY.fullmatch(secret_ref):
        # Not echoed: somebody may have given the secret itself.
        raise ConfigError("--secret is not a reference", "Write sealed-secret/NAME or $key:NAME, never the secret.")
