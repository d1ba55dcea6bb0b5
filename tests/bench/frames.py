"""Seeded synthetic Kalshi frames in today's shape: the same input for every measurement."""

import random
import uuid
from itertools import accumulate
from typing import NamedTuple

TICKERS = 2_000
BOOK_SID, TICKER_SID, TRADE_SID = 1, 2, 3
_START_MS = 1_795_363_200_000
_SERIES = ("KXHIGHNY", "KXBTCD", "KXETHD", "KXNBAGAME", "KXNFLGAME", "KXFED", "KXCPI", "KXINXU", "KXPRESPARTY")
_MINUTE = "2026-11-22T16:%02d:%02d.%06dZ"


class Tape(NamedTuple):
    """`opening` (three acknowledgements, then a snapshot per ticker) comes before `frames`, and is not measured."""

    opening: list[bytes]
    frames: list[bytes]

    @property
    def mean_bytes(self) -> float:
        """Mean size of a frame."""
        return sum(map(len, self.frames)) / len(self.frames)


class _Market:
    __slots__ = ("clock", "id", "mid", "sizes", "ticker")

    def __init__(self, dice: random.Random) -> None:
        series = dice.choice(_SERIES)
        self.ticker = (
            f"{series}-26NOV{dice.randint(1, 28):02d}{dice.randint(0, 23):02d}-T{dice.randint(1000, 99999)}.99"
        )
        self.id = str(uuid.UUID(int=dice.getrandbits(128)))
        self.mid = dice.randint(5, 95)
        self.clock = dice.randint(1, 5_000_000)
        # hundredths of a contract per (side, cent); `no` levels are counted in `no` cents
        self.sizes: dict[tuple[str, int], int] = {}
        for side, top in (("yes", self.mid - 1), ("no", 99 - self.mid)):
            for cent in dice.sample(range(1, top + 1), min(top, dice.randint(3, 30))):
                self.sizes[side, cent] = dice.randint(1, 2_000) * 100


class Generator:
    """Frames that follow from a seed alone: 74.5 % book changes, 15 % quotes, 10 % trades, 0.5 % snapshots."""

    def __init__(self, seed: int = 7, tickers: int = TICKERS, more_trades: float = 0.0) -> None:
        self._more_trades = more_trades  # this share of the frames is made a trade beside the usual ones
        self._dice = random.Random(seed)
        markets = {market.ticker: market for market in (_Market(self._dice) for _ in range(tickers))}
        self._markets = list(markets.values())
        self._weights = list(accumulate(1 / (rank + 3) ** 0.8 for rank in range(len(self._markets))))
        self._ms = _START_MS
        self._seq = {BOOK_SID: 0, TRADE_SID: 0}

    def tape(self, amount: int) -> Tape:
        """The opening of a connection and `amount` frames after it."""
        opening = [
            b'{"id":%d,"type":"subscribed","sending_ts_ms":%d,"msg":{"channel":"%b","sid":%d}}'
            % (number, self._ms, channel, sid)
            for number, (channel, sid) in enumerate(
                ((b"orderbook_delta", BOOK_SID), (b"ticker", TICKER_SID), (b"trade", TRADE_SID)), 1
            )
        ]
        opening += [self._snapshot(market) for market in self._markets]
        chosen = self._dice.choices(self._markets, cum_weights=self._weights, k=amount)
        return Tape(opening, [self._frame(market) for market in chosen])

    def _frame(self, market: _Market) -> bytes:
        self._ms += self._dice.random() < 0.05
        kind = self._dice.random()
        if self._more_trades and self._dice.random() < self._more_trades:
            return self._trade(market)
        if kind < 0.745:
            return self._delta(market)
        if kind < 0.895:
            return self._quote(market)
        return self._trade(market) if kind < 0.995 else self._snapshot(market)

    def _next(self, sid: int) -> int:
        self._seq[sid] += 1
        return self._seq[sid]

    def _time(self) -> str:
        seconds, ms = divmod(self._ms - _START_MS, 1_000)
        return _MINUTE % (seconds // 60 % 60, seconds % 60, ms * 1_000 + self._dice.randint(1, 999))

    def _snapshot(self, market: _Market) -> bytes:
        levels: dict[str, list[str]] = {"yes": [], "no": []}
        for (side, cent), size in sorted(market.sizes.items()):
            levels[side].append(f'["{cent / 100:.4f}","{size / 100:.2f}"]')
        sides = "".join(f',"{side}_dollars_fp":[{",".join(each)}]' for side, each in levels.items() if each)
        return (
            f'{{"type":"orderbook_snapshot","sid":{BOOK_SID},"seq":{self._next(BOOK_SID)},"msg":{{"market_ticker":'
            f'"{market.ticker}","market_id":"{market.id}","clock":{market.clock}{sides}}},"sending_ts_ms":{self._ms}}}'
        ).encode()

    def _delta(self, market: _Market) -> bytes:
        dice = self._dice
        side = dice.choice(("yes", "no"))
        top = market.mid - 1 if side == "yes" else 99 - market.mid
        level = side, max(1, top - int(dice.expovariate(0.3)))
        held = market.sizes.get(level, 0)
        if held and dice.random() < 0.6:
            change = -held if dice.random() < 0.3 else -dice.randint(1, held)
        else:
            change = dice.randint(1, 2_000) * (100 if dice.random() < 0.84 else 1)
        if held + change:
            market.sizes[level] = held + change
        else:
            del market.sizes[level]
        market.clock += dice.randint(1, 9)
        return (
            f'{{"type":"orderbook_delta","sid":{BOOK_SID},"seq":{self._next(BOOK_SID)},"msg":{{"market_ticker":'
            f'"{market.ticker}","market_id":"{market.id}","clock":{market.clock},'
            f'"price_dollars":"{level[1] / 100:.4f}","delta_fp":"{change / 100:.2f}",'
            f'"side":"{side}","ts":"{self._time()}","ts_ms":{self._ms}}},'
            f'"sending_ts_ms":{self._ms + 2}}}'
        ).encode()

    def _quote(self, market: _Market) -> bytes:
        dice = self._dice
        volume = dice.randint(1_000, 90_000_000)
        bid, ask = market.mid - 1, market.mid + 1
        return (
            f'{{"type":"ticker","sid":{TICKER_SID},"msg":{{"market_id":"{market.id}","market_ticker":"{market.ticker}",'
            f'"price_dollars":"{market.mid / 100:.4f}","yes_bid_dollars":"{bid / 100:.4f}",'
            f'"yes_ask_dollars":"{ask / 100:.4f}","volume_fp":"{volume / 100:.2f}",'
            f'"open_interest_fp":"{volume / 200:.2f}","dollar_volume":{volume // 200},'
            f'"dollar_open_interest":{volume // 400},"yes_bid_size_fp":"{dice.randint(1, 5_000)}.00",'
            f'"yes_ask_size_fp":"{dice.randint(1, 5_000)}.00",'
            f'"last_trade_size_fp":"{dice.randint(1, 50_000) / 100:.2f}",'
            f'"ts":{self._ms // 1_000},"ts_ms":{self._ms},"time":"{self._time()}"}},"sending_ts_ms":{self._ms + 2}}}'
        ).encode()

    def _trade(self, market: _Market) -> bytes:
        dice = self._dice
        side = dice.choice(("yes", "no"))
        book_side = "bid" if side == "yes" else "ask"
        return (
            f'{{"type":"trade","sid":{TRADE_SID},"seq":{self._next(TRADE_SID)},"msg":{{"trade_id":'
            f'"{uuid.UUID(int=dice.getrandbits(128))}","market_ticker":"{market.ticker}",'
            f'"yes_price_dollars":"{market.mid / 100:.4f}","no_price_dollars":"{(100 - market.mid) / 100:.4f}",'
            f'"count_fp":"{dice.randint(1, 50_000) / 100:.2f}","taker_side":"{side}","taker_outcome_side":"{side}",'
            f'"taker_book_side":"{book_side}","is_block_trade":false,"ts":{self._ms // 1_000},"ts_ms":{self._ms}}},'
            f'"sending_ts_ms":{self._ms + 2}}}'
        ).encode()
