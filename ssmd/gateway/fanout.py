"""Who gets which message: groups of clients with the same symbols share numbers, frames and one write per tick.

A message's JSON body is made once. Each group, that is each distinct set of symbols, numbers its messages 1, 2, 3, …
and builds the frame once; one tick's frames are joined once and written once to each client. Nothing here waits for a
client: who does not read fast enough misses whole ticks, is told which numbers, and is sent the books it missed.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from ssmd.gateway.client import CONTROL_BYTES, Client, frame_header, text_frame
from ssmd.telemetry import GATEWAY_DROPPED, GATEWAY_SENT, GATEWAY_SUBSCRIPTIONS
from ssmd.wire import client as wire

ALL = frozenset({"*"})
NOTHING: frozenset[str] = frozenset()

HEADERS = tuple(frame_header(length) for length in range(4_096))

BOOKS_NAMED = 1_000
HEARTBEAT_S = 10.0
STALL_S = 10.0


class Group:
    """The clients of one distinct set of symbols. `seq` is the number of the last message made for it."""

    __slots__ = ("books", "clients", "first", "frames", "kinds", "seq", "symbols", "written")

    def __init__(self, symbols: frozenset[str], now: float) -> None:
        self.symbols = symbols
        self.clients: dict[int, Client] = {}
        self.seq = 0
        self.first = 1  # number of the first message in `frames`
        self.frames: list[bytes] = []  # header, `{"seq":N,`, body; header, …
        self.kinds: list[str] = []
        self.books: list[str] = []
        self.written = now


class Fanout:
    """All groups and clients. `snapshot` gives a ticker's whole book as a frame, None when there is no synced one."""

    def __init__(self, snapshot: Callable[[str], bytes | None], monotonic: Callable[[], float]) -> None:
        self.clients: dict[int, Client] = {}
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._groups: dict[frozenset[str], Group] = {}
        self._by_ticker: dict[str, tuple[Group, ...]] = {}
        self._everyone: tuple[Group, ...] = ()
        self._ready: list[Group] = []
        self._behind: dict[int, Client] = {}

    @property
    def groups(self) -> int:
        """Distinct sets of symbols."""
        return len(self._groups)

    def interested(self, ticker: str) -> tuple[Group, ...]:
        """The groups that want messages about `ticker`."""
        named = self._by_ticker.get(ticker)
        return self._everyone if named is None else named + self._everyone

    def interested_in_any(self, tickers: Iterable[str] | None) -> tuple[Group, ...]:
        """The groups that want messages about one of `tickers` (all groups when None); each once."""
        if tickers is None:
            return tuple(group for group in self._groups.values() if group.symbols)
        return tuple({id(group): group for ticker in tickers for group in self.interested(ticker)}.values())

    def add(self, groups: tuple[Group, ...], kind: str, ticker: str, body: bytes) -> None:
        """Number and frame a message for `groups`; `body` is a JSON object without its first brace.

        It leaves with the next `flush`.
        """
        for group in groups:
            frames = group.frames
            if not frames:
                self._ready.append(group)
            seq = group.seq = group.seq + 1
            head = b'{"seq":%d,' % seq
            length = len(head) + len(body)
            frames += (HEADERS[length] if length < 4_096 else frame_header(length), head, body)
            group.kinds.append(kind)
            if kind == "orderbook":
                group.books.append(ticker)

    def flush(self) -> None:
        """The end of a tick: one write to each client that has something new."""
        ready, self._ready = self._ready, []
        for group in ready:
            self._flush(group)

    def join(self, client: Client) -> None:
        """A new client, without a subscription yet."""
        self.flush()
        self.clients[client.number] = client
        self._enter(client, NOTHING)

    def move(self, client: Client, symbols: frozenset[str]) -> int:
        """Change a client's subscription; the number of the last message made for it before now.

        What it was sent of the old subscription, and what it missed of it, is complete before the new one begins.
        """
        self.flush()
        if client.leaving:
            return 0
        self._tell_skipped(client)
        if symbols != client.symbols:
            self._exit(client)
            self._enter(client, symbols)
        return self._groups[symbols].seq

    def leave(self, client: Client) -> None:
        """Forget a client; harmless when repeated."""
        if self.clients.pop(client.number, None) is not None:
            self._exit(client)
            self._behind.pop(client.number, None)

    def owe_books(self, client: Client, tickers: Iterable[str]) -> None:
        """Send the whole books of `tickers`: now as far as there is room, the rest as the client reads."""
        self.flush()
        if client.leaving:
            return
        client.due.update(dict.fromkeys(tickers))
        self._send_books(client)
        if client.behind:
            self._behind[client.number] = client

    def answer(self, client: Client, message: bytes) -> None:
        """Send one client an unnumbered message (a JSON object); a client that asks without reading is sent away."""
        self.flush()
        if client.leaving:
            return
        if client.outlet.get_write_buffer_size() > client.limit + CONTROL_BYTES:
            client.kick(1008, "asks for more but does not read the answers")
            return
        client.outlet.write(text_frame(message))

    def announce(self, message: bytes) -> None:
        """Send every client that keeps up an unnumbered message."""
        self.flush()
        frame = text_frame(message)
        for client in self.clients.values():
            if not client.first_skipped and client.fits(len(frame)):
                client.outlet.write(frame)

    def watch(self, heartbeat: Callable[[], bytes]) -> None:
        """Call a few times a second: slow clients catch up, stalled ones are sent away, quiet ones hear a heartbeat."""
        self.flush()
        now = self._monotonic()
        for client in list(self._behind.values()):
            if client.first_skipped and now - client.skipping_since > STALL_S:
                client.kick(1008, f"slow reader: nothing read for {STALL_S:.0f} s, {client.skipped} messages skipped")
            elif client.room() > 0:
                self._tell_skipped(client)
                self._send_books(client)
            if not client.behind:
                self._behind.pop(client.number, None)
        for group in self._groups.values():
            if now - group.written < HEARTBEAT_S:
                continue
            group.written = now
            frame = text_frame(heartbeat())
            for client in group.clients.values():
                if not client.behind and client.fits(len(frame)):
                    client.outlet.write(frame)

    def _flush(self, group: Group) -> None:
        blob = b"".join(group.frames)
        size = len(blob)
        first, last = group.first, group.seq
        delivered = 0
        for client in group.clients.values():
            buffered = client.outlet.get_write_buffer_size()
            if (buffered and buffered + size > client.limit) or (client.first_skipped and client.room() <= 0):
                client.skip(first, last, group.books, self._monotonic())
                self._behind[client.number] = client
                continue
            if client.first_skipped:
                self._tell_skipped(client)
            client.outlet.write(blob)
            delivered += 1
            if client.due:
                self._send_books(client)  # after the tick: they contain it
        for kind, count in Counter(group.kinds).items():
            GATEWAY_SENT.labels(kind).inc(count * delivered)
        if delivered < len(group.clients):
            GATEWAY_DROPPED.labels("slow_reader").inc((last - first + 1) * (len(group.clients) - delivered))
        group.written = self._monotonic()
        group.first = last + 1
        group.frames.clear()
        group.kinds.clear()
        group.books.clear()

    def _tell_skipped(self, client: Client) -> None:
        if client.first_skipped:
            first, last = client.take_skipped()
            books = list(client.due) if len(client.due) <= BOOKS_NAMED else None
            client.outlet.write(text_frame(wire.skipped(first, last, books)))

    def _send_books(self, client: Client) -> None:
        """Whole books as far as half of the buffer takes them."""
        room = client.room()
        frames: list[bytes] = []
        sent: list[str] = []
        for ticker in client.due:
            if room <= 0:
                break
            sent.append(ticker)
            frame = self._snapshot(ticker)
            if frame is not None:
                frames.append(frame)
                room -= len(frame)
        for ticker in sent:
            del client.due[ticker]
        if frames:
            client.outlet.write(b"".join(frames))
            GATEWAY_SENT.labels("orderbook").inc(len(frames))

    def _enter(self, client: Client, symbols: frozenset[str]) -> None:
        client.symbols = symbols
        group = self._groups.get(symbols)
        if group is None:
            group = self._groups[symbols] = Group(symbols, self._monotonic())
            if symbols == ALL:
                self._everyone = (group,)
            else:
                for ticker in symbols:
                    self._by_ticker[ticker] = (*self._by_ticker.get(ticker, ()), group)
        group.clients[client.number] = client
        if symbols:
            GATEWAY_SUBSCRIPTIONS.labels(_kind(symbols)).inc()

    def _exit(self, client: Client) -> None:
        group = self._groups[client.symbols]
        if group.clients.pop(client.number, None) is not None and client.symbols:
            GATEWAY_SUBSCRIPTIONS.labels(_kind(client.symbols)).dec()
        if group.clients:
            return
        del self._groups[client.symbols]
        if client.symbols == ALL:
            self._everyone = ()
            return
        for ticker in client.symbols:
            rest = tuple(other for other in self._by_ticker[ticker] if other is not group)
            if rest:
                self._by_ticker[ticker] = rest
            else:
                del self._by_ticker[ticker]


def _kind(symbols: frozenset[str]) -> str:
    return "all" if symbols == ALL else "named"
