"""Questions that are a market's title: then no part of it is a filter of its own."""

from collections.abc import Sequence

from ssmd.gateway.questions.text import title_words
from ssmd.nearest import likeness

_LEAST_WORDS, _MOST_WORDS = 3, 40
_ALIKE = 92.0
_STEM_CHARS = 4
_ASIDE = frozenset(["a", "an", "the", "will", "market", "markets", "show", "me", "find"])

_MINUTES = dict.fromkeys(("mins", "minute", "minutes"), "min")


def as_title(question: str) -> str:
    """The question as a title may be written; "" for what is too short to be one, or too long."""
    words = title_words(question)
    told = [word for word in words if word not in _ASIDE]
    return " ".join(words) if len(words) <= _MOST_WORDS and min(len(words), len(told) + 1) >= _LEAST_WORDS else ""


def beginnings(title: str) -> tuple[str, ...]:
    """What surely occurs in the title of such a market."""
    words = [_MINUTES.get(word, word) for word in title.split() if word not in _ASIDE and len(word) > 1]
    found = [word[:_STEM_CHARS] for word in words]
    return tuple(dict.fromkeys(found))


def is_title(words: Sequence[str], title: str) -> bool:
    """Are the words of a market's title those of `title`, but for small words and slips? Numbers are the same."""
    said, told = _plain(title.split()), _plain(words)
    if [word for word in said if word[0].isdigit()] != [word for word in told if word[0].isdigit()]:
        return False
    return bool(said) and likeness(" ".join(said), " ".join(told)) >= _ALIKE


def _plain(words: Sequence[str]) -> list[str]:
    return [_MINUTES.get(word, word) for word in words if word not in _ASIDE]
