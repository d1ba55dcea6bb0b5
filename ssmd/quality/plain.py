"""Values of Great Expectations, pandas and numpy as what JSON has: nothing of theirs goes further than the judge."""

from collections.abc import Mapping, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

_LEAST, _BEYOND = -(1 << 63), 1 << 64
"""The integers that every reader of JSON here takes."""


def plain(value: Any) -> Any:
    """None, bool, int, float, str, and lists and dicts of them.

    What is missing (NaN, NaT, NA) is None; what JSON has no number for (infinity, an integer of more than 64 bits, a
    decimal) and everything unknown is its text.
    """
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray) and not value.ndim:
        return plain(value[()])
    if isinstance(value, list | tuple | np.ndarray | pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return [plain(item) for item in value]
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=repr)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    if isinstance(value, str):
        return str(value).encode(errors="backslashreplace").decode()
    if _missing(value):
        return None
    if isinstance(value, int | np.integer):
        number = int(value)
        return number if _LEAST <= number < _BEYOND else str(number)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(float(value))
    if isinstance(value, date | time):  # datetimes and Timestamps are dates
        return value.isoformat()
    return str(value).encode(errors="backslashreplace").decode()


def _missing(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
