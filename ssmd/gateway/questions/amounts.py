"""Comparisons in questions: `above 60 cents`, `between 40 and 60%`, `volume over 10k`, `bitcoin above 100,000`."""

import re
from typing import Literal, NamedTuple

from ssmd.gateway.questions.text import Text


class Range(NamedTuple):
    """Bounds: `above` and `below` leave the number itself out, `least` and `most` take it in."""

    above: float | None = None
    below: float | None = None
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Is `value` inside? Numbers are compared to a billionth."""
        value = round(value, 9)
        return (
            (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )

    def joined(self, other: "Range") -> "Range":
        """Both; where both bound the same way, `other` holds."""
        return Range(*(new if new is not None else old for old, new in zip(self, other, strict=True)))


Measure = Literal["price", "volume", "spread", "open_interest", "strike"]


class Amount(NamedTuple):
    """A comparison that was found."""

    measure: Measure
    range: Range
    value: float


_NUMBER = (
    r"(?P<{0}cur>\$|£|€|usd ?)?(?P<{0}num>\d[\d,]*(?:\.\d+)?|\.\d+)(?: ?(?P<{0}mul>k|thousand|"
    r"m|mn|million|bn|b|billion)(?![a-z0-9]))?"
)
_UNIT = (
    r"(?: ?(?P<{0}unit>¢|c(?!\w)|cts?\b|cents?\b|pence\b|p(?!\w)|%|percent(?:age points?)?\b|"
    r"per cent\b|pct\b|dollars?\b"
    r"|usd\b|bucks\b|degrees?\b(?: (?:f|fahrenheit|c|celsius)\b)?|°[fc]?|f(?!\w)|fahrenheit\b|bps\b|basis points?\b"
    r"|points?\b|pts?\b|inch(?:es)?\b|contracts?\b|lots?\b|shares?\b|mph\b))?"
)


def _number(name: str) -> str:
    # no letter or digit follows the number, or its unit: `15min` and `26nov` are no amounts
    return (
        _NUMBER.format(name)
        + _UNIT.format(name)
        + r"(?![a-z0-9]|[.,]\d| (?:min|minute|hour|hr|day|week|month|year)s?\b)"
    )


_ABOVE = (
    r"above|over|more than|greater than|higher than|larger than|wider than|bigger than|"
    r"exceed(?:s|ing)?|north of|upwards of|past"
    r"|beyond|beats?|in excess of|better than|hits?|reach(?:es|ing)?|>(?!=)|crosses|surpass(?:es|ing)?"
)
_BELOW = (
    r"below|under|less than|lower than|cheaper than|beneath|fewer than|smaller than|south of|short of|<(?!=)|underneath"
    r"|tighter than|narrower than"
)
_LEAST = r"at least|at or above|no less than|not less than|not below|not under|minimum(?: of)?|no lower than|>=|≥|min"
_MOST = (
    r"at most|at or below|no more than|not more than|not above|not over|maximum(?: of)?|up to|no higher than|<=|≤|max"
)
_ABOUT = r"around|about|roughly|approximately|near|close to|nearly"
_AT = r"at exactly|exactly|equal to|equals|priced at|trading at|at|of|is"

_TAIL = (
    r"(?P<tail>\+| (?:or|and) "
    r"(?:more|higher|above|greater|better|over|up|upwards|less|lower|below|fewer|under|cheaper|down)\b(?! [$£€]?\d))?"
)

_BETWEEN = re.compile(
    rf"(?:between|from|in the range(?: of)?|ranging from)? ?(?<![\w.]){_number('a')}"
    rf" ?(?:and|to|-) ?(?:at )?{_number('b')}"
)
_COMPARED = re.compile(
    rf"(?:\b(?:is|are|at|a|an|of|be|being|trading|was) )*"
    rf"(?:(?P<least>{_LEAST})|(?P<most>{_MOST})|(?P<above>(?<!\w)(?:{_ABOVE}))|(?P<below>(?<!\w)(?:{_BELOW}))"
    rf"|(?P<about>(?<!\w)(?:{_ABOUT}))|(?P<at>(?<!\w)(?:{_AT})))\s*(?:at )?(?:the |a |an )?(?<![\w.]){_number('a')}"
    rf"{_TAIL}"
)
_BARE = re.compile(
    rf"(?<![\w.$]){_number('a')}"
    rf"{_TAIL}"
)
_EVEN = re.compile(r"\b(?:coin ?flips?|coin ?toss(?:es)?|50 50|50/50|toss ?ups?|even odds|evens)\b")
_PRICE_WORDS = re.compile(
    r"\b(?:prices?|priced|probabilit(?:y|ies)|chances?|odds|likelihood|implied|likely|cost(?:s|ing)?|bids?|asks?|offer(?:ed)?"
    r"|trading|trades?|traded|quoted|worth|yes|no|markets?|contracts?)\b"
)
_CLEARLY_PRICE = re.compile(r"\b(?:probabilit(?:y|ies)|chances?|odds|likelihood|implied|likely|priced)\b")
_VOLUME_WORDS = re.compile(r"\b(?:volumes?|turnover|contracts traded|traded contracts|trading activity)\b")
_OPEN_INTEREST = re.compile(r"\bopen interest\b")
_SPREAD_WORDS = re.compile(r"\bspreads?\b|\bbid ?[ -/]?ask\b|\bbid-ask\b")
_CENTS = ("¢", "c", "ct", "cts", "cent", "cents", "pence", "p")
_PERCENT = ("%", "percent", "per cent", "pct", "percentage point", "percentage points")
_CONTRACTS = ("contract", "contracts", "lot", "lots", "share", "shares")
_DOLLARS = ("dollar", "dollars", "usd", "bucks")
_SCALES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "bn": 1e9, "b": 1e9, "billion": 1e9}


class About(NamedTuple):
    """What a question's numbers can belong to.

    `subject`: it names what it is about; `measured`: that has a value of its own; `in_percent`: which is a percentage.
    """

    subject: bool
    measured: bool
    in_percent: bool


def find_amounts(text: Text, about: About) -> list[Amount]:
    """The comparisons of a question, used up."""
    amounts: list[Amount] = []
    for match in list(text.find(_EVEN)):
        text.use(match.start(), match.end())
        amounts.append(Amount("price", Range(least=0.45, most=0.55), 0.5))
    for pattern, make in ((_BETWEEN, _between), (_COMPARED, _compared), (_BARE, _bare)):
        made = [make(text, match, about) for match in text.find(pattern)]
        amounts += [amount for amount in made if amount is not None]
    return amounts


def _between(text: Text, match: re.Match[str], about: About) -> Amount | None:
    unit = match["bunit"] or match["aunit"] or ""
    if not match[0].startswith(("between", "from", "in the", "ranging")) and not unit:
        return None
    measure, one = _measure(text, match, "b", unit, about)
    low, high = _value(match, "a", unit) * one, _value(match, "b", unit) * one
    if measure is None or low > high:
        return None
    text.use(match.start(), match.end())
    if measure == "strike":
        return Amount("strike", Range(least=low, most=high), low)
    return Amount(measure, Range(least=round(low, 9), most=round(high, 9)), low)


def _compared(text: Text, match: re.Match[str], about: About) -> Amount | None:
    unit = match["aunit"] or ""
    measure, one = _measure(text, match, "a", unit, about)
    if measure is None or (measure == "strike" and not about.subject):
        return None
    if match["at"] in ("of", "is", "at") and measure == "strike" and not (about.measured and match["at"] == "at"):
        return None
    value = round(_value(match, "a", unit) * one, 9)
    negated = text.negated(match.start(), closely=True) and (match["above"] or match["below"])
    text.use(match.start(), match.end())
    return Amount(measure, _range(match, value, bool(negated)), value)


def _range(match: re.Match[str], value: float, negated: bool) -> Range:
    tail = match["tail"] or ""
    if tail:
        return Range(most=value) if tail.split()[-1] in _DOWN else Range(least=value)
    if match["least"]:
        return Range(least=value)
    if match["most"]:
        return Range(most=value)
    if match["above"]:
        return Range(most=value) if negated else Range(above=value)
    if match["below"]:
        return Range(least=value) if negated else Range(below=value)
    margin = 0.05 if match["about"] else 0.0
    return Range(least=round(value - margin, 9), most=round(value + margin, 9))


_DOWN = ("less", "lower", "below", "fewer", "under", "cheaper", "down")


def _bare(text: Text, match: re.Match[str], about: About) -> Amount | None:
    unit = match["aunit"] or ""
    measure, one = _measure(text, match, "a", unit, about)
    value = round(_value(match, "a", unit) * one, 9)
    if match["tail"] and measure is not None and (measure != "strike" or about.subject):
        text.use(match.start(), match.end())
        down = match["tail"].split()[-1] in _DOWN
        return Amount(measure, Range(most=value) if down else Range(least=value), value)
    if measure == "price" and unit and not about.measured:
        text.use(match.start(), match.end())
        return Amount("price", Range(least=value, most=value), value)
    year = not unit and not match["acur"] and not match["amul"] and 2000 <= value < 2100
    if measure == "strike" and about.measured and not year:
        text.use(match.start(), match.end())
        return Amount("strike", Range(least=value, most=value), value)
    return None


def _value(match: re.Match[str], which: str, unit: str) -> float:
    number = float(match[f"{which}num"].replace(",", ""))
    return number * _SCALES.get(match[f"{which}mul"] or "", 1.0)


def _measure(text: Text, match: re.Match[str], which: str, unit: str, about: About) -> tuple[Measure | None, float]:
    """What a number measures, and by what it is multiplied to be in dollars, contracts or its own unit."""
    before, after = text.before(match.start()), text.whole[match.end() : match.end() + 24]
    value = _value(match, which, unit)
    money = bool(match[f"{which}cur"]) or unit in _DOLLARS
    if _SPREAD_WORDS.search(before) or _SPREAD_WORDS.search(after):
        return "spread", 1.0 if money or (not unit and value < 1) else 0.01
    if _OPEN_INTEREST.search(before):
        return "open_interest", 1.0
    if _VOLUME_WORDS.search(before) or _VOLUME_WORDS.search(after) or unit in _CONTRACTS:
        return "volume", 1.0
    if unit in _CENTS:
        return ("price", 0.01) if value <= 100 else (None, 1.0)
    clearly = bool(_CLEARLY_PRICE.search(before) or _CLEARLY_PRICE.search(after))
    if unit in _PERCENT:
        return ("strike", 1.0) if (about.in_percent and not clearly) or value > 100 else ("price", 0.01)
    if money and value <= 1 and not match[f"{which}mul"]:
        return "price", 1.0
    if unit or money or match[f"{which}mul"]:
        return "strike", 1.0
    priced = clearly or bool(_PRICE_WORDS.search(before))
    if priced and 0 < value < 1:
        return "price", 1.0
    if priced and 1 <= value < 100 and (clearly or not about.measured):
        return "price", 0.01
    return "strike", 1.0
