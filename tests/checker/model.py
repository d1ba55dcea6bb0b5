"""What the checker talks about: ledger entries, archived records, gaps, findings."""

from dataclasses import dataclass, field

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: `rule` is its id (I1…I5, I9, N = numbering, T = trades,
    M = merged once), `where` the object or connection."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}  {self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger line; `index` is its place among the lines of its connection."""

    index: int
    t_ns: int
    connection: str
    sid: int | None
    seq: int | None
    type: str
    ticker: str | None
    sha256: str
    dropped: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a raw object, without its frame."""

    connection: str
    n: int
    recv_ns: int
    type: str
    sha256: str
    object: str


@dataclass(frozen=True, slots=True)
class Gap:
    """One gap object."""

    object: str
    connection: str | None
    sid: int | None
    from_ns: int
    to_ns: int
    reason: str
    tickers: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection stands by (`first_n` None) or takes over; see `Published` in `merged.py` for what that means.

    `ended_n` is the last frame that `before` captured, where the record says it.
    """

    object: str
    to: str
    at_ns: int
    first_n: int | None
    before: str
    last_n: int | None
    also: tuple[tuple[int, int], ...]
    ended_n: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """When something was broken on purpose."""

    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Archive:
    """Everything read back of one feed."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    size: int = 0
    raw_trades: list[tuple[Record, bytes]] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    raw_quotes: list[tuple[Record, bytes]] = field(default_factory=list)  # kept when there are handovers

    @property
    def count(self) -> int:
        """Archived records."""
        return sum(len(records) for records in self.records.values())
