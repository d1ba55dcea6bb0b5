"""What an underlying is: how people name it, and how the exchange writes it."""

from typing import NamedTuple


class Topic(NamedTuple):
    """An underlying. A market is about it by its series (a prefix, without `KX`) or by words of its title.

    `filed_under`: the exchange's categories for it, where they are more than its own category's. `measured`: its
    value is a number, so that `above 3%` is a strike, not a price.
    """

    name: str
    category: str
    says: tuple[str, ...]
    series: tuple[str, ...]
    titles: tuple[str, ...]
    filed_under: tuple[str, ...] = ()
    measured: bool = False


def split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def topic(
    name: str, category: str, says: str, series: str, titles: str, filed: str = "", measured: bool = False
) -> Topic:
    return Topic(name, category, split(says), split(series), split(titles), split(filed), measured)
