"""Dates in questions: `today`, `next week`, `by 25 November`, `between Dec 1 and Dec 15`; all in UTC."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ssmd.gateway.questions.text import Text

DAY = timedelta(days=1)

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class Span(NamedTuple):
    """From `after` (inclusive) to `before` (exclusive); None is open."""

    after: datetime | None = None
    before: datetime | None = None


class Dated(NamedTuple):
    """A date that was found: `now` says it is only `today` or `tonight`."""

    span: Span
    today: bool = False
    note: str = ""


class _Base(NamedTuple):
    """A stretch of time as named; `coarse`: a year or month, of which `by` means its beginning."""

    start: datetime
    end: datetime
    coarse: bool = False
    today: bool = False
    note: str = ""
    rolling: bool = False


class _When(NamedTuple):
    now: datetime
    past: bool

    @property
    def today(self) -> datetime:
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)


def _month_start(year: int, month: int) -> datetime:
    years, month0 = divmod(month - 1, 12)
    return datetime(year + years, month0 + 1, 1, tzinfo=UTC)


def _unit(when: _When, unit: str, shift: int) -> _Base:
    """The calendar hour, day, week (from Monday), weekend, month, quarter or year, `shift` away from the current."""
    today = when.today
    if unit == "hour":
        start = when.now + timedelta(hours=min(0, shift))
        return _Base(start, start + timedelta(hours=1), rolling=True)
    if unit == "day":
        return _Base(today + shift * DAY, today + (shift + 1) * DAY, today=shift == 0)
    if unit in ("week", "weekend"):
        monday = today - today.weekday() * DAY + 7 * shift * DAY
        return _Base(monday + 5 * DAY, monday + 7 * DAY) if unit == "weekend" else _Base(monday, monday + 7 * DAY)
    if unit == "month":
        return _Base(_month_start(today.year, today.month + shift), _month_start(today.year, today.month + shift + 1))
    if unit == "quarter":
        first = (today.month - 1) // 3 * 3 + 1 + 3 * shift
        return _Base(_month_start(today.year, first), _month_start(today.year, first + 3))
    return _Base(_month_start(today.year + shift, 1), _month_start(today.year + shift + 1, 1))


_SHIFTS = {"this": 0, "current": 0, "next": 1, "coming": 1, "following": 1, "last": -1, "previous": -1, "past": -1}
_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": DAY, "week": 7 * DAY,
            "month": 30 * DAY, "year": 365 * DAY}  # fmt: skip


def _length(count: int, unit: str) -> timedelta:
    return min(count, 10_000) * _LENGTHS[{"min": "minute", "hr": "hour"}.get(unit, unit)]


def _relative(when: _When, match: re.Match[str]) -> _Base:
    word, unit = match["which"], match["unit"]
    if word == "past" and unit in _LENGTHS:
        return _Base(when.now - _length(1, unit), when.now, rolling=True)
    return _unit(when, unit, _SHIFTS[word])


def _rolling(when: _When, match: re.Match[str]) -> _Base:
    length = _length(int(match["count"] or 1), match["unit"])
    if match["which"] in ("last", "past", "previous"):
        return _Base(when.now - length, when.now, rolling=True)
    return _Base(when.now, when.now + length, rolling=True)


def _from_now(when: _When, match: re.Match[str]) -> _Base:
    count, unit = int(match["count"]), match["unit"]
    length = _length(count, unit)
    if match["ago"] == "ago":
        if unit in ("minute", "min", "hour", "hr"):
            return _Base(when.now - length, when.now, rolling=True)
        day = when.today - length
        return _Base(day, day + DAY)
    if unit in ("minute", "min", "hour", "hr"):
        return _Base(when.now, when.now + length, rolling=True)
    day = when.today + length
    return _Base(day, day + DAY)


def _day(when: _When, match: re.Match[str]) -> _Base:
    word = match["day"]
    shift = {"tomorrow": 1, "yesterday": -1}.get(word, 0)
    if word.startswith("day after"):
        shift = 2
    elif word.startswith("day before"):
        shift = -2
    return _unit(when, "day", shift)


def _weekday(when: _When, match: re.Match[str]) -> _Base:
    wanted = next(n for n, name in enumerate(WEEKDAYS) if name.startswith(match["weekday"][:3]))
    today = when.today
    ahead = (wanted - today.weekday()) % 7
    word = match["which"] or ""
    if word in ("last", "past", "previous") or (not word and when.past):
        start = today - ((today.weekday() - wanted) % 7 or 7) * DAY
    elif word in ("next", "following"):
        start = today - today.weekday() * DAY + (7 + wanted) * DAY
    else:
        start = today + ahead * DAY
    return _Base(start, start + DAY)


def _named(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def _near_year(when: _When, start_in: Callable[[int], datetime]) -> datetime:
    """The one of three years in which it is nearest to now; in the past only, when the question is about that."""
    options = []
    for year in (when.now.year - 1, when.now.year, when.now.year + 1):
        try:
            options.append(start_in(year))
        except ValueError:  # 29 February
            continue
    if when.past:
        options = [option for option in options if option <= when.now] or options
    return min(options, key=lambda option: abs(option - when.now))


def _month(when: _When, match: re.Match[str]) -> _Base:
    month, year, which = _named(match["month"]), match["year"], match["which"] or ""
    if year:
        start = _month_start(int(year), month)
    elif which in ("next", "coming", "following"):
        start = _month_start(when.now.year + (month <= when.now.month), month)
    elif which in ("last", "past", "previous"):
        start = _month_start(when.now.year - (month >= when.now.month), month)
    elif which == "this":
        start = _month_start(when.now.year, month)
    else:
        start = _near_year(when, lambda y: _month_start(y, month))
    end = _month_start(start.year, start.month + 1)
    part = match["part"]
    if part:
        first = {"early": 1, "mid": 11, "late": 21}[part[:5].strip("- ")]
        return _Base(start.replace(day=first), end if first == 21 else start.replace(day=first + 10))
    return _Base(start, end, coarse=True)


def _on_day(when: _When, year: str | None, month: int, day: int, note: str = "") -> _Base:
    if year:
        number = int(year)
        start = datetime(number + 2000 if number < 100 else number, month, day, tzinfo=UTC)
    else:
        datetime(2028, month, day, tzinfo=UTC)  # a day of no year raises ValueError here
        start = _near_year(when, lambda y: datetime(y, month, day, tzinfo=UTC))
    return _Base(start, start + DAY, note=note)


def _slashed(when: _When, match: re.Match[str]) -> _Base:
    first, second, year = int(match["first"]), int(match["second"]), match["year"]
    if first > 12 or "." in match[0]:
        return _on_day(when, year, second, first)
    note = "" if second > 12 or first == second else f"{match[0]} is read as month/day"
    return _on_day(when, year, first, second, note)


def _quarter(when: _When, match: re.Match[str]) -> _Base:
    first = 3 * int(match["quarter"]) - 2
    start = _month_start(int(match["year"]), first) if match["year"] else _near_year(
        when, lambda y: _month_start(y, first)
    )  # fmt: skip
    return _Base(start, _month_start(start.year, start.month + 3))


_HOLIDAYS = {"christmas eve": (12, 24), "christmas": (12, 25), "xmas": (12, 25), "boxing day": (12, 26),
             "new year eve": (12, 31), "new years eve": (12, 31), "new year day": (1, 1), "new years day": (1, 1),
             "new years": (1, 1), "new year": (1, 1), "halloween": (10, 31), "valentine day": (2, 14),
             "valentines day": (2, 14), "independence day": (7, 4)}  # fmt: skip


def _holiday(when: _When, match: re.Match[str]) -> _Base:
    name = match["holiday"].removesuffix(" day") if match["holiday"] == "christmas day" else match["holiday"]
    if name != "thanksgiving":
        return _on_day(when, match["year"], *_HOLIDAYS[name])

    def fourth_thursday(year: int) -> datetime:
        first = datetime(year, 11, 1, tzinfo=UTC)
        return first + ((3 - first.weekday()) % 7 + 21) * DAY

    start = fourth_thursday(int(match["year"])) if match["year"] else _near_year(when, fourth_thursday)
    return _Base(start, start + DAY)


_MONTH = rf"(?P<month>{'|'.join(MONTHS)}|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?"
_YEAR = r"(?P<year>20\d\d)"
_UNIT = r"(?P<unit>minute|min|hour|hr|day|week|month|year)s?"
_WHICH = r"(?:(?P<which>this|next|last|past|previous|coming|following|on)\s+)?"

_BASES: tuple[tuple[re.Pattern[str], Callable[[_When, re.Match[str]], _Base]], ...] = tuple(
    (re.compile(rf"(?<![\w.$-])(?:{pattern})(?![\w%¢]|[.,]\d)"), make)
    for pattern, make in (
        (r"(?P<year>20\d\d)[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})(?:t[0-9:.]+z?)?",
         lambda w, m: _on_day(w, m["year"], int(m["m"]), int(m["d"]))),
        (r"(?P<first>\d{1,2})[/.-](?P<second>\d{1,2})[/.-](?P<year>\d{4}|\d\d)", _slashed),
        (r"(?P<first>\d{1,2})/(?P<second>\d{1,2})(?P<year>)", _slashed),
        (rf"(?P<d>\d{{1,2}}) (?:of )?{_MONTH}(?:,? {_YEAR})?",
         lambda w, m: _on_day(w, m["year"], _named(m["month"]), int(m["d"]))),
        (rf"{_MONTH} (?:the )?(?P<d>\d{{1,2}})(?:,? {_YEAR})?",
         lambda w, m: _on_day(w, m["year"], _named(m["month"]), int(m["d"]))),
        (rf"(?P<holiday>{'|'.join(sorted(_HOLIDAYS, key=len, reverse=True))}|christmas day|thanksgiving)"
         rf"(?:,? {_YEAR})?", _holiday),
        (rf"q(?P<quarter>[1-4])(?: (?:of )?{_YEAR})?", _quarter),
        (rf"(?:within|inside|over|during)?\s*(?:the )?(?P<which>next|coming|last|past|previous) (?P<count>\d+) {_UNIT}",
         _rolling),
        (rf"(?P<which>within|inside|(?:in |within )?(?:less than|under|no more than|at most)) (?:the )?(?:next )?"
         rf"(?P<count>\d+|an?\b|(?=hour|day|week|month|year)) ?{_UNIT}",
         lambda w, m: _Base(w.now, w.now + _length(int(m["count"]) if m["count"].isdigit() else 1, m["unit"]),
                            rolling=True)),
        (rf"(?P<count>\d+) {_UNIT} (?P<ago>ago|from now|from today)", _from_now),
        (rf"(?P<ago>in) (?P<count>\d+) {_UNIT}", _from_now),
        (r"(?P<ago>in) an? hour", lambda w, _m: _Base(w.now, w.now + timedelta(hours=1), rolling=True)),
        (rf"(?P<which>past) (?P<count>){_UNIT}", _rolling),
        (r"(?P<which>this|next|last|past|previous|current|coming|following) "
         r"(?P<unit>hour|day|weekend|week|month|quarter|year)", _relative),
        (r"(?:over |on |at )?the (?P<unit>weekend|week|month|year)\b", lambda w, m: _unit(w, m["unit"], 0)),
        (r"(?P<day>day after tomorrow|day before yesterday|tomorrow|yesterday|today|tonight"
         r"|this morning|this afternoon|this evening|same day)(?: (?:morning|afternoon|evening|night))?", _day),
        (
            rf"{_WHICH}(?P<weekday>{'|'.join(WEEKDAYS)}|(?<=on )(?:mon|tue|tues|wed|thu|thur|thurs|fri|"
            rf"sat|sun))", _weekday),
        (rf"(?:(?P<part>early|mid|late)[ -])?{_WHICH}(?P<month>(?<=in )may|(?<=by )may|(?<=before )may|(?<=after )may|"
         rf"may(?= 20\d\d)|(?<=next )may|(?<=last )may|(?<=this )may|(?!may\b)(?:{'|'.join(MONTHS)})"
         rf"|(?<=in )(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)|(?:jan|feb|apr|jun|jul|aug|sept?|oct|nov|dec))"
         rf"\.?(?:,? (?:of )?{_YEAR})?", _month),
        (rf"(?:(?<=in )|(?<=before )|(?<=by )|(?<=after )|(?<=until )|(?<=till )|(?<=during )|(?<=since )|(?<=for )"
         rf"|(?<=through )|(?<=of )|(?<=year ))(?:the year )?{_YEAR}",
         lambda _w, m: _Base(_month_start(int(m["year"]), 1), _month_start(int(m["year"]) + 1, 1), coarse=True)),
    )
)  # fmt: skip

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
_JOINED = re.compile(r"^\s*(?:and|to|until|till|through|thru|-)\s*(?:the )?$")


class _Found(NamedTuple):
    start: int
    end: int
    base: _Base
    way: str


def find_dates(text: Text, now: datetime, *, past: bool) -> list[Dated]:
    """The dates of a question, used up; `past`: it asks about what has happened."""
    when = _When(now, past)
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


def _edges(text: Text, when: _When) -> list[_Found]:
    """`end of the year`, `eom`, `start of December`."""
    found = []
    for match in list(text.find(_END_OF)):
        end, base = match.end(), None
        if match["short"]:
            base = _unit(when, {"d": "day", "w": "week", "m": "month", "y": "year"}[match["short"][2]], 0)
        elif match["unit_end"]:
            base = _unit(when, match["unit_end"], 0)
        elif unit := _EDGE_UNIT.match(text.left, end):
            base, end = _unit(when, unit["unit"], 0), unit.end()
        else:
            for pattern, make in _BASES:
                if named := pattern.match(text.left, end):
                    base, end = make(when, named), named.end()
                    break
            else:
                if year := re.compile(r"20\d\d\b").match(text.left, end):
                    base, end = _Base(_month_start(int(year[0]), 1), _month_start(int(year[0]) + 1, 1)), year.end()
        if base is None:
            continue
        way = _take(text, match.start(), end)
        if match["edge"] in ("start", "beginning"):
            found.append(_Found(match.start(), end, _Base(base.start, base.start + DAY), way or "before"))
        else:
            found.append(
                _Found(match.start(), end, base._replace(coarse=False), "by" if way in ("", "before") else way)
            )
    return found


def _bases(text: Text, when: _When) -> list[_Found]:
    found = []
    for pattern, make in _BASES:
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
