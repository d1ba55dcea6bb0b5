"""Dates in questions: `today`, `next week`, `by 25 November`, `between Dec 1 and Dec 15`; all in UTC."""

import re
from datetime import datetime
from typing import NamedTuple

from ssmd.gateway.questions.periods import DAY, PERIODS, Period, When, month_start, unit_of
from ssmd.gateway.questions.text import Text


class Span(NamedTuple):
    """From `after` (inclusive) to `before` (exclusive); None is open."""

    after: datetime | None = None
    before: datetime | None = None


class Dated(NamedTuple):
    """A date that was found: `now` says it is only `today` or `tonight`."""

    span: Span
    today: bool = False
    note: str = ""


_END_OF = re.compile(
    r"\b(?:(?:the )?(?P<edge>end|close|start|beginning) of (?:the )?|(?P<short>eo[dwmy])\b|"
    r"(?P<unit_end>year|month|week)(?:s)? end\b)"
)
_EDGE_UNIT = re.compile(r"(?P<unit>day|week|month|quarter|year)\b")
_DIRECTION = re.compile(
    r"\b(?P<way>on or before|no later than|not later than|prior to|ahead of|earlier than|later than|starting from"
    r"|starting|up to|up until|before|by|until|till|til|through|thru|after|since|from|beyond|past|between)\s+"
    r"(?:the |on |at )*$"
)
_PREPOSITION = re.compile(r"\b(?:on|in|at|for|during|of|over|as of|come|dated)\s+(?:the )?$")
_VERB = re.compile(r"\b(?:clos|expir|end|settl|resolv|open|start|list|trad|finish|matur)\w*\s+$")
_ONWARDS = re.compile(r"\s*,? (?:onwards?|forwards?|on(?! \w))\b")
_JOINED = re.compile(r"^\s*(?:and|to|until|till|through|thru|-)\s*(?:the )?$")


class _Found(NamedTuple):
    start: int
    end: int
    base: Period
    way: str


def find_dates(text: Text, now: datetime, *, past: bool) -> list[Dated]:
    """The dates of a question, used up; `past`: it asks about what has happened."""
    when = When(now, past)
    found = sorted([*_edges(text, when), *_bases(text, when)], key=lambda one: one.start)
    dates: list[Dated] = []
    skip = False
    for place, this in enumerate(found):
        if skip:
            skip = False
            continue
        following = found[place + 1] if place + 1 < len(found) else None
        if following is not None and this.way in ("between", "from", "") and _JOINED.match(
            text.whole[this.end : following.start]
        ):  # fmt: skip
            dates.append(Dated(Span(this.base.start, following.base.end), note=this.base.note or following.base.note))
            skip = True
            continue
        dates.append(_dated(this))
    return dates


def _edges(text: Text, when: When) -> list[_Found]:
    """`end of the year`, `eom`, `start of December`."""
    found = []
    for match in list(text.find(_END_OF)):
        end, base = match.end(), None
        if match["short"]:
            base = unit_of(when, {"d": "day", "w": "week", "m": "month", "y": "year"}[match["short"][2]], 0)
        elif match["unit_end"]:
            base = unit_of(when, match["unit_end"], 0)
        elif unit := _EDGE_UNIT.match(text.left, end):
            base, end = unit_of(when, unit["unit"], 0), unit.end()
        else:
            for pattern, make in PERIODS:
                if named := pattern.match(text.left, end):
                    base, end = make(when, named), named.end()
                    break
            else:
                if year := re.compile(r"20\d\d\b").match(text.left, end):
                    base, end = Period(month_start(int(year[0]), 1), month_start(int(year[0]) + 1, 1)), year.end()
        if base is None:
            continue
        way = _take(text, match.start(), end)
        if match["edge"] in ("start", "beginning"):
            found.append(_Found(match.start(), end, Period(base.start, base.start + DAY), way or "before"))
        else:
            found.append(
                _Found(match.start(), end, base._replace(coarse=False), "by" if way in ("", "before") else way)
            )
    return found


def _bases(text: Text, when: When) -> list[_Found]:
    found = []
    for pattern, make in PERIODS:
        for match in list(text.find(pattern)):
            if text.left[match.start() : match.end()] != match[0]:
                continue  # used meanwhile
            try:
                base = make(when, match)
            except (ValueError, OverflowError):
                continue  # the 31st of February is no date
            way = _take(text, match.start(), match.end())
            found.append(_Found(match.start(), match.end(), base, way))
    return found


def _take(text: Text, start: int, end: int) -> str:
    """Use up a date with the word before it that gives its direction; that word."""
    way = ""
    before = text.left[:start]
    if match := _DIRECTION.search(before):
        way, start = match["way"], match.start()
        if way == "from" and not _VERB.search(text.whole[:start]) and not _ONWARDS.match(text.left, end):
            way = ""  # `markets from 10 August` are that day's
    elif match := _PREPOSITION.search(before):
        start = match.start()
    text.use(start, end)
    return way


def _dated(found: _Found) -> Dated:
    base, way = found.base, found.way
    if way in ("before", "prior to", "ahead of", "earlier than"):
        span = Span(None, base.start)
    elif way in ("by", "until", "till", "til", "up to", "up until"):
        span = Span(None, base.start if base.coarse else base.end)
    elif way in ("through", "thru", "no later than", "not later than", "on or before"):
        span = Span(None, base.end)
    elif way in ("after", "later than", "beyond", "past"):
        span = Span(base.end, None)
    elif way in ("since", "from", "starting", "starting from"):
        span = Span(base.start, None)
    else:
        span = Span(base.start, base.end)
    return Dated(span, today=base.today and way == "", note=base.note)
