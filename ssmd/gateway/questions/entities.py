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


_LONGEST = max(len(phrase.split()) for phrase in _BY_PHRASE)
_TOKEN = re.compile(r"[\w&](?:[\w&]|[.'](?=\w))*\.?")

PHRASE_WORDS = frozenset(word for phrase in _BY_PHRASE for word in re.findall(r"[a-z]+", phrase))


def find_entities(text: Text) -> Named:
    """The longest names first, used up."""
    sporty = bool(SPORT_WORDS & set(text.whole.split())) or re.search(
        r"\b(?:nfl|nba|mlb|nhl|epl|sports?)\b", text.whole
    )
    wanted: list[Entity] = []
    unwanted: list[Entity] = []
    everyday = True
    tokens = list(_TOKEN.finditer(text.left))
    place = 0
    while place < len(tokens):
        start = tokens[place].start()
        for count in range(min(_LONGEST, len(tokens) - place), 0, -1):
            end = tokens[place + count - 1].end()
            chosen = _choose(_named(text.left[start:end]), bool(sporty), text)
            if chosen is not None:
                break
        else:
            place += 1
            continue
        if text.negated(start):
            unwanted.append(chosen.entity)
            text.exclude(start, end)
        else:
            wanted.append(chosen.entity)
            text.use(start, end)
        everyday = everyday and chosen.everyday
        place += count
    return Named(_unique(wanted), _unique(unwanted), everyday and bool(wanted or unwanted))


def _named(phrase: str) -> list[_Phrase]:
    """What a phrase names; its last word may be plural."""
    for name in (phrase, phrase.removesuffix("."), phrase.removesuffix("s"), phrase.removesuffix("es")):
        if name in _BY_PHRASE:
            return _BY_PHRASE[name]
    return []


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
