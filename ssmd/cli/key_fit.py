"""Are the values of an environment's keys what its feed can use? Asked of the feed's own code."""

from datetime import UTC, datetime

from ssmd.config.environment import Environment
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue
from ssmd.keys.values import ProblemOf, no_problem


def feed_problems(environment: Environment) -> ProblemOf:
    """Why a value cannot be used, for the key that signs the feed's requests: the `api_key` named like the feed."""
    from ssmd.feeds.catalogue import open_feed

    feed = environment.spec.feed
    definition = environment.spec.keys.get(feed)
    if definition is None or definition.type != "api_key":
        return no_problem
    try:
        parts = open_feed(feed, datetime.now(UTC).date())
    except ConfigError:  # a feed that this version cannot capture; `env validate` has a line about that
        return no_problem

    def problem_of(key: str, field: str, value: SecretValue) -> str:
        return parts.secret_problem(field, value.reveal()) if key == feed else ""

    return problem_of
