"""Did you mean? The known name that a mistyped one was probably meant to be."""

from collections.abc import Iterable

_LONGEST = 256
_ALIKE = 60.0


def nearest(word: str, known: Iterable[str], alike: float = _ALIKE) -> str:
    """The name in `known` most like `word`, whatever its case; "" when none is alike (0 to 100: `alike`)."""
    from rapidfuzz import fuzz, process  # half of the time of a command that mistyped nothing

    by_folded = {name.lower(): name for name in known}
    found = process.extractOne(word[:_LONGEST].lower(), list(by_folded), scorer=fuzz.ratio, score_cutoff=alike)
    return by_folded[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`Did you mean 'kalshi'?`, or `otherwise` when nothing is alike."""
    guess = nearest(word, known)
    return f"Did you mean {guess!r}?" if guess else otherwise


def respelled(word: str, known: Iterable[str]) -> str:
    """The word of `known` that `word` is a slip of the keyboard away from; "" for none.

    A slip is a letter wrong, missing, too many, or changed with its neighbour: one in words of less than eight
    letters, two in longer ones, with the first letter right. Which letter is doubled is no slip: `teniss` is `tennis`.
    """
    from rapidfuzz.distance import OSA

    slips = 1 if len(word) < 8 else 2
    best, least = "", slips + 1
    for name in known:
        if name[:1] != word[:1] or abs(len(name) - len(word)) > 2:
            continue
        distance = OSA.distance(word, name, score_cutoff=slips)
        if distance > slips and _single(word) == _single(name):
            distance = 1
        if distance < least:
            best, least = name, distance
    return best


def _single(word: str) -> str:
    """Without the second of doubled letters."""
    return "".join(letter for place, letter in enumerate(word) if word[:place][-1:] != letter)


def likeness(word: str, name: str) -> float:
    """How much alike two words are, 0 to 100."""
    from rapidfuzz import fuzz

    return fuzz.ratio(word, name)
