"""Categories that only the registry knows: an exchange files markets as it likes."""

from collections.abc import Iterable

import msgspec

from ssmd.gateway.questions.grammar import Reading
from ssmd.gateway.questions.text import title_words
from ssmd.gateway.questions.vocabulary import CATEGORIES

_OURS = frozenset(name.lower() for category in CATEGORIES for name in category.filed_under)
_MOST_ELSEWHERE = 5


def with_other_categories(reading: Reading, known: Iterable[str]) -> Reading:
    """`reading`, for a question about a category, with those of the registry that the vocabulary does not know."""
    scope = reading.asked.scope
    if not scope.categories or scope.topics or scope.teams or scope.places:
        return reading
    others = tuple(name for name in known if name.lower() not in _OURS)[:_MOST_ELSEWHERE]
    return msgspec.structs.replace(reading, asked=msgspec.structs.replace(reading.asked, elsewhere=others))


def with_category(reading: Reading, question: str, known: Iterable[str]) -> Reading:
    """`reading` with the category, of those `known`, whose name is said in words that mean nothing else."""
    said = f" {' '.join(title_words(question))} "
    for category in sorted(known, key=len, reverse=True):
        words = title_words(category)
        if not words or f" {' '.join(words)} " not in said or not set(words) <= set(reading.unknown):
            continue
        rest = tuple(word for word in reading.unknown if word not in words)
        asked = msgspec.structs.replace(
            reading.asked, filed=category, words=tuple(word for word in rest if word != "category")
        )
        return msgspec.structs.replace(
            reading, asked=asked, unknown=rest, named=True, understood=reading.understood + len(words)
        )
    return reading
