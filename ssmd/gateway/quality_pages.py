"""Quality reports over HTTP: /quality/ shows what lies in the bucket of reports, and what of the archive it names.

The reports are files that somebody else made. Only plain keys with known endings are looked up, nothing in them may run
or load from elsewhere, and a storage that is away or slow costs a page, never the loop.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import date
from typing import Any, Protocol

import structlog
from aiohttp import web

from ssmd.archive.layout import parse_gap, parse_raw
from ssmd.errors import DataError
from ssmd.gateway.openapi import HIDDEN
from ssmd.gateway.outside import Outside
from ssmd.gateway.problems import RETRY_S, ApiProblem
from ssmd.gateway.routes import SAFE_HEADERS, Ask, Route
from ssmd.middleware.storage.interface import ObjectMissing, Storage, StorageUnavailable

MOST_BYTES = 16 << 20
"""Of a page; a day's page has some hundred kilobytes."""
PAGES_AT_ONCE = 8
DOWNLOADS_AT_ONCE = 4
ANSWER_S = 10.0
READ_S = 30.0

MEDIA = {"html": "text/html", "json": "application/json", "css": "text/css", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {**SAFE_HEADERS, "Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
HERE = "_assets/here.css"
HERE_SHEET = b"a.served { display: inline; } nav.served { display: flex; } .copied { display: none; }\n"
"""In the place of the report's own empty one: it shows the links that lead somewhere only here."""
OBJECTS = "_raw/"

_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}/){0,6}[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_OF_DAY = re.compile(r"[^/]+/(\d{4})/(\d{2})/(\d{2})(?:/.*)?")

log = structlog.get_logger()


class Render(Protocol):
    """Makes a page of the gateway's own."""

    def __call__(self, name: str, values: dict[str, Any], status: int = 200) -> web.Response: ...


class QualityPages:
    """Reads the reports of all feeds, and raw objects and gaps of one."""

    def __init__(self, feed: str, outside: Outside, render: Render) -> None:
        self._feed = feed
        self._storage = outside.storage
        self._reports = outside.reports_bucket
        self._raw = outside.raw_bucket
        self._render = render
        self._reading = asyncio.Semaphore(PAGES_AT_ONCE)
        self._sending = asyncio.Semaphore(DOWNLOADS_AT_ONCE)

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            Route("/quality", self.enter, "read:history", "To /quality/", tag=HIDDEN, media="text/html"),
            Route("/quality/", self.page, "read:history", "How good each day's data is, for people", tag="pages",
                  media="text/html", description="In a browser the API key is the password."),
            Route("/quality/_raw/{key:.+}", self.object, "read:history", "A raw object, or a gap", tag=HIDDEN,
                  media="text/html"),
            Route("/quality/{path:.+}", self.page, "read:history", "A report", tag=HIDDEN, media="text/html"),
        ]  # fmt: skip

    async def enter(self, _ask: Ask) -> web.Response:
        """Relative links need the slash."""
        return web.Response(status=308, headers={**HEADERS, "Location": "/quality/"})

    async def page(self, ask: Ask) -> web.Response:
        """A report as it is stored, or a page that says why there is none."""
        path = ask.request.match_info.get("path", "")
        key = f"{path}index.html" if not path or path.endswith("/") else path
        if not _KEY.fullmatch(key):
            return self._nothing(path)
        kind = key.rpartition("/")[2].rpartition(".")
        if not kind[1]:
            return web.Response(status=308, headers={**HEADERS, "Location": f"/quality/{path}/"})
        if kind[2] not in MEDIA:
            return self._nothing(path)
        if key == HERE:
            return self._found(ask, key, HERE_SHEET, MEDIA["css"])
        try:
            body = await self._read(key)
        except ObjectMissing:
            return self._nothing(path)
        except (StorageUnavailable, TimeoutError) as error:
            log.warning("report not read", key=key, error=str(error) or f"no answer within {ANSWER_S:.0f} s")
            response = self._render("quality.html", {"state": "away", "command": ""}, 503)
            response.headers["Retry-After"] = str(RETRY_S)
            return response
        return self._found(ask, key, body, MEDIA[kind[2]])

    async def object(self, ask: Ask) -> web.StreamResponse:
        """An object of the raw archive that a report names, as a download."""
        key = ask.request.match_info["key"]
        try:
            feed = (parse_gap(key) if "/_gaps/" in key else parse_raw(key)).feed
        except DataError:
            feed = ""
        if feed != self._feed or self._storage is None:
            raise ApiProblem(404, "no_such_object", f"{key[:200]!r} is no raw object or gap of {self._feed}",
                             "GET /quality/ has links to those that exist.")  # fmt: skip
        async with self._sending:
            return await self._send(ask.request, self._storage.stream(self._raw, key), key)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, key: str) -> bytes:
        if self._storage is None:
            raise ObjectMissing("there is no storage")
        async with asyncio.timeout(ANSWER_S), self._reading:
            return await _whole(self._storage, self._reports, key)

    @staticmethod
    async def _send(request: web.Request, chunks: AsyncIterator[bytes], key: str) -> web.StreamResponse:
        try:
            async with asyncio.timeout(ANSWER_S):
                chunk = await anext(chunks, b"")
        except ObjectMissing as error:
            raise ApiProblem(404, "no_such_object", f"there is no object {key}", "It may have been moved.") from error
        except TimeoutError as error:
            raise StorageUnavailable(f"reading {key}: no answer within {ANSWER_S:.0f} s", "Ask again.") from error
        media = "application/json" if key.endswith(".json") else "application/zstd"
        name = key.rpartition("/")[2]
        response = web.StreamResponse(
            headers={**HEADERS, "Cache-Control": "no-store", "Content-Type": media,
                     "Content-Disposition": f'attachment; filename="{name}"'}
        )  # fmt: skip
        await response.prepare(request)
        while chunk:
            async with asyncio.timeout(READ_S):  # a client that does not read must not keep its place for ever
                await response.write(chunk)
                chunk = await anext(chunks, b"")
        await response.write_eof()
        return response

    # --- answering ----------------------------------------------------------------------------------------------------

    def _nothing(self, path: str) -> web.Response:
        if not path:
            state, status = ("no storage" if self._storage is None else "none yet"), 200
        else:
            state, status = "missing", 404
        return self._render("quality.html", {"state": state, "command": self._command(path)}, status)

    def _command(self, path: str) -> str:
        day = "YYYY-MM-DD"
        if found := _OF_DAY.fullmatch(path):
            try:
                day = date(int(found[1]), int(found[2]), int(found[3])).isoformat()
            except ValueError:
                log.debug("no such day", path=path[:200])
        return f"ssmd quality run --feed {self._feed} --date {day}"

    @staticmethod
    def _found(ask: Ask, key: str, body: bytes, media: str) -> web.Response:
        tag = hashlib.blake2b(body, digest_size=12).hexdigest()
        named_by_content = key.startswith("_assets/") and key != HERE
        caching = "private, max-age=31536000, immutable" if named_by_content else "private, no-cache"
        headers = {**HEADERS, "Cache-Control": caching, "ETag": f'"{tag}"'}
        if any(known.value in (tag, "*") for known in ask.request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers, content_type=media, charset="utf-8")


async def _whole(storage: Storage, bucket: str, key: str) -> bytes:
    parts, size = [], 0
    async for chunk in storage.stream(bucket, key):
        size += len(chunk)
        if size > MOST_BYTES:
            raise ApiProblem(413, "too_large", f"{key} has more than {MOST_BYTES >> 20} MB", "Read it from the bucket.")
        parts.append(chunk)
    return b"".join(parts)
