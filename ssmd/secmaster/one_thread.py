"""One thread for the calls of one database transaction: they never overlap, not even after a cancellation."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class OneThread:
    """Runs what blocks beside the event loop, one call after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sync")

    async def __aenter__(self) -> "OneThread":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns. One who is cancelled does not wait; what is run next still comes after it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @asynccontextmanager
    async def within(self, manager: AbstractContextManager[T]) -> AsyncIterator[T]:
        """A context manager that is entered, left and used in this thread."""
        entered = False

        def enter() -> T:
            nonlocal entered
            value = manager.__enter__()
            entered = True
            return value

        try:
            yield await self.run(enter)
        except BaseException as error:
            failure = error
            await self.run(lambda: entered and manager.__exit__(type(failure), failure, failure.__traceback__))
            raise
        await self.run(lambda: manager.__exit__(None, None, None))
