"""What makes two trades the same: the exchange's id, where it is one that can stand in a message header."""

import re

_TRADE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def trade_identity(trade_id: str) -> bytes | None:
    """The id under which a trade is published and compacted once; None when the exchange's id is unfit for it."""
    return trade_id.encode() if _TRADE_ID.fullmatch(trade_id) else None
