"""Laps, their statistics, bars, and the one table that everything is printed in."""

import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds (user and system, all threads) that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Lap(NamedTuple):
    """One measurement: CPU microseconds per message of the program and of the NATS server, messages per second."""

    cpu_us: float
    rate: float
    server_us: float = 0.0


class Stopwatch:
    """Wall and CPU time of this process, and CPU time of the server, between `start` and `lap`."""

    def __init__(self, server_pid: int | None = None) -> None:
        self._server = server_pid
        self._wall = self._cpu = self._server_cpu = 0.0

    def start(self) -> None:
        """Begin; what lives now is kept from the garbage collector, as every service does once it is up."""
        gc.collect()
        gc.freeze()
        self._server_cpu = cpu_s(self._server) if self._server else 0.0
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def lap(self, messages: int) -> Lap:
        """The lap since `start`."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        server = cpu_s(self._server) - self._server_cpu if self._server else 0.0
        gc.unfreeze()
        return Lap(cpu / messages * 1e6, messages / wall, server / messages * 1e6)


def timed(messages: int, work: Callable[[], object]) -> Lap:
    """One lap of synchronous work over `messages` messages."""
    watch = Stopwatch()
    watch.start()
    work()
    return watch.lap(messages)


class Line(msgspec.Struct):
    """A line of the table: a measurement, or a bar with its value.

    `cpu_us` and `rate` are those of every round; `figures` stands in their place where they make no sense.
    """

    path: str
    what: str
    cpu_us: list[float] = []
    rate: list[float] = []
    server_us: list[float] = []
    figures: str = ""
    bar: str = ""
    value: str = ""
    met: bool | None = None


def measured(path: str, what: str, laps: Sequence[Lap]) -> Line:
    """The line of a measurement."""
    servers = [lap.server_us for lap in laps]
    return Line(path, what, [lap.cpu_us for lap in laps], [lap.rate for lap in laps], servers if any(servers) else [])


def at_least(path: str, what: str, bar: str, limit: float, ratios: Sequence[float], shown: str) -> Line:
    """The line of a bar on a ratio: its median over the rounds must reach `limit`. `shown` formats it."""
    value = statistics.median(ratios)
    return Line(path, what, bar=bar, value=shown.format(value), met=value >= limit)


def at_most(path: str, what: str, bar: str, limit: float, value: float, shown: str) -> Line:
    """The line of a bar on a value that must not exceed `limit`."""
    return Line(path, what, bar=bar, value=shown.format(value), met=value <= limit)


def rates(ours: Sequence[Lap], theirs: Sequence[Lap]) -> list[float]:
    """Our messages per second over theirs, round by round: what disturbs a round disturbs both."""
    return [our.rate / their.rate for our, their in zip(ours, theirs, strict=True)]


def savings(ours: Sequence[Lap], theirs: Sequence[Lap]) -> list[float]:
    """Their CPU time per message over ours, round by round."""
    return [their.cpu_us / our.cpu_us for our, their in zip(ours, theirs, strict=True)]


async def interleave(rounds: int, contestants: dict[str, Callable[[], Awaitable[Lap]]]) -> dict[str, list[Lap]]:
    """Each contestant once per round, in turn, so that a noisy neighbour meets all alike."""
    laps: dict[str, list[Lap]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            laps[name].append(await run())
    return laps


def markdown(lines: Sequence[Line]) -> str:
    """The table: min / median / max of the rounds, then bar, value and whether it is met."""
    rows = [
        "| path | what | CPU µs | per second | server CPU µs | bar | value | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        met = "" if line.met is None else "met" if line.met else "**missed**"
        cpu = line.figures or _three(line.cpu_us, _short)
        rows.append(
            f"| {line.path} | {line.what} | {cpu} | {_three(line.rate, _whole)} | {_median(line.server_us)} "
            f"| {line.bar} | {line.value} | {met} |"
        )
    return "\n".join(rows)


def _three(values: Sequence[float], show: Callable[[float], str]) -> str:
    if not values:
        return ""
    return " / ".join(show(value) for value in (min(values), statistics.median(values), max(values)))


def _median(values: Sequence[float]) -> str:
    return _short(statistics.median(values)) if values else ""


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
