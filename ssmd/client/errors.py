"""What can go wrong between a program and the gateway."""

from typing import Any

from ssmd.errors import EXIT_CONFIG, EXIT_UNAVAILABLE, SsmdError

MAX_TEXT_CHARS = 400


class GatewayError(SsmdError):
    """The gateway refused a request, or its answer makes no sense.

    `status` is the HTTP status (0 where there is none), `code` a word for programs, `detail` says what was wrong and
    `next` what to do about it.
    """

    def __init__(self, detail: str, next: str = "", *, status: int = 0, code: str = "") -> None:
        super().__init__(printable(detail), printable(next))
        self.status = status
        self.code = printable(code)

    @property
    def detail(self) -> str:
        """What was wrong."""
        return self.message

    @property
    def next(self) -> str:
        """What to do about it; may be empty."""
        return self.hint


class GatewayAway(GatewayError):
    """The gateway does not answer, or has no time. It may later: `retry_after_s` is its wish, where it said one."""

    exit_code = EXIT_UNAVAILABLE

    def __init__(
        self, detail: str, next: str = "", *, status: int = 0, code: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail, next, status=status, code=code)
        self.retry_after_s = retry_after_s


class NotAllowed(GatewayError):
    """There is no key, it is wrong or revoked, or it does not have the scope."""

    exit_code = EXIT_CONFIG


class IncompleteData(UserWarning):
    """Of what was asked for something is known to be missing; `missing` of the answer says what."""


class NoBook(KeyError):
    """There is no book of that ticker (yet)."""

    def __str__(self) -> str:
        return str(self.args[0])


def printable(text: object) -> str:
    """Text from outside in one line without control characters, and not too long."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)[: 2 * MAX_TEXT_CHARS])
    plain = " ".join(plain.split())
    return plain if len(plain) <= MAX_TEXT_CHARS else plain[: MAX_TEXT_CHARS - 1] + "…"


def refusal(status: int, problem: dict[str, Any], where: str, retry_after: str | None = None) -> GatewayError:
    """The error for an HTTP answer that is none; `problem` is its body (RFC 9457), or empty."""
    code = str(problem.get("code", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"{where} answered with status {status}")
    step = str(problem.get("next", ""))
    if status in (401, 403):
        return NotAllowed(detail, step or "Give a key: Client(key=…) or the variable SSMD_CLIENT_KEY.",
                          status=status, code=code)  # fmt: skip
    if status in (429, 502, 503, 504):
        wish = float(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 6 else None
        return GatewayAway(detail, step, status=status, code=code, retry_after_s=wish)
    return GatewayError(detail, step, status=status, code=code)
