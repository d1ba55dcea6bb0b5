"""How many messages of each type came in each of the last minutes, and when the last of them came."""

from collections import deque
from collections.abc import Mapping

KEPT_S = 600
RATE_S = 10


class Rates:
    """Counters read once a second; `counters` are running totals that somebody else keeps."""

    def __init__(self, counters: Mapping[str, int]) -> None:
        self.heard_s: dict[str, float] = {}  # monotonic time at which something of a type had come
        self._counters = counters
        self._before = dict(counters)
        self._rings: dict[str, deque[int]] = {name: deque(maxlen=KEPT_S) for name in counters}
        self._at: float | None = None

    def sample(self, now: float) -> None:
        """Call a few times a second with the monotonic time. Seconds in which nobody called count as empty."""
        for name, total in self._counters.items():
            if total != self._before[name]:
                self.heard_s[name] = now
        if self._at is None:
            self._at = now
        whole = int(now - self._at)
        if whole < 1:
            return
        self._at += whole
        for name, total in self._counters.items():
            ring = self._rings[name]
            # Of several seconds at once nothing is known but their sum.
            each, rest = divmod(total - self._before[name], whole)
            seconds = min(whole, KEPT_S)
            ring.extend(each + (n < rest) for n in range(seconds))
            self._before[name] = total

    def per_second(self, name: str | None = None, seconds: int = RATE_S) -> float:
        """The mean of the last seconds: of a type, or of all."""
        rings = [self._rings[name]] if name is not None else list(self._rings.values())
        return sum(sum(list(ring)[-seconds:]) for ring in rings) / max(1, min(seconds, len(rings[0])))

    def line(self, name: str | None = None, points: int = 60) -> list[float]:
        """Messages per second in equal parts of the minutes kept, the newest last; 0 where nobody counted yet."""
        rings = [self._rings[name]] if name is not None else list(self._rings.values())
        width = KEPT_S // points
        totals = [0] * KEPT_S
        for ring in rings:
            for back, count in enumerate(reversed(ring), 1):
                totals[-back] += count
        return [sum(totals[start : start + width]) / width for start in range(0, KEPT_S, width)]
