"""Whose web pages may use the gateway: its own, and those that the environment file names (CORS)."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from ssmd.config.values import is_loopback
from ssmd.gateway.problems import ApiProblem

_EXPOSED = "ETag, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"


class Origins:
    """`only_here`: nobody is asked for a key, so a browser must not be led here by a page, nor by a bent name."""

    def __init__(self, allowed: Iterable[str], *, only_here: bool, stream: str) -> None:
        self._allowed = frozenset(filter(None, map(origin_of, allowed)))
        self._only_here = only_here
        self._stream = stream

    def check(self, request: web.Request) -> web.Response | None:
        """Refuse pages of strangers; the answer to a browser that asks beforehand."""
        host = request.headers.get(hdrs.HOST, "")
        if self._only_here and not is_loopback(_name(host)):
            # A name that leads here although it is not ours: DNS rebinding.
            raise ApiProblem(
                421, "wrong_host", "without keys the gateway answers only to names of this machine",
                "Use 127.0.0.1 or localhost; with spec.gateway.auth: keys any name will do.",
            )  # fmt: skip
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return None
        ours = _same(origin, host)
        allowed = ours or origin_of(origin) in self._allowed
        is_stream = request.path == self._stream
        if not allowed and (self._only_here or is_stream or request.method not in ("GET", "HEAD")):
            raise ApiProblem(
                403, "foreign_page", "web pages of other sites may not use this gateway",
                "Add the page's origin (https://host) to spec.gateway.cors_origins.",
            )  # fmt: skip
        asks = request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if not (asks and allowed and not ours):
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, DELETE",
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, If-None-Match",
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            },
        )

    def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        if self._allowed:
            response.headers.add(hdrs.VARY, "Origin")
            origin = request.headers.get(hdrs.ORIGIN)
            if origin is not None and origin_of(origin) in self._allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
                response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED


def origin_of(url: str) -> str:
    """`https://host[:port]` as browsers write the origin of a page; "" for what is none."""
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not name:
        return ""
    name = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, default) else "")


def _same(origin: str, host: str) -> bool:
    """Is a page of `origin` one of the host that was asked? (The scheme may differ behind a proxy.)"""
    found = origin_of(origin)
    return bool(found) and found in (origin_of(f"http://{host}"), origin_of(f"https://{host}"))


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def from_our_page(request: web.Request) -> bool:
    """Does the browser say that one of our own pages asks? No page can make it say so."""
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is not None and _same(origin, request.headers.get(hdrs.HOST, ""))
