"""The faults that the command channel can switch on, and for how long each lasts."""

from collections.abc import Callable
from typing import Any

import msgspec

from ssmd.clock import NS_PER_S, now_ns

FAULTS = (
    "close",
    "abort",
    "half_open",
    "drop",
    "hostile",
    "stall",
    "refuse_401",
    "refuse_429",
    "rest_429",
    "rest_500",
    "seq_gap",
    "seq_back",
    "overflow",
)


class FaultCommand(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /_simulator/fault`.

    `n` counts frames (drop, hostile: 0 = the whole corpus, seq_gap, seq_back), `seconds` is how long (half_open,
    stall, refuse_*, rest_*), `code` the close or error code, `channel` whose frames, `connection` one client's name
    (all when None), `frozen` makes a stall leave pings unanswered as well.
    """

    fault: str
    n: int = 0
    seconds: float = 0.0
    code: int = 0
    channel: str = "orderbook_delta"
    connection: str | None = None
    frozen: bool = False


class FaultRecord(msgspec.Struct, frozen=True):
    """A fault that was ordered, for those who check the archive afterwards. Nanoseconds since the epoch."""

    fault: str
    start_ns: int
    end_ns: int
    detail: dict[str, Any]


class Faults:
    """Timed states of the whole exchange and the history of all faults."""

    def __init__(self, clock: Callable[[], int] = now_ns) -> None:
        self._clock = clock
        self._until_ns: dict[str, int] = {}
        self._deferred: list[Callable[[], None]] = []
        self.history: list[FaultRecord] = []

    def record(self, command: FaultCommand) -> FaultRecord:
        """Write the fault down and switch its timed state on."""
        start = self._clock()
        end = start + int(command.seconds * NS_PER_S)
        name = command.fault
        if name == "stall" and command.frozen:
            self._until_ns["frozen"] = end
        if name in ("stall", "refuse_401", "refuse_429", "rest_429", "rest_500"):
            self._until_ns[name] = end
        record = FaultRecord(name, start, end, msgspec.to_builtins(command))
        self.history.append(record)
        return record

    def active(self) -> dict[str, float]:
        """Seconds left of each timed state."""
        now = self._clock()
        return {name: (until - now) / NS_PER_S for name, until in self._until_ns.items() if until > now}

    def is_on(self, name: str, now_ns: int) -> bool:
        """True while the timed state `name` lasts."""
        return self._until_ns.get(name, 0) > now_ns

    def is_stalled(self, now_ns: int) -> bool:
        """Nothing is sent now."""
        return self.is_on("stall", now_ns)

    def is_frozen(self, now_ns: int) -> bool:
        """Nothing is heard either."""
        return self.is_on("frozen", now_ns)

    def upgrade_status(self, now_ns: int) -> int | None:
        """The HTTP status that new WebSocket connections get instead of an upgrade."""
        if self.is_on("refuse_401", now_ns):
            return 401
        return 429 if self.is_on("refuse_429", now_ns) else None

    def after_stall(self, work: Callable[[], None]) -> None:
        """Do it now, or when the stall is over."""
        if self._deferred or self.is_stalled(self._clock()):
            self._deferred.append(work)
        else:
            work()

    def run_deferred(self) -> None:
        """Do what waited, in order. Call it when the stall is over."""
        waiting, self._deferred = self._deferred, []
        for work in waiting:
            work()
