"""Only an id that can stand in a message header identifies a trade."""

import pytest

from ssmd.market.identity import trade_identity


@pytest.mark.parametrize("trade_id", ["5d937db7-0c71-43cb-0b60-b56a4387af64", "a", "A_9"])
def test_a_plain_id_identifies_the_trade(trade_id: str) -> None:
    assert trade_identity(trade_id) == trade_id.encode()


@pytest.mark.parametrize("trade_id", ["", "x\r\nNats-Msg-Id: y", "ü", "a b", "x" * 65, "a\n"], ids=repr)
def test_an_id_that_could_break_a_header_does_not(trade_id: str) -> None:
    assert trade_identity(trade_id) is None
