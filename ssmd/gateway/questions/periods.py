"""Stretches of time by name, in UTC: days, weeks (from Monday), months, quarters, holidays."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

DAY = timedelta(days=1)
_SOON = timedelta(days=7)

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


class Period(NamedTuple):
    """A stretch of time as named; `coarse`: a year or month, of which `by` means its beginning."""

    start: datetime
    end: datetime
    coarse: bool = False
    today: bool = False
    note: str = ""
    rolling: bool = False


class When(NamedTuple):
    """When a question is asked, and whether about what has happened."""

    now: datetime
    past: bool

    @property
    def today(self) -> datetime:
        """The day's first moment."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)


def month_start(year: int, month: int) -> datetime:
    """The first moment of a month; months beyond December go on in the next year."""
    years, month0 = divmod(month - 1, 12)
    return datetime(year + years, month0 + 1, 1, tzinfo=UTC)


def unit_of(when: When, unit: str, shift: int) -> Period:
    """The calendar hour, day, week (from Monday), weekend, month, quarter or year, `shift` away from the current."""
    today = when.today
    if unit == "hour":
        start = when.now + timedelta(hours=min(0, shift))
        return Period(start, start + timedelta(hours=1), rolling=True)
    if unit == "day":
        return Period(today + shift * DAY, today + (shift + 1) * DAY, today=shift == 0)
    if unit in ("week", "weekend"):
        monday = today - today.weekday() * DAY + 7 * shift * DAY
        return Period(monday + 5 * DAY, monday + 7 * DAY) if unit == "weekend" else Period(monday, monday + 7 * DAY)
    if unit == "month":
        return Period(month_start(today.year, today.month + shift), month_start(today.year, today.month + shift + 1))
    if unit == "quarter":
        first = (today.month - 1) // 3 * 3 + 1 + 3 * shift
        return Period(month_start(today.year, first), month_start(today.year, first + 3))
    return Period(month_start(today.year + shift, 1), month_start(today.year + shift + 1, 1))


_SHIFTS = {"this": 0, "current": 0, "next": 1, "coming": 1, "following": 1, "last": -1, "previous": -1, "past": -1}
_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": DAY, "week": 7 * DAY,
            "month": 30 * DAY, "year": 365 * DAY}  # fmt: skip


def _length(count: int, unit: str) -> timedelta:
    return min(count, 10_000) * _LENGTHS[{"min": "minute", "hr": "hour"}.get(unit, unit)]


def _relative(when: When, match: re.Match[str]) -> Period:
    word, unit = match["which"], match["unit"]
    if word == "past" and unit in _LENGTHS:
        return Period(when.now - _length(1, unit), when.now, rolling=True)
    return unit_of(when, unit, _SHIFTS[word])


def _rolling(when: When, match: re.Match[str]) -> Period:
    length = _length(int(match["count"] or 1), match["unit"])
    if match["which"] in ("last", "past", "previous"):
        return Period(when.now - length, when.now, rolling=True)
    return Period(when.now, when.now + length, rolling=True)


def _from_now(when: When, match: re.Match[str]) -> Period:
    count, unit = int(match["count"]), match["unit"]
    length = _length(count, unit)
    if match["ago"] == "ago":
        if unit in ("minute", "min", "hour", "hr"):
            return Period(when.now - length, when.now, rolling=True)
        day = when.today - length
        return Period(day, day + DAY)
    if unit in ("minute", "min", "hour", "hr"):
        return Period(when.now, when.now + length, rolling=True)
    day = when.today + length
    return Period(day, day + DAY)


def _day(when: When, match: re.Match[str]) -> Period:
    word = match["day"]
    shift = {"tomorrow": 1, "yesterday": -1}.get(word, 0)
    if word.startswith("day after"):
        shift = 2
    elif word.startswith("day before"):
        shift = -2
    return unit_of(when, "day", shift)


def _weekday(when: When, match: re.Match[str]) -> Period:
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
    return Period(start, start + DAY)


def _named(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def _near_year(when: When, start_in: Callable[[int], datetime]) -> datetime:
    """The one of three years in which it is nearest to now; in the past only, when the question is about that."""
    options = []
    for year in (when.now.year - 1, when.now.year, when.now.year + 1):
        try:
            options.append(start_in(year))
        except ValueError:  # 29 February
            continue
    nearest = min(options, key=lambda option: abs(option - when.now))
    if not when.past or abs(nearest - when.now) <= _SOON:
        return nearest
    return max((option for option in options if option <= when.now), default=nearest)


def _month(when: When, match: re.Match[str]) -> Period:
    month, year, which = _named(match["month"]), match["year"], match["which"] or ""
    if year:
        start = month_start(int(year), month)
    elif which in ("next", "coming", "following"):
        start = month_start(when.now.year + (month <= when.now.month), month)
    elif which in ("last", "past", "previous"):
        start = month_start(when.now.year - (month >= when.now.month), month)
    elif which == "this":
        start = month_start(when.now.year, month)
    else:
        start = _near_year(when, lambda y: month_start(y, month))
    end = month_start(start.year, start.month + 1)
    part = match["part"]
    if part:
        first = {"early": 1, "mid": 11, "late": 21}[part[:5].strip("- ")]
        return Period(start.replace(day=first), end if first == 21 else start.replace(day=first + 10))
    return Period(start, end, coarse=True)


def _on_day(when: When, year: str | None, month: int, day: int, note: str = "") -> Period:
    if year:
        number = int(year)
        start = datetime(number + 2000 if number < 100 else number, month, day, tzinfo=UTC)
    else:
        datetime(2028, month, day, tzinfo=UTC)  # a day of no year raises ValueError here
        start = _near_year(when, lambda y: datetime(y, month, day, tzinfo=UTC))
    return Period(start, start + DAY, note=note)


def _slashed(when: When, match: re.Match[str]) -> Period:
    first, second, year = int(match["first"]), int(match["second"]), match["year"]
    if first > 12 or "." in match[0]:
        return _on_day(when, year, second, first)
    note = "" if second > 12 or first == second else f"{match[0]} is read as month/day"
    return _on_day(when, year, first, second, note)


def _quarter(when: When, match: re.Match[str]) -> Period:
    first = 3 * int(match["quarter"]) - 2
    start = month_start(int(match["year"]), first) if match["year"] else _near_year(
        when, lambda y: month_start(y, first)
    )  # fmt: skip
    return Period(start, month_start(start.year, start.month + 3))


_HOLIDAYS = {"christmas eve": (12, 24), "christmas": (12, 25), "xmas": (12, 25), "boxing day": (12, 26),
             "new year eve": (12, 31), "new years eve": (12, 31), "new year day": (1, 1), "new years day": (1, 1),
             "new years": (1, 1), "new year": (1, 1), "halloween": (10, 31), "valentine day": (2, 14),
             "valentines day": (2, 14), "independence day": (7, 4)}  # fmt: skip


def _holiday(when: When, match: re.Match[str]) -> Period:
    name = match["holiday"].removesuffix(" day") if match["holiday"] == "christmas day" else match["holiday"]
    if name != "thanksgiving":
        return _on_day(when, match["year"], *_HOLIDAYS[name])

    def fourth_thursday(year: int) -> datetime:
        first = datetime(year, 11, 1, tzinfo=UTC)
        return first + ((3 - first.weekday()) % 7 + 21) * DAY

    start = fourth_thursday(int(match["year"])) if match["year"] else _near_year(when, fourth_thursday)
    return Period(start, start + DAY)


_MONTH = rf"(?P<month>{'|'.join(MONTHS)}|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?"
_YEAR = r"(?P<year>20\d\d)"
_UNIT = r"(?P<unit>minute|min|hour|hr|day|week|month|year)s?"
_WHICH = r"(?:(?P<which>this|next|last|past|previous|coming|following|on)\s+)?"

PERIODS: tuple[tuple[re.Pattern[str], Callable[[When, re.Match[str]], Period]], ...] = tuple(
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
         lambda w, m: Period(w.now, w.now + _length(int(m["count"]) if m["count"].isdigit() else 1, m["unit"]),
                            rolling=True)),
        (rf"(?P<count>\d+) {_UNIT} (?P<ago>ago|from now|from today)", _from_now),
        (rf"(?P<ago>in) (?P<count>\d+) {_UNIT}", _from_now),
        (r"(?P<ago>in) an? hour", lambda w, _m: Period(w.now, w.now + timedelta(hours=1), rolling=True)),
        (rf"(?P<which>past) (?P<count>){_UNIT}", _rolling),
        (r"(?P<which>this|next|last|past|previous|current|coming|following) "
         r"(?P<unit>hour|day|weekend|week|month|quarter|year)", _relative),
        (r"(?:over |on |at )?the (?P<unit>weekend|week|month|year)\b", lambda w, m: unit_of(w, m["unit"], 0)),
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
         lambda _w, m: Period(month_start(int(m["year"]), 1), month_start(int(m["year"]) + 1, 1), coarse=True)),
    )
)  # fmt: skip
