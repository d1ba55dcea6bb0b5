"""The board: books by snapshot and absolute change, hand-over, trades, and how much it keeps."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.gateway import board as boards
from ssmd.gateway.board import Board
from ssmd.market.events import SECMASTER, Kind, OrderBookUpdate, Status
from tests.unit.gateway.events import T0, book, delta, gap, quote, status, trade


def levels(board: Board, ticker: str = "A") -> tuple[dict[int, int], dict[int, int]]:
    return board.books[ticker].bids, board.books[ticker].asks


def test_a_snapshot_and_its_changes_make_the_book() -> None:
    board = Board()
    assert board.take(book("A", 1, bids=((44, 10), (43, 5)), asks=((46, 7),)))
    assert board.take(delta("A", 2, bids=((44, 0), (42, 3))))
    assert board.take(delta("A", 3, asks=((46, 9),)))
    assert levels(board) == ({43: 5, 42: 3}, {46: 9})


def test_a_change_before_its_snapshot_is_not_passed_on_but_kept_until_the_snapshot_comes() -> None:
    board = Board()
    assert not board.take(delta("A", 5, bids=((44, 50),)))
    assert not board.take(delta("A", 7, bids=((45, 70),)))
    assert board.unsynced() == ["A"]
    assert board.install([book("A", 6, bids=((44, 60),))]) == ["A"]
    assert levels(board) == ({44: 60, 45: 70}, {}), "5 is older than the snapshot, 7 is newer"
    assert board.unsynced() == []


def test_a_repeated_change_is_not_applied_twice() -> None:
    board = Board()
    board.take(book("A", 1, bids=((44, 10),)))
    board.take(delta("A", 2, bids=((44, 20),)))
    board.take(delta("A", 3, bids=((44, 30),)))
    assert not board.take(delta("A", 2, bids=((44, 20),)))
    assert levels(board)[0] == {44: 30}


def test_a_snapshot_older_than_the_book_is_refused() -> None:
    board = Board()
    board.take(book("A", 9, bids=((44, 10),)))
    assert not board.take(book("A", 8, bids=((44, 99),)))
    assert levels(board)[0] == {44: 10}


def test_changes_of_another_subscription_wait_for_their_own_snapshot() -> None:
    board = Board()
    board.take(book("A", 9, bids=((44, 10),)))
    assert not board.take(delta("A", 1, bids=((44, 99),), connection="c-2", at=T0 + 50))
    assert levels(board)[0] == {44: 10}
    assert board.take(book("A", 2, bids=((40, 1),), connection="c-2", at=T0 + 60))
    assert not board.take(delta("A", 10, bids=((44, 11),), at=T0 + 70)), "the old subscription no longer counts"
    assert board.take(delta("A", 3, bids=((41, 2),), connection="c-2", at=T0 + 80))
    assert levels(board)[0] == {40: 1, 41: 2}


def test_leftovers_of_an_earlier_connection_make_the_gateway_ask_which_book_is_right() -> None:
    board = Board()
    board.take(book("A", 1, bids=((44, 10),), connection="c-2", at=T0 + 100))
    assert not board.take(book("A", 900, bids=((1, 1),), connection="c-1", at=T0 + 50))
    assert board.unsynced() == ["A"]
    assert board.install([book("A", 2, bids=((44, 11),), connection="c-2", at=T0 + 110)]) == ["A"]
    assert levels(board)[0] == {44: 11}


def test_after_a_loss_every_book_waits_and_the_hand_over_has_neither_hole_nor_repetition() -> None:
    board = Board()
    board.take(book("A", 1, bids=((44, 10),)))
    board.restart_books()
    assert not board.take(delta("A", 4, bids=((44, 40),)))
    assert not board.take(delta("A", 5, bids=((45, 50),)))
    assert board.install([book("A", 4, bids=((44, 41),))]) == ["A"]
    assert levels(board)[0] == {44: 41, 45: 50}


def test_installing_leaves_a_book_alone_that_follows_the_stream_already() -> None:
    board = Board()
    board.take(book("A", 5, bids=((44, 10),)))
    assert board.install([book("A", 3, bids=((44, 99),))]) == []
    assert levels(board)[0] == {44: 10}


def test_when_too_many_changes_wait_only_a_later_snapshot_starts_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "WAITING_PER_BOOK", 3)
    board = Board()
    for seq in range(1, 6):
        board.take(delta("A", seq, bids=((seq, 1),)))
    assert board.overflowed == 3
    assert board.install([book("A", 2)]) == [], "3 and 4 were given up: a book of 2 would miss them"
    assert board.install([book("A", 4, bids=((4, 1),))]) == ["A"]
    assert levels(board)[0] == {4: 1, 5: 1}


def test_a_gap_makes_the_books_of_its_subscription_stale_until_their_next_snapshot() -> None:
    board = Board()
    board.take(book("A", 1, sid=1))
    board.take(book("B", 1, sid=2))
    board.take(book("C", 1, sid=1, connection="c-9"))
    assert board.take(gap(sid=1))
    assert [t for t in "ABC" if board.books[t].stale] == ["A"]
    board.take(book("A", 2, sid=1))
    assert not board.books["A"].stale


def test_a_gap_that_ended_before_the_book_began_does_not_touch_it() -> None:
    board = Board()
    board.take(book("A", 1, at=T0 + 2 * 10**9))
    board.take(gap())
    assert not board.books["A"].stale


def test_a_stale_book_is_asked_for_when_another_subscription_carries_on() -> None:
    board = Board()
    board.take(book("A", 1, bids=((44, 10),)))
    board.take(gap())
    board.take(delta("A", 8, bids=((45, 1),), connection="c-2", at=T0 + 2 * 10**9))
    assert board.unsynced() == ["A"]
    board.install([book("A", 7, bids=((44, 5),), connection="c-2", at=T0 + 2 * 10**9)])
    assert levels(board)[0] == {44: 5, 45: 1}


def test_a_trade_sent_again_is_passed_on_once() -> None:
    board = Board()
    assert board.take(trade("A", 1))
    assert not board.take(trade("A", 1))
    assert board.take(trade("A", 2))
    assert [t.trade_id for t in board.trades("A", 10)] == ["A/2", "A/1"]


def test_trades_are_bounded_per_ticker_and_in_total() -> None:
    board = Board(trades_per_ticker=3, trades_total=7)
    for n in range(5):
        for ticker in ("A", "B", "C"):
            board.take(trade(ticker, n))
    kept = {ticker: len(board.trades(ticker, 99)) for ticker in ("A", "B", "C")}
    assert sum(kept.values()) <= 7
    assert kept["C"] == 3, "the most recently traded stay"
    assert [t.trade_id for t in board.trades("C", 2)] == ["C/4", "C/3"]


def test_ended_and_silent_tickers_are_forgotten_with_all_that_was_kept() -> None:
    board = Board()
    for ticker in ("ended", "live", "silent"):
        board.take(book(ticker, 1))
        board.take(trade(ticker, 1))
        board.take(quote(ticker))
    board.take(status("ended", Status.SETTLED))
    hour = 3_600 * 10**9
    assert board.prune(T0 + hour // 2) == 0
    board.take(quote("live", T0 + 49 * hour))
    assert board.prune(T0 + 2 * hour) == 1
    assert not board.known("ended")
    assert board.trades("ended", 5) == []
    assert board.prune(T0 + 49 * hour) == 1
    assert list(board.books) == ["live"]


def test_books_the_connector_does_not_have_are_dropped_unless_changes_say_that_they_live() -> None:
    board = Board()
    board.take(book("gone", 1))
    board.take(book("alive", 1))
    board.restart_books()
    board.take(delta("alive", 3))
    board.drop_unanswered(["gone", "alive", "never heard of"])
    assert list(board.books) == ["alive"]


changes = st.lists(
    st.tuples(st.sampled_from([40, 41, 42, 43]), st.integers(0, 3), st.booleans()), min_size=1, max_size=30
)


@given(changes=changes, data=st.data())
def test_whatever_the_moment_of_the_hand_over_the_book_equals_the_exchange_s(
    changes: Sequence[tuple[int, int, bool]], data: st.DataObject
) -> None:
    """The answer contains the first `contained` changes; live ones are heard from `first` on."""
    model: list[tuple[dict[int, int], dict[int, int]]] = [({}, {})]
    updates: list[OrderBookUpdate] = []
    for seq, (price, size, is_bid) in enumerate(changes, 1):
        bids, asks = dict(model[-1][0]), dict(model[-1][1])
        side = bids if is_bid else asks
        side[price] = size
        if not size:
            del side[price]
        model.append((bids, asks))
        level = ((price, size),)
        updates.append(delta("A", seq, bids=level if is_bid else (), asks=() if is_bid else level))
    last = len(changes)
    contained = data.draw(st.integers(0, last), label="snapshot contains")
    first = data.draw(st.integers(1, contained + 1), label="first heard")
    heard = data.draw(st.integers(first - 1, last), label="heard before the answer")
    board = Board()
    for update in updates[first - 1 : heard]:
        board.take(update)
    bids, asks = model[contained]
    snapshot = book("A", contained, bids=tuple(bids.items()), asks=tuple(asks.items()))
    board.install([snapshot])
    for update in updates[heard:]:
        board.take(update)
    assert levels(board) == model[last]
    assert board.books["A"].snapshot("A").kind is Kind.SNAPSHOT


def test_a_late_sync_does_not_put_an_old_status_over_the_feeds() -> None:
    board = Board()
    synced = msgspec.structs.replace(status("A", Status.OPEN, T0), connection=SECMASTER)
    assert board.take(synced), "nothing newer is known"
    assert board.take(status("A", Status.SETTLED, T0 + 5))
    assert not board.take(msgspec.structs.replace(synced, exchange_ns=T0 + 4))
    assert board.statuses["A"].status is Status.SETTLED
    assert board.take(msgspec.structs.replace(synced, exchange_ns=T0 + 6)), "a correction is told"
