"""A question's text: folded, spelled as the vocabulary spells, and used up piece by piece by who understands it."""

import re
import unicodedata
from collections.abc import Iterator

from ssmd.nearest import respelled

MAX_CHARS = 500

_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "\u00a0": " "})
_SYNONYMS = (
    (re.compile(r"\b(?:tmrw|tmr|tmw|2morrow|2moro)\b"), "tomorrow"),
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bhalf a (?:dollar|buck)\b"), "50 cents"),
    (re.compile(r"\ba (?:dollar|buck)\b"), "1 dollar"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(ca|do|is|are|was|were|have|has|did|does|wo) ?nt\b"), r"\1 not"),
    (re.compile(r"'(?:s|d|ll|re|ve|m)\b"), ""),
    (re.compile(r"(?<=s)'(?=\s|$)"), ""),
    (re.compile(r"\bu\.s\.?(?=\s|$)"), "us"),
    (re.compile(r"\bs ?(?:&|and|n) ?p\b"), "s&p"),
    (re.compile(r"(?<=[a-z])[-/](?=[a-z0-9])|(?<=[0-9])[-/](?=[a-z])"), " "),
    (re.compile(r"\b(\d+)(?:st|nd|rd|th)\b"), r"\1"),
)
_SMALL = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * n
    for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_NUMBER = re.compile(
    rf"\b(?:({'|'.join(_TENS)})(?:[ -]({'|'.join(list(_SMALL)[1:10])}))?|({'|'.join(list(_SMALL)[2:])})"
    r"|(one)(?= (?:cents?|percent|per cent|dollars?|hours?|days?|weeks?|months?|years?)\b))\b"
)
_TICKER = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9]+(?:-[A-Za-z0-9.]*[A-Za-z0-9]){1,4})(?![A-Za-z0-9])")
_SERIES = re.compile(r"(?<![A-Za-z0-9])([Kk][Xx][A-Za-z0-9]{2,40})(?![A-Za-z0-9-])")
_DATE_LIKE = re.compile(r"^\d|^(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*-\d", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:[.&'][^\W_]+)*")


def fold(text: str) -> str:
    """Lower case, plain quotes, numbers in digits, no hyphens inside words; single blanks."""
    folded = " ".join(unicodedata.normalize("NFKC", text).translate(_QUOTES).lower().split())
    for pattern, replacement in _SYNONYMS:
        folded = pattern.sub(replacement, folded)
    return _NUMBER.sub(_in_digits, folded)


def _in_digits(match: re.Match[str]) -> str:
    tens, ones, small, one = match.groups()
    if tens:
        return str(_TENS[tens] + (_SMALL[ones] if ones else 0))
    return str(_SMALL[small or one])


def words_of(text: str) -> list[str]:
    """The words of a folded text."""
    return _WORD.findall(text)


def title_words(title: str) -> list[str]:
    """The words of a title, folded."""
    return words_of(fold(title))


def find_tickers(text: str) -> tuple[list[str], list[str], str]:
    """(tickers, series, the rest): what looks like the exchange's own names, in capitals."""
    tickers: list[str] = []
    series: list[str] = []

    def take_ticker(match: re.Match[str]) -> str:
        name = match[1]
        named = name[:2].lower() == "kx" or (any(c.isdigit() for c in name) and name == name.upper())
        if not named or _DATE_LIKE.match(name):
            return match[0]
        tickers.append(name.upper())
        return " "

    def take_series(match: re.Match[str]) -> str:
        series.append(match[1].upper())
        return " "

    rest = _SERIES.sub(take_series, _TICKER.sub(take_ticker, text))
    return list(dict.fromkeys(tickers)), list(dict.fromkeys(series)), rest


def spell(text: str, known: frozenset[str], targets: frozenset[str]) -> tuple[str, dict[str, str]]:
    """The text with mistyped words replaced by those of `targets`, and which; words in `known` stay."""
    changed: dict[str, str] = {}

    def respell(match: re.Match[str]) -> str:
        word = match[0]
        if len(word) < 5 or not word.isascii() or not word.isalpha() or word in known:
            return word
        if word.endswith("s") and word[:-1] in known:
            return word
        meant = respelled(word, targets)
        if not meant:
            return word
        changed[word] = meant
        return meant

    return re.sub(r"[^\W\d_]+", respell, text), changed


_NEGATORS = (
    r"not|no|without|except|excluding|exclude|excludes|besides|minus|non|nor|never|apart from|aside from|other than"
    r"|nothing|leave out|leaving out|ignoring|skip|skipping|but not|cannot|rather than|instead of|omit|omitting|unless"
)
_FILLERS = (
    r"about|on|for|related|relating|to|in|into|of|the|any|a|an|have|has|had|having|been|be|being|is|are|was|were|yet"
    r"|already|currently|still|ones|those|that|which|with|markets?|contracts?|including|involving|concerning"
    r"|priced|trading|at|price|prices|price is|category|categorised as|categorized as|"
    r"anything|listed|want|wanting|show|show me|me|see|need|include|list|interested|"
    r"care about|like"
)
_NEGATED = re.compile(
    rf"(?<![a-z])(?:{_NEGATORS})\s+(?:(?:{_FILLERS})\s+)*(?:\x01+(?:[\s,/]|\b(?:and|or|nor|the|any|about)\b)*)*$"
)
_NEGATED_CLOSELY = re.compile(rf"(?<![a-z])(?:{_NEGATORS}|un)[\s-]*(?:(?:been|be|being|yet|already|currently|the) +)*$")


class Text:
    """The folded question. What is understood is used up; `left` keeps the places of the rest."""

    def __init__(self, folded: str) -> None:
        self.whole = folded
        self.left = folded
        self.used = 0  # words used up
        self._context = folded  # with \x01 in the place of what was excluded

    def find(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches in what is left; those found may be used while iterating."""
        at = 0
        while match := pattern.search(self.left, at):
            yield match
            at = max(match.end(), match.start() + 1)

    def use(self, start: int, end: int) -> None:
        """This part is understood."""
        self.used += len(words_of(self.left[start:end]))
        self.left = self.left[:start] + " " * (end - start) + self.left[end:]

    def exclude(self, start: int, end: int) -> None:
        """This part is understood, as what is not wanted; `and` after it goes on with that."""
        self.use(start, end)
        self._context = self._context[:start] + "\x01" * (end - start) + self._context[end:]

    def negated(self, start: int, *, closely: bool = False) -> bool:
        """Does a `not`, `except` or `without` before `start` hold for what stands there?"""
        pattern = _NEGATED_CLOSELY if closely else _NEGATED
        return pattern.search(self._context[:start]) is not None

    def before(self, start: int, words: int = 5) -> str:
        """The last words before `start`."""
        return " ".join(self.whole[:start].split()[-words:])
