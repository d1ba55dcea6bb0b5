"""What questions are about: the exchange's categories, underlyings, and the words by which people name them.

Phrases are folded (see `text.fold`); their last word may be plural. A phrase that ends with `?` is an everyday word
as well (`fed`, `gold`): alone among words that mean nothing here, it says nothing.
"""

from typing import NamedTuple

from ssmd.gateway.questions.topic import Topic, split
from ssmd.gateway.questions.topics_events import EVENT_TOPICS
from ssmd.gateway.questions.topics_markets import MARKET_TOPICS
from ssmd.gateway.questions.topics_sports import SPORT_TOPICS


class Category(NamedTuple):
    """A category: the exchange's own name in lower case, what the exchange calls it, and what people do."""

    name: str
    filed_under: tuple[str, ...]
    says: tuple[str, ...]


def _category(name: str, filed_under: str, says: str) -> Category:
    return Category(name, split(filed_under), (name, *split(says)))


CATEGORIES = (
    _category(
        "crypto",
        "Crypto",
        "cryptocurrency, cryptocurrencies, cryptos, digital asset, digital currency, altcoin, coin?, token?",
    ),
    _category(
        "economics",
        "Economics",
        "economy, economic, economic data, economic indicator, macro, macroeconomic, macroeconomics",
    ),
    _category(
        "financials",
        "Financials",
        "financial, finance, financial market, stock market, stock, share price, equity, equities, index, "
        "indices, stock index, stock market index, forex, fx, currency pair, exchange rate",
    ),
    _category(
        "commodities",
        "Commodities",
        "commodity, precious metal, metals, raw material",
    ),
    _category(
        "politics",
        "Politics, Elections",
        "political, politic, politician, government?, policy?, congress, white house",
    ),
    _category(
        "elections",
        "Elections, Politics",
        "election, electoral, vote?, voting, primary election, primaries, midterm, ballot, candidate, nominee",
    ),
    _category(
        "sports",
        "Sports",
        "sport, sporting, sport betting, sports betting",
    ),
    _category(
        "entertainment",
        "Entertainment",
        "culture, pop culture, celebrity, celebrities, movie, film, music, tv show, television, showbiz, streaming",
    ),
    _category(
        "climate and weather",
        "Climate and Weather",
        "climate, weather, meteorology, weather forecast, forecast?",
    ),
    _category(
        "science and technology",
        "Science and Technology",
        "science, technology, tech, scientific, science and tech, tech and science",
    ),
    _category(
        "companies",
        "Companies",
        "company, corporate, corporation, business?, earnings, ceo",
    ),
    _category(
        "health",
        "Health",
        "healthcare, medical, medicine, disease, pandemic, epidemic",
    ),
    _category(
        "world",
        "World",
        "world event, world affairs, geopolitics, geopolitical, international affairs, world politics, world news",
    ),
    _category(
        "transportation",
        "Transportation",
        "transport, aviation",
    ),
    _category(
        "mentions",
        "Mentions",
        "mention market",
    ),
    _category(
        "social",
        "Social",
        "social media",
    ),
)

TOPICS: tuple[Topic, ...] = (*MARKET_TOPICS, *EVENT_TOPICS, *SPORT_TOPICS)
