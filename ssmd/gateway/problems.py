"""Errors over HTTP: RFC 9457 problem details, also for paths that do not exist."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web
from rapidfuzz import fuzz, process

from ssmd.errors import DataError, SsmdError, TransientError

RETRY_S = 5

log = structlog.get_logger()


class ApiProblem(SsmdError):
    """A request that is answered with an error: `code` is for programs, `detail` for people, `next_step` what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        next_step: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        super().__init__(detail, next_step)
        self.status = status
        self.code = code
        self.headers = headers
        self.more = more

    def response(self) -> web.Response:
        """As RFC 9457 problem details."""
        title = HTTPStatus(self.status).phrase
        step = {"next": self.hint} if self.hint else {}
        return problem(self.status, title, self.message, headers=self.headers, code=self.code, **step, **self.more)


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
        except ApiProblem as error:
            return error.response()
        except web.HTTPNotFound:
            close = near(request.path, known)
            detail = f"{request.path[:200]} does not exist" + (f"; did you mean {' or '.join(close)}?" if close else "")
            step = "GET /openapi.json lists all paths."
            return problem(404, "Not Found", detail, code="no_such_path", next=step, near=close or list(known))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return problem(
                405, "Method Not Allowed", f"{error.method} is not {allowed}", headers={"Allow": allowed}, code="method"
            )
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            return problem(error.status, error.reason, code="bad_request")
        except DataError as error:
            return problem(400, "Bad Request", error.message, code="bad_request")
        except TransientError as error:
            log.warning("request not answered", path=request.path[:200], error=error.message)
            headers = {"Retry-After": str(RETRY_S)}
            detail = "a part of ssmd that this answer needs is away or busy"
            step = "Ask again in a few seconds; GET /v1/health says what is away."
            return problem(503, "Service Unavailable", detail, headers=headers, code="unavailable", next=step)
        except Exception:  # the last line: a bug in one answer is logged, and a problem like any other
            log.exception("request failed", path=request.path[:200])
            return problem(500, "Internal Server Error", "the gateway failed to answer; its log says why", code="bug")

    return middleware
