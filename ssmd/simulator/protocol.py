"""One client's subscriptions: commands in, acknowledgements and snapshots out; no sockets, no clock of its own."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ssmd.simulator.book import unknown_body
from ssmd.simulator.source import Message, Source

ALL_MARKETS_ONLY = frozenset({"market_lifecycle_v2", "multivariate_market_lifecycle"})
CHANNELS = frozenset({"orderbook_delta", "trade", "ticker"}) | ALL_MARKETS_ONLY
PRIVATE_CHANNELS = frozenset({"fill", "market_positions", "user_orders", "order_group_updates", "communications"})
UNNUMBERED = frozenset({"ticker"})

ERRORS = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market ticker required",
    15: "Action required",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
}


class Refusal(Exception):
    """A command is answered with an error frame."""

    def __init__(self, code: int) -> None:
        super().__init__(ERRORS[code])
        self.code = code


class Sent(NamedTuple):
    """A frame and what the ledger says about it."""

    frame: bytes
    sid: int | None
    seq: int | None
    type: str
    ticker: str


class Subscription:
    """One channel of one connection; `tickers` None means every market. The dict keeps the order of arrival."""

    __slots__ = ("channel", "seq", "sid", "tickers")

    def __init__(self, channel: str, sid: int, tickers: dict[str, None] | None) -> None:
        self.channel = channel
        self.sid = sid
        self.tickers = tickers
        self.seq = 0

    def next_seq(self) -> int:
        """The next number: data and acknowledgements share it."""
        self.seq += 1
        return self.seq


class Subscriptions:
    """The protocol state of one connection. Times are passed in, in nanoseconds."""

    def __init__(self, source: Source, max_tickers: int = 10_000) -> None:
        self._source = source
        self._max_tickers = max_tickers
        self._next_sid = 0
        self.by_channel: dict[str, Subscription] = {}
        self._actions: dict[str, Callable[[Subscription, list[str], int, int], list[Sent]]] = {
            "add_markets": self._add_markets,
            "delete_markets": self._delete_markets,
            "get_snapshot": self._get_snapshot,
        }

    def number(self, message: Message) -> Sent | None:
        """The frame this connection gets for a message, or None when it did not subscribe to it."""
        subscription = self.by_channel.get(message.channel)
        if subscription is None or (subscription.tickers is not None and message.ticker not in subscription.tickers):
            return None
        sid = subscription.sid
        if not message.numbered:
            return Sent(message.frame(sid, 0), sid, None, message.type, message.ticker)
        subscription.seq = seq = subscription.seq + 1
        return Sent(message.frame(sid, seq), sid, seq, message.type, message.ticker)

    def command(self, text: bytes, now_ns: int) -> list[Sent]:
        """Answer one message of the client; a command that cannot be understood gets an error frame too."""
        command_id = 0
        try:
            command, command_id = _parse(text)
            name = command.get("cmd")
            params = command.get("params")
            if name == "list_subscriptions":
                return [self._list(command_id, now_ns)]
            if name not in ("subscribe", "unsubscribe", "update_subscription"):
                raise Refusal(5)
            if not isinstance(params, dict) or not params:
                raise Refusal(2)
            if name == "subscribe":
                return self._subscribe(params, command_id, now_ns)
            if name == "unsubscribe":
                return self._unsubscribe(params, command_id, now_ns)
            return self._update(params, command_id, now_ns)
        except Refusal as refusal:
            return [self.error(refusal.code, command_id, now_ns)]

    def error(self, code: int, command_id: int, now_ns: int, subscription: Subscription | None = None) -> Sent:
        """An error frame; one that belongs to a subscription carries its sid and consumes a number."""
        envelope: dict[str, Any] = {"id": command_id} if command_id else {}
        if subscription is not None:
            envelope |= {"sid": subscription.sid, "seq": subscription.next_seq()}
        body = json.dumps({"code": code, "msg": ERRORS[code]}, separators=(",", ":")).encode()
        return self._frame("error", envelope, body, now_ns)

    def end(self, code: int, now_ns: int) -> list[Sent]:
        """Terminal errors (10, 25): each subscription is told and is gone; the client must subscribe again."""
        told = [self.error(code, 0, now_ns, each) for each in self.by_channel.values()]
        self.by_channel.clear()
        return told

    def snapshot(self, ticker: str, now_ns: int) -> Sent | None:
        """A fresh snapshot on the orderbook subscription; None without one."""
        subscription = self.by_channel.get("orderbook_delta")
        return None if subscription is None else self._snapshots(subscription, [ticker], 0, now_ns)[0]

    def _subscribe(self, params: dict[str, Any], command_id: int, now_ns: int) -> list[Sent]:
        channels = params.get("channels")
        if not isinstance(channels, list) or not channels:
            raise Refusal(3)
        tickers = _tickers(params)
        sent: list[Sent] = []
        for channel in channels:
            try:
                sent += self._subscribe_channel(channel, tickers, params, command_id, now_ns)
            except Refusal as refusal:
                sent.append(self.error(refusal.code, command_id, now_ns))
        return sent

    def _subscribe_channel(
        self, channel: object, tickers: list[str], params: dict[str, Any], command_id: int, now_ns: int
    ) -> list[Sent]:
        if not isinstance(channel, str) or channel not in CHANNELS | PRIVATE_CHANNELS:
            raise Refusal(8)
        if channel == "orderbook_delta" and not tickers:
            raise Refusal(14)
        if channel in ALL_MARKETS_ONLY:
            tickers = []
        existing = self.by_channel.get(channel)
        if existing is not None:
            return self._merge(existing, tickers, command_id, now_ns)
        if len(set(tickers)) > self._max_tickers:
            raise Refusal(26)
        self._next_sid += 1
        subscription = Subscription(channel, self._next_sid, dict.fromkeys(tickers) if tickers else None)
        self.by_channel[channel] = subscription
        body = json.dumps({"channel": channel, "sid": subscription.sid}, separators=(",", ":")).encode()
        sent = [self._frame("subscribed", {"id": command_id} if command_id else {}, body, now_ns)]
        if channel == "orderbook_delta":
            sent += self._snapshots(subscription, list(subscription.tickers or ()), 0, now_ns)
        elif channel == "ticker" and params.get("send_initial_snapshot") is True:
            sent += self._ticker_snapshots(subscription, now_ns)
        return sent

    def _merge(self, subscription: Subscription, tickers: list[str], command_id: int, now_ns: int) -> list[Sent]:
        """A second subscribe: the full list is acknowledged, tickers that are new get a snapshot, old ones do not."""
        new: list[str] = []
        if subscription.tickers is not None:
            new = [ticker for ticker in dict.fromkeys(tickers) if ticker not in subscription.tickers]
            if len(subscription.tickers) + len(new) > self._max_tickers:
                raise Refusal(26)
            subscription.tickers.update(dict.fromkeys(new))
            if not tickers:  # now every market
                subscription.tickers = None
        sent = [self._ok(subscription, command_id, now_ns)]
        if subscription.channel == "orderbook_delta":
            sent += self._snapshots(subscription, new, 0, now_ns)
        return sent

    def _unsubscribe(self, params: dict[str, Any], command_id: int, now_ns: int) -> list[Sent]:
        sids = params.get("sids", [params["sid"]] if "sid" in params else None)
        if not isinstance(sids, list) or not sids:
            raise Refusal(4)
        sent: list[Sent] = []
        for sid in sids:
            subscription = self._by_sid(sid)
            if subscription is None:
                sent.append(self.error(7, command_id, now_ns))
                continue
            envelope: dict[str, Any] = {"id": command_id} if command_id else {}
            envelope |= {"sid": subscription.sid, "seq": subscription.next_seq()}
            sent.append(self._frame("unsubscribed", envelope, None, now_ns))
            del self.by_channel[subscription.channel]
        return sent

    def _update(self, params: dict[str, Any], command_id: int, now_ns: int) -> list[Sent]:
        sids = params["sids"] if "sids" in params else [params["sid"]] if "sid" in params else []
        if not isinstance(sids, list) or len(sids) != 1:
            raise Refusal(12)
        subscription = self._by_sid(sids[0])
        if subscription is None:
            raise Refusal(7)
        name = params.get("action")
        if not name:
            raise Refusal(15)
        action = self._actions.get(name) if isinstance(name, str) else None
        tickers = _tickers(params)
        code = 13 if action is None else 14 if not tickers else 0
        if subscription.channel in ALL_MARKETS_ONLY or (
            name == "get_snapshot" and subscription.channel not in ("orderbook_delta", "ticker")
        ):
            code = 13
        if action is None or code:
            return [self.error(code, command_id, now_ns, subscription)]
        return action(subscription, tickers, command_id, now_ns)

    def _add_markets(self, subscription: Subscription, tickers: list[str], command_id: int, now_ns: int) -> list[Sent]:
        """Adding a ticker that is already there gives a fresh snapshot (measured on the real exchange)."""
        if subscription.tickers is not None:
            if len(subscription.tickers.keys() | set(tickers)) > self._max_tickers:
                return [self.error(26, command_id, now_ns, subscription)]
            subscription.tickers.update(dict.fromkeys(tickers))
        sent = [self._ok(subscription, command_id, now_ns)]
        if subscription.channel == "orderbook_delta":
            sent += self._snapshots(subscription, tickers, 0, now_ns)
        return sent

    def _delete_markets(
        self, subscription: Subscription, tickers: list[str], command_id: int, now_ns: int
    ) -> list[Sent]:
        if subscription.tickers is None:
            return [self.error(11, command_id, now_ns, subscription)]
        for ticker in tickers:
            subscription.tickers.pop(ticker, None)
        return [self._ok(subscription, command_id, now_ns)]

    def _get_snapshot(self, subscription: Subscription, tickers: list[str], command_id: int, now_ns: int) -> list[Sent]:
        if subscription.channel == "ticker":
            return [frame for ticker in tickers for frame in self._ticker_snapshot(subscription, ticker, now_ns)]
        return self._snapshots(subscription, tickers, command_id, now_ns)

    def _snapshots(
        self, subscription: Subscription, tickers: Sequence[str], command_id: int, now_ns: int
    ) -> list[Sent]:
        sent = []
        for ticker in dict.fromkeys(tickers):
            body = self._source.snapshot_body(ticker) or unknown_body(ticker)
            envelope: dict[str, Any] = {"id": command_id} if command_id else {}
            envelope |= {"sid": subscription.sid, "seq": subscription.next_seq()}
            sent.append(self._frame("orderbook_snapshot", envelope, body, now_ns, ticker))
        return sent

    def _ticker_snapshots(self, subscription: Subscription, now_ns: int) -> list[Sent]:
        tickers = subscription.tickers
        names = tickers if tickers is not None else [row["ticker"] for row in self._source.markets()]
        return [frame for ticker in names for frame in self._ticker_snapshot(subscription, ticker, now_ns)]

    def _ticker_snapshot(self, subscription: Subscription, ticker: str, now_ns: int) -> list[Sent]:
        body = self._source.ticker_body(ticker, now_ns)
        return [] if body is None else [self._frame("ticker", {"sid": subscription.sid}, body, now_ns, ticker)]

    def _ok(self, subscription: Subscription, command_id: int, now_ns: int) -> Sent:
        envelope: dict[str, Any] = {"id": command_id} if command_id else {}
        envelope["sid"] = subscription.sid
        if subscription.channel not in UNNUMBERED:
            envelope["seq"] = subscription.next_seq()
        body = {"market_tickers": list(subscription.tickers or ())}
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        return self._frame("ok", envelope, raw, now_ns)

    def _list(self, command_id: int, now_ns: int) -> Sent:
        rows = [{"channel": each.channel, "sid": each.sid} for each in self.by_channel.values()]
        body = json.dumps(rows, separators=(",", ":")).encode()
        return self._frame("ok", {"id": command_id} if command_id else {}, body, now_ns)

    def _by_sid(self, sid: object) -> Subscription | None:
        return next((each for each in self.by_channel.values() if each.sid == sid), None)

    def _frame(self, kind: str, envelope: dict[str, Any], body: bytes | None, now_ns: int, ticker: str = "") -> Sent:
        numbers = b"".join(b',"%b":%d' % (name.encode(), value) for name, value in envelope.items())
        msg = b"" if body is None else b',"msg":' + body
        frame = b'{"type":"%b"%b%b,"sending_ts_ms":%d}' % (kind.encode(), numbers, msg, now_ns // 1_000_000)
        return Sent(frame, envelope.get("sid"), envelope.get("seq"), kind, ticker)


def _parse(text: bytes) -> tuple[dict[str, Any], int]:
    try:
        command = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(1) from None
    if not isinstance(command, dict):
        raise Refusal(1)
    command_id = command.get("id", 0)
    if isinstance(command_id, bool) or not isinstance(command_id, int):
        raise Refusal(1)
    return command, command_id


def _tickers(params: dict[str, Any]) -> list[str]:
    tickers = params.get("market_tickers", [params["market_ticker"]] if "market_ticker" in params else [])
    if not isinstance(tickers, list) or not all(isinstance(ticker, str) and ticker for ticker in tickers):
        raise Refusal(11)
    return tickers
