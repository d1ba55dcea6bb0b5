"""What `ssmd up` and `ssmd down` say while they work: one line per step, with its time, on stderr."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO


class Step:
    """A step at work; `detail` is printed behind its name, `mark` before it."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        self.mark = "✓"


class Progress:
    """Lines for people, from any thread. On a terminal the step at work is shown too, and a status line may be
    replaced in place."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self.terminal = self._stream.isatty()
        self._in_place = False
        self._turn = threading.Lock()

    def line(self, text: str) -> None:
        """A line that stays."""
        with self._turn:
            self._clear()
            self._write(text + "\n")

    def status(self, text: str) -> None:
        """A line that the next one replaces; only on a terminal."""
        if self.terminal:
            with self._turn:
                self._clear()
                self._write(text[: shutil.get_terminal_size().columns - 1])
                self._in_place = True

    @contextlib.contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[Step]:
        """Time the block; ✓ with the detail when it ends well, ✗ when it raises."""
        step = Step(detail)
        began = time.monotonic()
        self.status(f"… {name}")
        try:
            yield step
        except BaseException:
            self.line(f"✗ {name:<10} {step.detail:<52} {time.monotonic() - began:5.1f} s")
            raise
        self.line(f"{step.mark} {name:<10} {step.detail:<52} {time.monotonic() - began:5.1f} s")

    def _clear(self) -> None:
        if self._in_place:
            self._write("\r\x1b[K")
            self._in_place = False

    def _write(self, text: str) -> None:
        # Whoever reads us may have gone away (a closed pipe, a lost terminal): the stack does not depend on it.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
