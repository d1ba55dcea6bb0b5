"""One connection's protocol state."""

from ssmd.feeds.interface import Mapper, Session
from ssmd.wire.raw import inline_template

_MAX_TEMPLATES = 1_000
TRANSIT_NS = 50_000_000
"""A gap begins this much before the last frame received: the lost one was sent while that one was under way."""


class Conversation:
    """One connection's protocol state: its number of frames, its mapper and its session."""

    def __init__(self, connection: str, mapper: Mapper, session: Session) -> None:
        self.connection = connection
        self.id = connection.encode()
        self.mapper = mapper
        self.session = session
        self.n = 0
        self.first_ns = 0
        self.marked_ns = 0
        """When it was last recorded that it stands by."""
        self.last_ns = 0
        self.sid_last_ns: dict[int, int] = {}
        self.templates: dict[str, bytes] = {}

    def template(self, kind: str) -> bytes:
        """The raw line of an inline frame of type `kind`, to be filled in."""
        if len(self.templates) > _MAX_TEMPLATES:
            self.templates.clear()
        made = self.templates[kind] = inline_template(kind, self.connection)
        return made


class Lines:
    """The raw lines of one group in one read, and the numbers of its first and last frame."""

    __slots__ = ("first_n", "last_n", "lines")

    def __init__(self, first_n: int) -> None:
        self.lines: list[bytes] = []
        self.first_n = first_n
        self.last_n = first_n
