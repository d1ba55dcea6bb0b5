"""Every error ssmd raises on purpose, and what each one means for the caller.

SsmdError
    ConfigError            wrong input, configuration or credentials; never retried      exit 2
    RefusedError           a check said no                                               exit 3
    TransientError         the outside is away or busy; retried, then escalated          exit 7
        Unavailable        a server (broker, database, storage, exchange) did not answer
        RateLimited        the exchange asked for patience
        Busy               another job is at it; when that ends, this can be done
    DataError              one message or object is not what it should be; counted, the rest goes on
    FatalError             nothing sensible can be done here: drain, alert, leave        exit 1
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_REFUSED = 3
EXIT_FINDINGS = 6
EXIT_UNAVAILABLE = 7
EXIT_BUG = 70


class SsmdError(Exception):
    """The root: `message` says what was tried and on what, `hint` what to do next (a command where there is one)."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(SsmdError):
    """Wrong input: fails at once and is never retried."""

    exit_code = EXIT_CONFIG


class RefusedError(SsmdError):
    """A check refused the action; nothing was changed."""

    exit_code = EXIT_REFUSED


class TransientError(SsmdError):
    """May work later. `retry_after_s` is the other side's wish, where it said one."""

    exit_code = EXIT_UNAVAILABLE

    def __init__(self, message: str, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class Unavailable(TransientError):
    """A server did not answer."""


class RateLimited(TransientError):
    """The exchange asked us to slow down."""


class Busy(TransientError):
    """Another job works on the same thing; nothing was looked at or changed."""


class DataError(SsmdError):
    """One message, ticker or object is malformed; the rest goes on."""


class FatalError(SsmdError):
    """The service cannot go on: drain what can be drained and leave."""
