"""Changes of what the exchange lists, ordered by a test while it runs, and the lifecycle frames that tell of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ssmd.errors import ConfigError
from ssmd.simulator.fixed import rfc3339
from ssmd.simulator.listing import Listing, Table, is_combo, micros
from ssmd.simulator.objects import Objects
from ssmd.simulator.source import CHANNEL_OF_TYPE, Message, Row

KINDS = ("series", "events", "markets")
_OVER = ("determined", "disputed", "amended")
_STRIKES = ("strike_type", "floor_strike", "cap_strike", "functional_strike", "custom_strike", "yes_sub_title")
_encode = msgspec.json.Encoder().encode


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order; exactly one of these:

    `{"ticker": T, "set": {…}}` (or `"event"`, `"series"`): set fields; the time of the last update moves with it,
    unless `set` names it or `"touch": false`. A market set to `determined` or `finalized` gets its settlement value
    and time.
    `{"remove": NAME}`: the exchange forgets a market (or `"of": "events"`, `"series"`).
    `{"add": OBJECT}`: a market, an event or a series, bare or in the body of its page.
    `{"hide": n}`: the next n list answers are empty; `true`: all, until `false` (`"of"`: of one kind only).
    `{"cutoff": TIME}`: markets settled before it move to the historical pages.
    """

    ticker: str | None = None
    event: str | None = None
    series: str | None = None
    set: dict[str, Any] | None = None
    touch: bool = True
    remove: str | None = None
    add: dict[str, Any] | None = None
    hide: bool | int | None = None
    of: Literal["series", "events", "markets"] | None = None
    cutoff: str | None = None


def parse_changes(body: bytes) -> list[Change]:
    """One order or a list of them; ConfigError when it is neither."""
    try:
        if body.lstrip()[:1] == b"[":
            return msgspec.json.decode(body, type=list[Change])
        return [msgspec.json.decode(body, type=Change)]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"not an order: {error}") from error


class Changer:
    """Carries out orders on a listing."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def apply(self, changes: Sequence[Change], now_ns: int) -> list[Message]:
        """Carry out all of `changes`, or none and a ConfigError; what the exchange says about them."""
        self._check(changes)
        return [message for change in changes for message in self._apply(change, now_ns)]

    # --- checking ------------------------------------------------------------------------------------------------

    def _check(self, changes: Sequence[Change]) -> None:
        there: dict[tuple[str, str], bool] = {}  # as earlier orders of the same list leave it
        for number, change in enumerate(changes, 1):
            try:
                self._check_one(change, there)
            except ConfigError as error:
                raise ConfigError(f"order {number} of {len(changes)}: {error.message}; nothing was changed") from error

    def _check_one(self, change: Change, there: dict[tuple[str, str], bool]) -> None:
        actions = [name for name in ("set", "remove", "add", "hide", "cutoff") if getattr(change, name) is not None]
        named = _named(change)
        if len(actions) != 1 or (actions == ["set"]) != (named is not None):
            raise ConfigError("it must be one of ticker/event/series with set, remove, add, hide, cutoff")
        match actions[0]:
            case "set":
                assert named is not None
                assert change.set is not None
                name_field = "event_ticker" if named[0] == "events" else "ticker"
                if change.set.get(name_field, named[1]) != named[1]:
                    raise ConfigError(f"{name_field} cannot be changed")
                self._require(*named, there)
            case "remove":
                removed = (str(change.of or "markets"), str(change.remove))
                self._require(*removed, there)
                there[removed] = False
            case "add":
                for kind, rows in _added(change).items():
                    for name in rows:
                        if there.get((kind, name), self._table(kind).get(name) is not None):
                            raise ConfigError(f"{name} is listed already: use set")
                        there[kind, name] = True
            case "hide" if change.hide is not None and change.hide < 0:
                raise ConfigError("hide takes a number of answers, true or false")
            case "cutoff" if micros(change.cutoff) < 0:
                raise ConfigError(f"{change.cutoff!r} is not a time like 2026-11-22T00:00:00Z")
            case _:
                pass

    def _require(self, kind: str, name: str, there: Mapping[tuple[str, str], bool]) -> None:
        known = there.get((kind, name))
        if not (self._table(kind).get(name) is not None if known is None else known):
            raise ConfigError(f"there is no {name} among the {kind}")

    def _table(self, kind: str) -> Table:
        listing = self._listing
        return {"series": listing.series_table, "events": listing.event_table, "markets": listing.market_table}[kind]

    # --- doing ---------------------------------------------------------------------------------------------------

    def _apply(self, change: Change, now_ns: int) -> list[Message]:
        if change.set is not None:
            return self._set(change, change.set, now_ns)
        if change.remove is not None:
            self._table(change.of or "markets").remove(change.remove)
        elif change.add is not None:
            return self._add(change, now_ns)
        elif change.hide is not None:
            left = -1 if change.hide is True else int(change.hide)
            self._listing.hidden |= dict.fromkeys([change.of] if change.of else KINDS, left)
        elif change.cutoff is not None:
            self._listing.cutoff = change.cutoff
        return []

    def _set(self, change: Change, fields: dict[str, Any], now_ns: int) -> list[Message]:
        named = _named(change)
        assert named is not None
        kind, name = named
        stamp = "updated_time" if kind == "markets" else "last_updated_ts"
        if change.touch:
            fields = {stamp: rfc3339(now_ns), **fields}
        table = self._table(kind)
        before = table.get(name)
        assert before is not None
        if kind != "markets":
            table.change(name, fields)
            return []
        after = table.change(name, _settled({**before, **fields}, fields, now_ns))
        return [_message(after, msg, now_ns) for msg in _told(before, after, now_ns)]

    def _add(self, change: Change, now_ns: int) -> list[Message]:
        added = _added(change)
        now = rfc3339(now_ns)
        for kind in ("series", "events"):
            for row in added[kind].values():
                self._table(kind).add({"last_updated_ts": now, **row})
        messages = [_raw("event_lifecycle", "", _event_created(row), now_ns) for row in added["events"].values()]
        for market in added["markets"].values():
            row = {"created_time": now, "updated_time": now, "status": "initialized", "result": "", **market}
            self._listing.market_table.add(row)
            told = [_created(row), *_told({"status": "initialized"}, row, now_ns, metadata=False)]
            messages += [_message(row, msg, now_ns) for msg in told]
        return messages


def _named(change: Change) -> tuple[str, str] | None:
    """Kind and name of what `set` is about; None when it names nothing, or more than one thing."""
    given = [("markets", change.ticker), ("events", change.event), ("series", change.series)]
    named = [(kind, name) for kind, name in given if name is not None]
    return named[0] if len(named) == 1 else None


def _added(change: Change) -> dict[str, dict[str, Row]]:
    """The objects of an `add`, by kind and name; ConfigError when there are none."""
    body: dict[str, Any] = change.add or {}
    objects = Objects()
    if not objects.take(body):
        if "event_ticker" in body and "ticker" in body:
            objects.take({"market": body})
        elif "event_ticker" in body:
            objects.take({"event": body})
        else:
            objects.take({"series": body})
    if not objects:
        raise ConfigError("there is no market, event or series to add: it needs ticker, event_ticker")
    return {"series": objects.series, "events": objects.events, "markets": objects.markets}


def _settled(row: Row, fields: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
    """`fields`, and what the exchange fills in itself when a market's result is known, and when it is settled."""
    filled = dict(fields)
    status = fields.get("status")
    if status in ("determined", "finalized") and "settlement_value_dollars" not in row:
        value = _value(row)
        filled |= {} if value is None else {"settlement_value_dollars": value}
    if status == "finalized" and not row.get("settlement_ts"):
        filled["settlement_ts"] = rfc3339(now_ns)
    return filled


def _value(row: Row) -> str | None:
    """Dollars of YES."""
    value = row.get("settlement_value_dollars")
    return str(value) if value is not None else {"yes": "1.0000", "no": "0.0000"}.get(str(row.get("result")))


# --- frames ----------------------------------------------------------------------------------------------------------


def _told(before: Row, after: Row, now_ns: int, *, metadata: bool = True) -> list[dict[str, Any]]:
    """The `msg` of each frame that tells how a market changed; nothing tells of its close."""
    told: list[dict[str, Any]] = []
    was, status, now_s = before.get("status"), after.get("status"), now_ns // 1_000_000_000
    if status != was:
        if status in ("active", "inactive"):
            event_type = "activated" if status == "active" else "deactivated"
            told.append({"is_deactivated": status == "inactive", "event_type": event_type})
        if (status == "determined" or (status == "finalized" and was not in _OVER)) and after.get("result"):
            value = _value(after)
            settled = {} if value is None else {"settlement_value": value}
            told.append({"determination_ts": now_s, "result": after["result"], **settled, "event_type": "determined"})
        if status == "finalized":
            told.append({"settled_ts": now_s, "event_type": "settled"})
    if metadata and before.get("close_time") != after.get("close_time"):
        told.append({"close_ts": _seconds(after.get("close_time")), "event_type": "close_date_updated"})
    if metadata and before.get("price_ranges") != after.get("price_ranges"):
        levels = {name: after.get(name) for name in ("price_level_structure", "price_ranges")}
        told.append({"event_type": "price_level_structure_updated", **levels})
    strikes = {name: after[name] for name in _STRIKES if name in after and before.get(name) != after[name]}
    if metadata and strikes:
        told.append({"event_type": "metadata_updated", **strikes})
    return told


def _created(row: Row) -> dict[str, Any]:
    names = ("title", "yes_sub_title", "no_sub_title", "rules_primary", "rules_secondary", "can_close_early")
    more = (*names, "event_ticker", *_STRIKES[:3])
    metadata = {"name": row.get("title", ""), **{name: row[name] for name in more if row.get(name) is not None}}
    return {
        "exchange_index": row.get("exchange_index", 0),
        "open_ts": _seconds(row.get("open_time")),
        "close_ts": _seconds(row.get("close_time")),
        "additional_metadata": metadata,
        "event_type": "created",
        **{name: row[name] for name in ("price_level_structure", "price_ranges") if name in row},
    }


def _event_created(row: Row) -> dict[str, Any]:
    return {
        "event_ticker": row["event_ticker"],
        "exchange_index": row.get("exchange_index", 0),
        "title": row.get("title", ""),
        "subtitle": row.get("sub_title", ""),
        "collateral_return_type": row.get("collateral_return_type", ""),
        "series_ticker": row.get("series_ticker", ""),
    }


def _seconds(text: str | None) -> int:
    return max(0, micros(text)) // 1_000_000


def _message(market: Row, msg: dict[str, Any], now_ns: int) -> Message:
    ticker = market["ticker"]
    kind = "multivariate_market_lifecycle" if is_combo(ticker, market) else "market_lifecycle_v2"
    return _raw(kind, ticker, {"market_ticker": ticker, **msg}, now_ns)


def _raw(kind: str, ticker: str, msg: dict[str, Any], now_ns: int) -> Message:
    head = b'{"type":"%b","sid":' % kind.encode()
    tail = b',"msg":%b,"sending_ts_ms":%d}' % (_encode(msg), now_ns // 1_000_000)
    return Message(CHANNEL_OF_TYPE[kind], kind, ticker, head, b',"seq":', tail)
