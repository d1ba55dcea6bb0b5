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
