"""Running a small program: its errors are one line, and Ctrl-C ends it."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ssmd.errors import SsmdError

INTERRUPTED = 130


def run(main: Callable[[], Awaitable[Any]]) -> None:
    """Run a coroutine function to its end; an error of ssmd is printed without a traceback, and is the exit code."""

    async def whole() -> None:
        await main()

    try:
        asyncio.run(whole())
    except SsmdError as error:
        raise SystemExit(_said(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `| head` has read enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said(error: SsmdError) -> int:
    sys.stderr.write(f"{error}\n")
    return error.exit_code
