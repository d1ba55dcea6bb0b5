"""Errors over HTTP: RFC 9457 problem details, also for paths that do not exist."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web
from rapidfuzz import fuzz, process

from ssmd.errors import DataError, TransientError

RETRY_S = 5

log = structlog.get_logger()


def problem(
    status: int, title: str, detail: str = "", *, headers: Mapping[str, str] | None = None, **more: object
) -> web.Response:
    """An `application/problem+json` response; `more` are extension members."""
    body = {"type": "about:blank", "title": title, "status": status} | ({"detail": detail} if detail else {}) | more
    return web.Response(
        status=status, body=msgspec.json.encode(body), headers=headers, content_type="application/problem+json"
    )


def near(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like `name`, best first; [] when none is close."""
    found = process.extract(name[:256], list(names), scorer=fuzz.ratio, limit=count, score_cutoff=70)
    return [match for match, _score, _index in found]


def translate(paths: Iterable[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that turns errors into problems; `paths` are what exists, for near misses."""
    known = tuple(paths)

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            close = near(request.path, known)
            detail = f"{request.path[:200]} does not exist" + (f"; did you mean {' or '.join(close)}?" if close else "")
            return problem(404, "Not found", detail, near=close or list(known))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return problem(405, "Method not allowed", f"{error.method} is not {allowed}", headers={"Allow": allowed})
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            return problem(error.status, error.reason)
        except DataError as error:
            return problem(400, "Bad request", error.message)
        except TransientError as error:
            log.warning("request not answered", path=request.path[:200], error=error.message)
            headers = {"Retry-After": str(RETRY_S)}
            return problem(503, "Temporarily unavailable", str(error), headers=headers)
        except Exception:  # the last line: a bug in one answer is logged, and a problem like any other
            log.exception("request failed", path=request.path[:200])
            return problem(500, "Internal error", "the gateway failed to answer; its log says why")

    return middleware
