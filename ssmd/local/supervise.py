"""`python -m ssmd.local.supervise`: supervisord that looks at its children ten times a second instead of once.

supervisord sleeps up to a second before it notices that a child has died, and as long again before it starts the next
one. For a feed these seconds are a gap. There is no setting for it; the wait goes through one method, shortened here.

The secrets of its children come as JSON on stdin: what is set after the start is not shown in /proc/PID/environ.

It also keeps the log files small that do not pass through its pipes: `SSMD_ROTATE` is their names, as a JSON list.
"""

import json
import os
import sys
from pathlib import Path

from supervisor import poller, supervisord

from ssmd.local.rotation import watch

LOOK_S = 0.1
ROTATE = "SSMD_ROTATE"


class _QuickPoller(poller.Poller):  # type: ignore[misc]  # the library is untyped
    def poll(self, timeout: float | None) -> object:
        """Wait for the sockets of supervisord, but not longer than `LOOK_S`."""
        return super().poll(LOOK_S if timeout is None else min(timeout, LOOK_S))


def main() -> None:
    """Run supervisord with the arguments of this process."""
    os.environ.update(json.loads(sys.stdin.buffer.read() or b"{}"))
    watch([Path(name) for name in json.loads(os.environ.pop(ROTATE, "[]"))])
    poller.Poller = _QuickPoller
    supervisord.main(sys.argv[1:])


if __name__ == "__main__":
    main()
