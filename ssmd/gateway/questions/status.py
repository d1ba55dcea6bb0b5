"""Words for where a market is in its life, how it ended, in which order to list, and whether to count."""

import re
from typing import NamedTuple

from ssmd.gateway.questions.text import Text
from ssmd.gateway.questions.words import FUNCTION_WORDS, MARKET_WORDS

STATUSES: dict[str, frozenset[str]] = {
    "active": frozenset({"active", "open"}),
    "unopened": frozenset({"initialized", "unopened", "created"}),
    "paused": frozenset({"inactive", "paused", "halted"}),
    "closed": frozenset({"closed", "disputed"}),
    "settled": frozenset({"determined", "amended", "finalized", "settled"}),
}
"""Our word for a status, and the exchange's words that mean it."""

_RESULT = re.compile(
    r"\b(?:resolved?|resolving|settled?|settling|finali[sz]ed|determined|ended|came|closed|results?|resulted|outcomes?"
    r"|resolutions?|paid|answered|decided|graded|turned)"
    r"(?: (?:up|out|in|was|is|were|are|as|to|at|with|of|a|the|result|outcome|being|for|favou?r))* (yes|no)\b"
    r"(?! (?:longer|later|more|less|earlier|sooner|idea)\b)"
    r"|\b(yes|no) (?:results?|outcomes?|resolutions?|settlements?|winners?)\b"
)
_UNOPENED = re.compile(
    r"\b(?:(?:have |has |is |are |were )?not (?:yet )?(?:been )?(?:opened|started|"
    r"begun)(?: yet| trading)*|yet to (?:open|start|trade|begin)"
    r"|not (?:yet (?:open|trading|live|active|tradable)|(?:open|trading|live|active) yet)|"
    r"unopened|upcoming|about to open|opening soon"
    r"|coming soon|pre ?open|initiali[sz]ed|before they open|opens? soon|not launched(?: yet)?)\b"
)
_UNSETTLED = re.compile(
    r"\b(?:unsettled|unresolved|undecided|undetermined|not (?:yet )?(?:been )?(?:settled|"
    r"resolved|finali[sz]ed|determined|decided))(?: yet)?\b"
)
_SETTLED = re.compile(
    r"\b(?:settled|resolved|finali[sz]ed|determined|graded|paid out|concluded|decided|"
    r"adjudicated|(?:have|has|with)(?: a| the| already)* results?"
    r"|(?<=did )(?:settle|resolve)|(?:did|has|have|had)\s+(?:\w+\s+){0,4}(?:settle|resolve))\b"
)
_OPENED = re.compile(r"\b(?:opened|listed|launched|created|began trading|started trading|went live|added|introduced)\b")
_CLOSED = re.compile(
    r"\b(?:closed|shut|ended|expired|finished|no longer (?:open|trading|active|tradable|available)|stopped trading"
    r"|done trading|lapsed|matured)\b"
)
_NOUN = (
    r"(?:markets?|contracts?|events?|bets?|questions?|predictions?|wagers?|tickers?|listings?|"
    r"instruments?|strikes?|props?)"
)
_DESCRIBES = re.compile(rf"\s+(?:\S+\s+){{0,4}}?{_NOUN}\b")
_DID_CLOSE = re.compile(r"\bdid\s+(?:\w+\s+){0,4}(?:close|end|expire|finish)\b|(?<=did )(?:close|end|expire|finish)\b")
_CLOSES = re.compile(
    r"\b(?:clos(?:e|es|ing)|expir(?:e|es|ing|y|ies|ation|ations)|end(?:s|ing)?|finish(?:es|ing)?|matur(?:e|es|ing|ity)"
    r"|resolv(?:e|es|ing)|settl(?:e|es|ing|ement)|wrap(?:s|ping)? up|due|deadline|runs? out|ends?|conclud(?:e|es|ing)"
    r"|decid(?:e|es)|lapses?|stops? trading)\b"
)
_OPENS = re.compile(
    r"\b(?:opens|opening|will open|to open|launching|starting to trade|start trading|"
    r"begin trading|starts trading|going live|go live)\b"
)
_ACTIVE_NOW = re.compile(
    r"\b(?:open|trading|active|live|available|tradable|tradeable|trade)(?: for \w+| (?:right|"
    r"just|still|currently|at the|this))*"
    r" (?:today|tonight|now|moment|minute|present)\b|\b(?:today|now|currently|"
    r"presently) (?:open|trading|active|live|tradable|tradeable|available)\b"
)
_ACTIVE = re.compile(
    r"\b(?:open(?! interest)|trading(?! at\b| above| below| over| under| between| around|"
    r" near| for (?:less|more|under|over)| volume| hours?)"
    r"|tradable|tradeable|active|live|running|ongoing|in play|outstanding|still up|accepting (?:orders|trades|bets)"
    r"|available(?: for trading| to trade)?"
    r"|(?:can|could|may) (?:i|we|you|one|people|someone|still|still be|be)(?: still|"
    r" be)* (?:trade|traded|bet|buy|bought|sell|invest)(?: on| in)?)\b"
)
_TRADED_TODAY = re.compile(r"\b(?:trading|tradable|tradeable|active|live|available|running|ongoing)\b")
_PAUSED = re.compile(r"\b(?:paused|halted|suspended|inactive|on hold|frozen)\b")

_SORTS = tuple(
    (name, re.compile(rf"\b(?:{pattern})\b"))
    for name, pattern in (
        ("recently_settled", (
            r"(?:most )?recent(?:ly)?(?= (?:settled|resolved|finali[sz]ed|determined|closed))|"
            r"(?:latest|last|newest)(?= (?:settled|resolved|settlements?|resolutions?))"
        )),
        ("closing_soonest", (
            r"(?:clos|end|expir|settl|resolv|finish|matur)(?:e|es|ing|s|ed)? (?:the )?(?:soon(?:est)?|"
            r"first|next(?! (?:\d|week|month|year|hour|day|mon|tue|wed|thu|fri|sat|sun|few|weekend|"
            r"quarter))|earliest|shortly|imminently)|soonest (?:to )?(?:clos|end|expir|settl|resolv|"
            r"finish)\w*|soonest|about to (?:close|expire|end|settle|resolve)|(?:nearest|earliest|"
            r"soonest) (?:expir|clos|end|settle|deadline)\w*|next to (?:close|expire|settle|resolve|"
            r"end)|(?:by|sorted by|order(?:ed)? by) (?:clos\w*|expir\w*|end\w*)(?: (?:time|date))?"
        )),
        ("most_likely", (
            r"likely to (?:resolve|settle|end)(?: (?:to|at|as|in))? yes|most likely|most probable|"
            r"likeliest|(?:highest|best|greatest|biggest|top|"
            r"largest)[ -](?:priced?|prices|probabilit(?:y|ies)|chances?|odds|likelihood|implied \w+)|"
            r"favou?rites?(?! (?:colou?r|song|food|movie|film|book))|most expensive|most certain|"
            r"surest|priciest|dearest"
        )),
        ("least_likely", (
            r"cheap|least likely|least probable|unlikeliest|most unlikely|(?:lowest|smallest|worst|"
            r"slimmest)[ -](?:priced?|prices|probabilit(?:y|ies)|chances?|odds|likelihood|"
            r"implied \w+)|long ?shots?|longest (?:odds|shots?)|underdogs?|cheapest|least expensive"
        )),
        ("volume", (
            r"(?:highest|most|biggest|largest|top|greatest|heaviest|best)(?: \w+)? (?:volumes?|"
            r"turnover|activity|liquidity|trading)|(?:by|sorted by|order(?:ed)? by|"
            r"ranked by) (?:volume|turnover|activity)|most (?:heavily |actively |widely )?(?:traded|"
            r"active|popular|liquid)|busiest|hottest markets?|most popular|trending|biggest markets?|"
            r"largest markets?"
        )),
        ("spread", (
            r"(?:tight|narrow|small|low|thin|best)(?:est)?[ -](?:bid ask |bid-ask )?spreads?|(?:by|"
            r"sorted by) spread"
        )),
        ("widest_spread", r"(?:wid|larg|bigg|high|fatt)est[ -](?:bid ask |bid-ask )?spreads?|wide spreads?"),
        ("newest", (
            r"newest|latest(?= (?:\w+ )?(?:markets?|contracts?|listings?|bets?))|"
            r"most recent(?:ly)?(?: opened| listed| added| launched| created)?|just (?:opened|listed|"
            r"launched|added)|(?:recently|newly) (?:opened|listed|added|launched|created)|"
            r"new(?= (?:\w+ )?(?:markets?|contracts?|listings?))|new listings?"
        )),
    )
)  # fmt: skip
_COUNT = re.compile(
    rf"\b(?:(?:how many|(?:total |the |overall )*(?:number|count|amount|quantity)(?: of)?|"
    rf"count(?: of| the| all| up)*|tally)(?=\s+(?:\S+\s+){{0,6}}?{_NOUN}\b)"
    r"|how many(?!\s+(?:\S+\s+){0,6}?(?:will|would|points|goals|runs|yards|touchdowns|degrees|"
    r"inches|times)\b)|count(?= (?:settled|open|active|closed)))"
)


_OTHER_STATUS = r"(?P<{0}>cancell?ed|void(?:ed)?|annulled|refunded|withdrawn|delisted|deleted|archived|rejected)"
_NO_STATUS = re.compile(
    rf"(?:^|(?<=all )|(?<=any )|(?<=the )|(?<=which )|(?<=me )|(?<=many ))(?:are )?{_OTHER_STATUS.format('first')}"
    rf"(?:\s+\S+){{0,3}}?\s+{_NOUN}\b"
    rf"|\b{_NOUN} (?:that |which )?(?:are |were |is |was |got |have been |been ){_OTHER_STATUS.format('last')}\b"
    r"|\bstatus(?: is| of| =|:)? (?P<named>[a-z_]{3,32})\b"
)


class Life(NamedTuple):
    """What a question says of markets' lives. `dates`: to what its dates belong, None when no verb says."""

    status: str = ""
    not_status: str = ""
    result: str = ""
    dates: str | None = None  # close, open, settled
    past: bool = False
    traded_today: bool = False


def find_sort(text: Text) -> str:
    """The order that is asked for, used up; "" for none."""
    for name, pattern in _SORTS:
        for match in text.find(pattern):
            text.use(match.start(), match.end())
            return name
    return ""


def find_no_status(text: Text) -> str:
    """The word for a status that no market can have; "" for none. Asked when all statuses are used up."""
    match = _NO_STATUS.search(text.left)
    word = (match["first"] or match["last"] or match["named"]) if match else ""
    return "" if word in FUNCTION_WORDS or word in MARKET_WORDS else word


def find_count(text: Text) -> bool:
    """Is a number asked for? Used up."""
    for match in text.find(_COUNT):
        text.use(match.start(), match.end())
        return True
    return False


def is_past(text: Text) -> bool:
    """Is the question about what has happened?"""
    past = (_RESULT, _SETTLED, _OPENED, _CLOSED, _DID_CLOSE)
    told = any(p.search(text.whole) for p in past) and not _UNSETTLED.search(text.whole)
    return told or re.search(r"\b(?:was|were|did|last|previous|ago)\b", text.whole) is not None


def find_life(text: Text, *, dated: bool) -> Life:
    """Statuses, results and verbs of a question, used up. `dated`: it names a date to which a verb can belong."""
    result = _take(text, _RESULT)
    if result is not None:
        return Life("settled", result=result[1] or result[2], dates="settled" if dated else None, past=True)
    for pattern, life in (
        (_UNOPENED, Life("unopened", dates="open" if dated else None)),
        (_UNSETTLED, Life(not_status="settled")),
    ):
        if _take(text, pattern, everywhere=True):
            return _with_verb(text, life)
    for pattern, status, verb in (
        (_SETTLED, "settled", "settled"),
        (_CLOSED, "closed", "close"),
        (_PAUSED, "paused", None),
    ):
        if match := _take(text, pattern):
            if text.negated(match.start(), closely=True) and "no longer" not in match[0]:
                return _with_verb(text, Life(not_status=status))
            if status == "closed" and dated and not _DESCRIBES.match(text.whole, match.end()):
                return _with_active(text, Life(dates="close", past=True))
            return Life(status, dates=verb if dated and verb and status != "closed" else None, past=True)
    if (match := _take(text, _DID_CLOSE)) and dated:
        return Life(dates="close", past=True)
    if dated and (match := _take(text, _OPENED)):
        return _with_active(text, Life(dates="open", past=True))
    if dated and (match := _take(text, _OPENS)):
        return Life(dates="open")
    return _with_verb(text, Life())


def _with_verb(text: Text, life: Life) -> Life:
    """The verb that closes, then `open` and its like."""
    if _take(text, _CLOSES, everywhere=True):
        life = life._replace(dates=life.dates or "close")
    return _with_active(text, life)


def _with_active(text: Text, life: Life) -> Life:
    if match := _take(text, _ACTIVE_NOW):
        life = life._replace(traded_today=True)
    traded = _TRADED_TODAY.search(text.left) is not None
    match = _take(text, _ACTIVE, everywhere=True) or match
    if match is None:
        return life
    if text.negated(match.start(), closely=True):
        return life._replace(not_status=life.not_status or "active")
    return life._replace(status=life.status or "active", traded_today=life.traded_today or traded)


def _take(text: Text, pattern: re.Pattern[str], *, everywhere: bool = False) -> re.Match[str] | None:
    first = None
    for match in text.find(pattern):
        text.use(match.start(), match.end())
        first = first or match
        if not everywhere:
            break
    return first
