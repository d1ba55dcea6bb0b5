"""The names in a question: underlyings, categories, places and teams; which are wanted and which are not."""

import re
from typing import NamedTuple, TypeAlias

from ssmd.gateway.questions.places import PLACES, TEAMS, Place, Team
from ssmd.gateway.questions.text import Text, fold
from ssmd.gateway.questions.topic import Topic
from ssmd.gateway.questions.vocabulary import CATEGORIES, TOPICS, Category
from ssmd.gateway.questions.words import SPORT_WORDS

Entity: TypeAlias = Category | Topic | Place | Team


class Named(NamedTuple):
    """What a question names. `everyday`: all of it in words that mean something else as well."""

    wanted: tuple[Entity, ...]
    unwanted: tuple[Entity, ...]
    everyday: bool


class _Phrase(NamedTuple):
    entity: Entity
    everyday: bool


def _phrases() -> dict[str, list[_Phrase]]:
    found: dict[str, list[_Phrase]] = {}

    def add(phrase: str, entity: Entity, everyday: bool = False) -> None:
        found.setdefault(fold(phrase), []).append(_Phrase(entity, everyday))

    entities: list[Category | Topic] = [*TOPICS, *CATEGORIES]
    for known in entities:
        for phrase in known.says:
            add(phrase.removesuffix("?"), known, phrase.endswith("?"))
    for place in PLACES:
        for phrase in place.says:
            add(phrase, place)
    for team in TEAMS:
        add(team.name, team, team.everyday)
        if team.city:
            add(f"{team.city} {team.name}", team)
    for phrase, options in found.items():  # `hurricanes` are a team, and more than one hurricane
        if phrase.endswith("s"):
            options += [option for option in found.get(phrase[:-1], []) if option not in options]
    return found


_BY_PHRASE = _phrases()


def _stem(phrase: str) -> str:
    """The phrase as a pattern; its last word in singular or plural."""
    ending = "" if phrase[-1] in "0123456789" else "(?:es|s)?"
    return re.escape(phrase) + ending


_ANY = re.compile(
    rf"(?<![\w&])(?:{'|'.join(f'({_stem(p)})' for p in sorted(_BY_PHRASE, key=len, reverse=True))})(?![\w&])"
)
_ORDER = sorted(_BY_PHRASE, key=len, reverse=True)

PHRASE_WORDS = frozenset(word for phrase in _BY_PHRASE for word in re.findall(r"[a-z]+", phrase))


def find_entities(text: Text) -> Named:
    """The longest names first, used up."""
    sporty = bool(SPORT_WORDS & set(text.whole.split())) or re.search(
        r"\b(?:nfl|nba|mlb|nhl|epl|sports?)\b", text.whole
    )
    wanted: list[Entity] = []
    unwanted: list[Entity] = []
    everyday = True
    for match in list(text.find(_ANY)):
        assert match.lastindex is not None
        options = _BY_PHRASE[_ORDER[match.lastindex - 1]]
        chosen = _choose(options, bool(sporty), text)
        if chosen is None:
            continue
        if text.negated(match.start()):
            unwanted.append(chosen.entity)
            text.exclude(match.start(), match.end())
        else:
            wanted.append(chosen.entity)
            text.use(match.start(), match.end())
        everyday = everyday and chosen.everyday
    return Named(_unique(wanted), _unique(unwanted), everyday and bool(wanted or unwanted))


def _choose(options: list[_Phrase], sporty: bool, text: Text) -> _Phrase | None:
    """Of what a phrase can mean, what it means here."""
    teams = [option for option in options if isinstance(option.entity, Team)]
    others = [option for option in options if option not in teams]
    if others and not (sporty and teams):
        return others[0]
    leagues = [
        option
        for option in teams
        if isinstance(option.entity, Team) and option.entity.league.lower() in text.whole.split()
    ]
    if leagues:
        return leagues[0]
    if not teams or (teams[0].everyday and not sporty):
        return None
    first = teams[0]
    if len(teams) > 1 and isinstance(first.entity, Team):  # several leagues: say none
        return _Phrase(first.entity._replace(league="", city=""), everyday=False)
    return first._replace(everyday=False)


def _unique(found: list[Entity]) -> tuple[Entity, ...]:
    return tuple(dict.fromkeys(found))
