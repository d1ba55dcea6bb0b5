"""The rows of the table: what is measured in which order, and the bars (SYSTEM contract, "Speed")."""

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from ssmd.cli.main import GC_THRESHOLD
from tests.bench import archiver, connector, crowd, gateway, latency, listing, markets, normalizer, startup
from tests.bench.backfill import RawDay
from tests.bench.broker import Broker, broker
from tests.bench.crowd import resident_mib
from tests.bench.frames import Tape
from tests.bench.latency import Ages, Chain
from tests.bench.limit import Limit
from tests.bench.markets import Registry
from tests.bench.measure import Lap, Line, at_least, at_most, interleave, measured, rates, savings

PAYLOAD_BYTES = 176
"""Mean size of the tape's events as Cap'n Proto."""
_LATENCY_RATES = (1_000, 10_000)
_FLOOD = 50_000
"""A rate at which the peer falls behind; measured once, at the end, because what it owes would disturb the next lap."""
_MEMORY_MIB = 512
_MEMORY_BAR = f"≤ {_MEMORY_MIB} MiB"


class Scale(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int
    frames: int
    deliveries: int
    markets: int
    latency_s: float


FULL = Scale(rounds=3, frames=200_000, deliveries=640_000, markets=100_000, latency_s=3.0)
QUICK = Scale(rounds=2, frames=40_000, deliveries=128_000, markets=20_000, latency_s=1.0)


class Bench:
    """One run: its input, its scale, a folder for everything."""

    def __init__(self, tape: Tape, scale: Scale, folder: Path) -> None:
        self.tape = tape
        self.scale = scale
        self.folder = folder
        self._names = count()

    def new_folder(self) -> Path:
        """The path of a folder that does not exist."""
        return self.folder / f"{next(self._names)}"

    async def connector(self) -> list[Line]:
        """The connector, beside the limit of the server and the naive loop."""
        limit = Limit(self.folder)
        with broker(self.new_folder()) as server:
            blast = partial(limit.lap, server, self.scale.frames, PAYLOAD_BYTES)
            laps = await interleave(
                self.scale.rounds,
                {
                    "bare": partial(blast, bare=True),
                    "full": partial(blast, bare=False),
                    "naive": lambda: connector.naive(server, self.tape, self.new_folder()),
                    "ours": lambda: connector.ours(server, self.tape, self.new_folder()),
                },
            )
        ours, bare, full, naive = laps["ours"], laps["bare"], laps["full"], laps["naive"]
        return [
            measured("connector", f"limit: {limit.name}, acked", bare),
            measured("", "the same with message ids and republishing, as ssmd's stream has", full),
            measured("", "naive: json, pycapnp, awaited publish, zstd", naive),
            measured("", "ssmd: spool, books, publish, acked, raw objects stored; 0 lost", ours),
            at_least("", "", "≥ 65 % of the limit", 0.65, rates(ours, bare), "{:.0%}"),
            at_least("", "", "≥ 40 × naive", 40, rates(ours, naive), "{:.1f} ×"),
            Line("", "of the limit with ids and republishing", value=f"{statistics.median(rates(ours, full)):.0%}"),
        ]

    async def normalizer(self) -> list[Line]:
        """Frame to bytes."""
        normalizer.check_equal(self.tape)
        laps = await interleave(
            self.scale.rounds,
            {
                "naive": lambda: normalizer.naive(self.tape, self.scale.frames // 10),
                "ours": lambda: normalizer.ours(self.tape, self.scale.frames // 2),
            },
        )
        return [
            measured("normalizer", "naive: json, floats, pycapnp", laps["naive"]),
            measured("", "ssmd: frame to bytes, books kept, sequences checked", laps["ours"]),
            at_least("", "", "≥ 5 × naive (CPU)", 5, savings(laps["ours"], laps["naive"]), "{:.1f} ×"),
        ]

    async def archiver(self) -> list[Line]:
        """A full stream into the normalized archive."""
        with broker(self.new_folder()) as server:
            messages = await archiver.fill(server, self.tape)
            laps = await interleave(
                self.scale.rounds,
                {
                    "naive": lambda: archiver.naive(server, self.new_folder()),
                    "ours": lambda: archiver.ours(server, messages, self.new_folder()),
                    "connector": lambda: self._connector_beside(server),
                },
            )
        ours, naive = laps["ours"], laps["naive"]
        return [
            measured("archiver", "naive: fetch(100), pycapnp, a file per ticker, ack each", naive),
            measured("", "ssmd: segments synced, then acked; every message found again", ours),
            at_least("", "", "≥ 25 × naive", 25, rates(ours, naive), "{:.1f} ×"),
            at_least("", "", "≥ the connector's rate", 1, rates(ours, laps["connector"]), "{:.2f} ×"),
        ]

    async def _connector_beside(self, server: Broker) -> Lap:
        with broker(self.new_folder()) as other:
            return await connector.ours(other, self.tape, self.new_folder())

    async def gateway(self) -> list[Line]:
        """The gateway's fan-out, for 1, 50 and 500 clients."""
        lines = []
        for clients in (1, 50, 500):
            messages = max(self.scale.deliveries // max(clients, 16), 1_280)
            stream = gateway.Stream(self.tape, messages)
            rounds, naive = [], []
            for _ in range(self.scale.rounds):
                naive.append(await gateway.naive(clients, stream))
                rounds.append(await gateway.ours(clients, stream))
            laps = {name: [each[name] for each in rounds] for name in rounds[0]}
            named = f"gateway, {clients} clients" if clients > 1 else "gateway, one client"
            each, coalesced, fan_out, whole = laps["each"], laps["coalesced"], laps["fan-out"], laps["whole"]
            lines += [
                measured(named, "naive: pycapnp, json, one send per message and client", naive),
                measured("", "ssmd's gateway: Cap'n Proto in, books kept, JSON out", whole),
                measured("", "ready JSON, one plain write per message", each),
                measured("", f"ready JSON, one plain write per {gateway.TICK} messages", coalesced),
                measured("", "ready JSON, ssmd's fan-out: numbered, bounded buffers", fan_out),
            ]
            if clients == 500:
                lines.append(at_least("", "fan-out", "≥ 60 % of coalesced", 0.6, savings(fan_out, coalesced), "{:.0%}"))
            if clients == 50:
                lines += [
                    at_least("", "gateway", "≥ 20 × one write per message", 20, savings(whole, naive), "{:.1f} ×"),
                    at_least("", "fan-out", "≥ 20 × one write per message", 20, savings(fan_out, each), "{:.1f} ×"),
                    at_least("", "fan-out", "≥ 80 % of coalesced", 0.8, savings(fan_out, coalesced), "{:.0%}"),
                ]
        return lines

    async def crowd(self) -> list[Line]:
        """A thousand clients, of which fifty never read."""
        without, beside, peak = await crowd.measure(2 * self.scale.rounds - 1, self.scale.latency_s)
        named = f"gateway, {crowd.CLIENTS:,} clients"
        ratio = statistics.median(with_.p99 / alone.p99 for with_, alone in zip(beside, without, strict=True))
        return [
            _aged(named, f"{crowd.CLIENTS - crowd.NEVER} that read", without),
            _aged("", f"the same beside {crowd.NEVER} that never read", beside),
            at_most("", "p99 of those that read", "≤ 1.10 × without", 1.1, ratio, "{:.2f} ×"),
            at_most("", "most memory of the gateway", _MEMORY_BAR, _MEMORY_MIB, peak, "{:.0f} MiB"),
        ]

    async def latency(self) -> list[Line]:
        """Frame to client, through all processes."""
        ages: dict[tuple[int, bool], list[Ages]] = {}
        with broker(self.new_folder()) as server:
            once = latency.WARM_UP_S + self.scale.latency_s
            frames = round(once * (self.scale.rounds * sum(_LATENCY_RATES) + _FLOOD)) + 100
            async with (
                latency.chain(server, frames, peer=False) as ours,
                latency.chain(server, frames, peer=True) as peer,
            ):
                for _ in range(self.scale.rounds):
                    for rate in _LATENCY_RATES:
                        for party, chain in ((False, ours), (True, peer)):
                            ages.setdefault((rate, party), []).append(await self._ages(chain, rate))
                for party, chain in ((False, ours), (True, peer)):
                    ages[_FLOOD, party] = [await self._ages(chain, _FLOOD)]
                memory = resident_mib(ours.gateway.pid, "VmHWM")
        lines = []
        for rate in _LATENCY_RATES:
            our, their = ages[rate, False], ages[rate, True]
            if any(lap.missing for lap in our):
                raise RuntimeError(f"the client missed trades at {rate:,}/s: {[lap.missing for lap in our]}")
            lines += [
                _aged(f"latency, {rate:,}/s", "nats-py, pycapnp, json, websockets", their),
                _aged("", "ssmd: exchange to client, stored by JetStream on the way", our),
            ]
            p50, p99 = (statistics.median(getattr(lap, name) for lap in our) for name in ("p50", "p99"))
            lines += [
                at_most("", "p50 when quiet", "≤ 0.5 ms", 0.5, p50, "{:.2f} ms"),
                at_most("", "p99 when quiet", "≤ 5 ms", 5, p99, "{:.2f} ms"),
                at_most("", "p50 of nats-py's", "≤ 1", 1, p50 / statistics.median(lap.p50 for lap in their), "{:.2f}"),
                at_most("", "p99 of nats-py's", "≤ 1", 1, p99 / statistics.median(lap.p99 for lap in their), "{:.2f}"),
            ]
        (flood,), (owed,) = ages[_FLOOD, False], ages[_FLOOD, True]
        return [
            *lines,
            _aged(f"latency, {_FLOOD:,}/s", f"nats-py, pycapnp, json, websockets{_behind(owed)}", [owed]),
            _aged("", f"ssmd{_behind(flood)}", [flood]),
            at_most("", "p50 of nats-py's", "≤ 1", 1, flood.p50 / owed.p50, "{:.2f}"),
            at_most("", "p99 of nats-py's", "≤ 1", 1, flood.p99 / owed.p99, "{:.2f}"),
            at_most("", "most memory of the gateway", _MEMORY_BAR, _MEMORY_MIB, memory, "{:.0f} MiB"),
        ]

    async def _ages(self, chain: Chain, rate: int) -> Ages:
        return await chain.lap(rate, self.scale.latency_s)

    async def backfill(self) -> list[Line]:
        """Raw objects to normalized ones."""
        folder = self.new_folder()
        folder.mkdir()
        day = RawDay(folder)
        await day.write(Tape(self.tape.opening, self.tape.frames[: self.scale.frames // 2]))
        before = gc.get_threshold()
        gc.set_threshold(GC_THRESHOLD)  # as in every `ssmd` command; for all three
        try:
            laps = await interleave(
                self.scale.rounds,
                {
                    "limit": day.limit,
                    "naive": lambda: day.naive(self.new_folder()),
                    "ours": lambda: day.ours(self.new_folder()),
                },
            )
        finally:
            gc.set_threshold(*before)
        ours, limit = laps["ours"], laps["limit"]
        return [
            measured("backfill", "limit: decompress and split into lines", limit),
            measured("", "naive: json, pycapnp, zstd; nothing checked", laps["naive"]),
            measured("", "ssmd: checked, merged, normalized, by ticker, compressed", ours),
            at_least("", "", "≥ 3 × naive", 3, rates(ours, laps["naive"]), "{:.1f} ×"),
            Line("", "of the limit", value=f"{statistics.median(savings(ours, limit)):.1%}"),
        ]

    async def markets(self) -> list[Line]:
        """Listings into the security master."""
        registry = markets.Registry(self.new_folder())
        try:
            rounds = [registry.laps(self.scale.markets) for _ in range(2)]  # a minute each
            wholes = self._listings(registry)
        finally:
            registry.close()
        limit, new, same, tenth = ([each[name] for each in rounds] for name in ("limit", "new", "same", "tenth"))
        said = {"all of them new": new, "the same again": same, "a tenth of them changed": tenth}
        return [
            measured("security master", f"limit: plain COPY of the rows of {self.scale.markets:,} markets", limit),
            *(measured("", f"ssmd: sync in one transaction, {what}", laps) for what, laps in said.items()),
            *(at_least("", what, "≥ 25 % of COPY", 0.25, rates(laps, limit), "{:.0%}") for what, laps in said.items()),
            *(
                measured(
                    "", f"ssmd market sync, HTTP and journal included, {what}", [each[name].lap for each in wholes]
                )
                for what, name in zip(said, ("new", "same", "tenth"), strict=True)
            ),
            Line(
                "", "most memory of such a sync", value=f"{max(w.peak_mib for e in wholes for w in e.values()):.0f} MiB"
            ),
        ]

    def _listings(self, registry: Registry) -> list[dict[str, listing.Whole]]:
        """Whole syncs from an exchange on the loopback, told to a journal in NATS."""
        found = []
        with listing.exchange(self.scale.markets) as url:
            for _ in range(self.scale.rounds):
                with broker(self.new_folder()) as server:
                    found.append(listing.laps(self.scale.markets, url, registry.fresh(), server.url))
        return found

    async def startup(self) -> list[Line]:
        """`ssmd --help`."""
        startup.lap_s()  # compiles what is not compiled yet
        seconds = [startup.lap_s() for _ in range(3 * self.scale.rounds)]
        figures = f"min {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s"
        return [
            Line("command line", "`ssmd --help`", figures=figures),
            at_most("", "", "≤ 0.25 s", 0.25, min(seconds), "{:.2f} s"),
        ]


def _behind(ages: Ages) -> str:
    """What of the last lap had not arrived five seconds later."""
    return f"; {ages.missing:,} of {ages.trades + ages.missing:,} trades not there 5 s later" if ages.missing else ""


def _aged(path: str, what: str, ages: Sequence[Ages | crowd.Round]) -> Line:
    halves = " / ".join(f"{lap.p50:.2f}" for lap in sorted(ages, key=lambda lap: lap.p50))
    tails = " / ".join(f"{lap.p99:.2f}" for lap in sorted(ages, key=lambda lap: lap.p99))
    return Line(path, what, figures=f"p50 {halves} ms, p99 {tails} ms")


ROWS: dict[str, Callable[[Bench], Awaitable[list[Line]]]] = {
    "connector": Bench.connector,
    "normalizer": Bench.normalizer,
    "archiver": Bench.archiver,
    "gateway": Bench.gateway,
    "crowd": Bench.crowd,
    "latency": Bench.latency,
    "backfill": Bench.backfill,
    "markets": Bench.markets,
    "startup": Bench.startup,
}


async def run(names: list[str], bench: Bench, tell: Callable[[str], None]) -> list[Line]:
    """The lines of the rows `names`, measured one after the other."""
    lines: list[Line] = []
    for name in names:
        began = asyncio.get_running_loop().time()
        lines += await ROWS[name](bench)
        tell(f"{name}: {asyncio.get_running_loop().time() - began:.0f} s")
    return lines
