"""Who gets which message: groups of clients with the same symbols share numbers, frames and one write per tick.

A message's JSON body is made once. Each group, that is each distinct subscription, numbers its messages without holes
and builds the frame once; one tick's frames are joined once and written once to each client. Nothing here waits for a
client: ticks wait for who does not read, and when they are too many it is told which numbers it will never see and is
sent the books that it missed.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from ssmd.gateway.client import Client, frame_header, text_frame
from ssmd.gateway.conflation import Conflation, Later, call_later
from ssmd.gateway.groups import Group, Groups
from ssmd.gateway.resume import Replay, Window
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.gateway.waiting import Tick
from ssmd.telemetry import GATEWAY_SENT, GATEWAY_SUBSCRIPTIONS, ClientReading

HEADERS = tuple(frame_header(length) for length in range(4_096))

HEARTBEAT_S = 10.0


class Fanout:
    """All groups and clients.

    `snapshot` gives a piece of the board (a whole book, say) as a frame, None when it is not known now;
    `first_number` the number after which a new subscription counts; `body` a piece as the body of a numbered message;
    `books` which books a subscription has.
    """

    def __init__(
        self,
        snapshot: Callable[[Piece], bytes | None],
        monotonic: Callable[[], float],
        first_number: Callable[[], int] = lambda: 0,
        *,
        body: Callable[[Piece], bytes | None] = lambda _: None,
        books: Callable[[Subscription], Iterable[Piece]] = lambda _: (),
        window: Window | None = None,
        later: Later = call_later,
    ) -> None:
        self.clients: dict[int, Client] = {}
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._groups = Groups(monotonic, first_number)
        self._body = body
        self._books = books
        self._window = window or Window(0, 0)
        self._replays: dict[int, Replay] = {}
        self._ready: list[Group] = []
        self.interested = self._groups.live.find
        self.told = self._groups.told
        self.told_of_any = self._groups.told_of_any
        self.conflation = Conflation(self._groups, monotonic, self._tell_latest, later)

    @property
    def groups(self) -> int:
        """Distinct subscriptions of the clients that are here."""
        return sum(not group.empty for group in self._groups.all())

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
            if kind in group.whole:
                group.pieces.append((kind, ticker))

    def flush(self) -> None:
        """The end of a tick: one write to each client that has something new."""
        ready, self._ready = self._ready, []
        for group in ready:
            try:
                self._flush(group)
            except Exception as error:  # noqa: BLE001  # a defect of one group must not silence the others
                for client in list(group.clients.values()):
                    client.fail(error)  # it may lack this tick; when it comes back it is told

    def join(self, client: Client) -> None:
        """A new client, without a subscription yet."""
        self.flush()
        self.clients[client.number] = client
        self._enter(client, Subscription())

    def move(self, client: Client, subscription: Subscription) -> int:
        """Change a client's subscription; the number of the last message made for it before now.

        What it was sent of the old subscription, and what it missed of it, is complete before the new one begins.
        """
        self.flush()
        if client.leaving:
            return 0
        if subscription != client.subscription:
            self._catch_up(client)
            replay = self._replays.pop(client.number, None)
            if replay is not None:
                client.replaying = False
                replay.give_up(client, partial(self._books, client.subscription), self._monotonic())
            if self.clients.get(client.number) is not client:
                return 0  # its connection was lost just now
            self._exit(client)
            self._enter(client, subscription)
        return self._groups.open(subscription).seq

    def resumable(self, subscription: Subscription, seq: int) -> bool:
        """Can a client with this subscription go on after number `seq`?"""
        self.flush()
        group = self._groups.of(subscription)
        return group is not None and self._window.holds(group, seq)

    def resume(self, client: Client, subscription: Subscription, seq: int) -> None:
        """Give a client without a subscription this one, which is `resumable`; `replay` sends what came after `seq`."""
        self._exit(client)
        group = self._groups.open(subscription)
        self._window.idle.pop(group, None)
        client.subscription = subscription
        group.replaying[client.number] = client
        self._replays[client.number] = Replay(group, seq)
        client.replaying = True

    def replay(self, client: Client) -> None:
        """Send what it missed as far as its connection takes it; at the end it gets live messages again."""
        replay = self._replays.get(client.number)
        if replay is None:
            return
        now = self._monotonic()
        if replay.go_on(client, partial(self._books, client.subscription), now) and not client.leaving:
            del self._replays[client.number]
            del replay.group.replaying[client.number]
            client.replaying = False
            self._admit(client, replay.group)
            client.settle()

    def leave(self, client: Client) -> None:
        """Forget a client; harmless when repeated. What its group is sent is kept for it for a while."""
        if self.clients.pop(client.number, None) is not None:
            self._exit(client, may_come_back=True)

    def owe(self, client: Client, pieces: Iterable[Piece]) -> None:
        """Send `pieces` whole: now as far as there is room, the rest as the client reads."""
        self.flush()
        if client.leaving:
            return
        client.owe(pieces)
        self._send_due(client)

    def answer(self, client: Client, message: bytes) -> None:
        """Send one client an unnumbered message (a JSON object); a client that asks without reading is sent away."""
        self.flush()
        if not client.leaving:
            client.send(text_frame(message))

    def announce(self, message: bytes) -> None:
        """Send every client that keeps up an unnumbered message."""
        self.flush()
        frame = text_frame(message)
        for client in list(self.clients.values()):
            if client.ready:
                client.send(frame)

    def resumed(self, client: Client) -> None:
        """A connection takes bytes again: what waits, then the pieces that are due, until it is full again."""
        self.flush()
        if client.leaving:
            return
        client.drain(self._monotonic())
        self.replay(client)
        self._send_due(client)

    def readings(self) -> list[ClientReading]:
        """How each client is doing, for the metrics."""
        now = self._monotonic()
        return [client.reading(now) for client in list(self.clients.values())]

    def watch(self, heartbeat: Callable[[], bytes]) -> None:
        """Call now and then: quiet clients hear a heartbeat."""
        self.flush()
        now = self._monotonic()
        for group in self._window.expire(now):
            self._groups.close(group)
        for group in list(self._groups.all()):
            if now - group.written < HEARTBEAT_S:
                continue
            group.written = now
            frame = text_frame(heartbeat())
            for client in list(group.clients.values()):
                if client.ready:
                    client.send(frame)

    def _flush(self, group: Group) -> None:
        tick = self._take(group)
        blob = tick.blob
        behind: list[Client] = []
        failed: list[tuple[Client, Exception]] = []  # ended afterwards: they leave the group that is walked through
        for client in group.clients.values():
            try:
                if client.ready:
                    client.write(blob)
                else:
                    behind.append(client)
            except Exception as error:  # noqa: BLE001  # costs nothing until it happens
                failed.append((client, error))
        delivered = len(group.clients) - len(behind) - len(failed)
        for kind, count in tick.kinds.items():
            GATEWAY_SENT.labels(kind).inc(count * delivered)
        for client in behind:
            try:
                if group.conflated:
                    client.conflate(tick)
                else:
                    client.push(tick)  # may end the connection, and with it the client's place in the group
            except Exception as error:  # noqa: BLE001
                failed.append((client, error))
        for client, reason in failed:
            client.fail(reason)

    def _take(self, group: Group) -> Tick:
        """The group's tick, numbered and kept: from here on the next one is made, whatever becomes of this one."""
        now = group.written = self._monotonic()
        kinds = Counter(group.kinds)
        tick = Tick(b"".join(group.frames), group.first, group.seq, tuple(group.pieces), kinds, now)
        group.first = group.seq + 1
        group.frames.clear()
        group.kinds.clear()
        group.pieces.clear()
        group.meter.add(tick.last - tick.first + 1, len(tick.blob), now)
        if self._window.open and group.subscription:
            self._window.keep(group, tick)
        return tick

    def _send_due(self, client: Client) -> None:
        """The pieces that it is due, whole, until its connection takes no more; they contain all that was sent."""
        due = client.due
        while due and not (client.paused or client.waits or client.replaying):
            piece = next(iter(due))
            del due[piece]
            frame = self._snapshot(piece)
            if frame is not None:
                client.write_whole(frame)
                GATEWAY_SENT.labels(piece[0]).inc()
        client.settle()

    def _catch_up(self, client: Client) -> None:
        group = self._groups.of(client.subscription)
        if group is not None and group.conflated:
            self.conflation.catch_up(group)

    def _tell_latest(self, group: Group, pieces: list[Piece]) -> None:
        """The end of a conflated group's interval."""
        for piece in pieces:
            body = self._body(piece)
            if body is not None:
                self.add((group,), *piece, body)
        self.flush()

    def _enter(self, client: Client, subscription: Subscription) -> None:
        client.subscription = subscription
        group = self._groups.open(subscription)
        self._window.idle.pop(group, None)
        self._admit(client, group)

    def _admit(self, client: Client, group: Group) -> None:
        group.clients[client.number] = client
        client.follow(group.meter)
        if group.subscription:
            GATEWAY_SUBSCRIPTIONS.labels(_kind(group.subscription)).inc()

    def _exit(self, client: Client, *, may_come_back: bool = False) -> None:
        group = self._groups.open(client.subscription)
        self._replays.pop(client.number, None)
        group.replaying.pop(client.number, None)
        if group.clients.pop(client.number, None) is not None and client.subscription:
            GATEWAY_SUBSCRIPTIONS.labels(_kind(client.subscription)).dec()
        if not group.empty:
            return
        if may_come_back and client.subscription and self._window.open:
            self._window.idle[group] = self._monotonic()
        else:
            self._groups.close(group)


def _kind(subscription: Subscription) -> str:
    return "all" if subscription.every else "named"
