"""Pages for people and descriptions for programs: /, /status, /docs, /openapi.json, /asyncapi.json, /llms.txt.

Rendered on the server with every value escaped; no script or style stands in a page, and nothing comes from elsewhere.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ssmd import __version__
from ssmd.config.environment import Gateway as Settings
from ssmd.gateway import status_page
from ssmd.gateway.asyncapi import ACTIONS, asyncapi
from ssmd.gateway.docs_page import docs_values, prose
from ssmd.gateway.openapi import HIDDEN, openapi
from ssmd.gateway.routes import SAFE_HEADERS, Ask, Route
from ssmd.gateway.status_page import StatusView

SITE = Path(__file__).parent / "site"
ASSETS = {"style.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {**SAFE_HEADERS, "Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}


class Pages:
    """All of them. `routes_of_all` gives the whole table of routes, which is complete only after this was made."""

    def __init__(
        self, feed: str, settings: Settings, status: StatusView, routes_of_all: Callable[[], Sequence[Route]]
    ) -> None:
        self._feed = feed
        self._settings = settings
        self._keys = settings.auth == "keys"
        self._status = status
        self._routes_of_all = routes_of_all
        self._descriptions: dict[str, dict[str, Any]] = {}
        self._templates = Environment(
            loader=FileSystemLoader(SITE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        for name in ("age", "ago", "count", "size", "stroke", "area"):
            self._templates.filters[name] = getattr(status_page, name)
        self._templates.filters["prose"] = prose
        self._templates.globals.update(feed=feed, version=__version__, here="")

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        page = partial(Route, tag="pages", media="text/html")
        return [
            page("/", self.index, "read:live", "The first page"),
            page("/status", self.status, "read:live", "What flows and what is missing, for people",
                 description="In a browser the API key is the password."),
            page("/docs", self.docs, None, "The API reference, for people"),
            Route("/openapi.json", self.openapi, None, "This description", tag="pages", etag=True),
            Route("/asyncapi.json", self.asyncapi, None, "The description of the stream", tag="pages", etag=True),
            Route("/llms.txt", self.llms, None, "The API in brief, for agents", tag="pages", media="text/plain"),
            *(
                Route(f"/docs/{name}", _asset(name, media), None, name, tag=HIDDEN, media=media)
                for name, media in ASSETS.items()
            ),
        ]  # fmt: skip

    async def index(self, _ask: Ask) -> web.Response:
        """What there is."""
        return self._page("index.html", {})

    async def status(self, ask: Ask) -> web.Response:
        """How everything is; also while the database is away."""
        now = asyncio.get_running_loop().time()
        view = await self._status.gather(now, reasons=ask.caller.may("admin"))
        return self._page("status.html", {"here": "/status", "view": view})

    async def docs(self, _ask: Ask) -> web.Response:
        """The descriptions as a page."""
        values = docs_values(await self.openapi(None), await self.asyncapi(None))
        return self._page("docs.html", {"here": "/docs", "keys": self._keys, **values})

    async def openapi(self, _ask: Ask | None) -> dict[str, Any]:
        """OpenAPI 3.1, made once."""
        if "openapi" not in self._descriptions:
            self._descriptions["openapi"] = openapi(self._routes_of_all(), keys=self._keys)
        return self._descriptions["openapi"]

    async def asyncapi(self, _ask: Ask | None) -> dict[str, Any]:
        """AsyncAPI 3.0, made once."""
        if "asyncapi" not in self._descriptions:
            self._descriptions["asyncapi"] = asyncapi(self._feed, keys=self._keys)
        return self._descriptions["asyncapi"]

    async def llms(self, _ask: Ask) -> web.Response:
        """The most important of all that, as text."""
        endpoints = [
            f"{route.method} {route.path}: {route.summary}" + (f" (scope {route.scope})" if route.scope else "")
            for route in self._routes_of_all()
            if route.tag not in (HIDDEN, "pages")
        ]
        values = {"endpoints": endpoints, "keys": self._keys, "limits": self._settings.limits, "actions": ACTIONS}
        # Plain text: nothing in it is read as HTML.
        template = self._templates.overlay(autoescape=False).get_template("llms.txt")
        return _response(template.render(values).encode(), "text/plain")

    def quality(self, name: str, values: dict[str, Any], status: int = 200) -> web.Response:
        """A page in the place of a quality report."""
        return self._page(name, {"here": "/quality/", **values}, status)

    def _page(self, name: str, values: dict[str, Any], status: int = 200) -> web.Response:
        return _response(self._templates.get_template(name).render(values).encode(), "text/html", status)


def _response(body: bytes, media: str, status: int = 200) -> web.Response:
    headers = HEADERS | {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, headers=headers, content_type=media, charset="utf-8")


def _asset(name: str, media: str) -> Callable[[Ask], Any]:
    body = (SITE / name).read_bytes()
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    headers = HEADERS | {"Cache-Control": "no-cache", "ETag": f'"{tag}"'}

    async def serve(ask: Ask) -> web.Response:
        if any(known.value in (tag, "*") for known in ask.request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers, content_type=media, charset="utf-8")

    return serve
