"""Feeds on a real PostgreSQL: as each was on a day, as it was known at a time; nothing is ever deleted."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ssmd.errors import ConfigError, RefusedError
from ssmd.registry import bootstrap as built_in
from ssmd.registry.database import Database
from ssmd.registry.feed_values import FeedFacts
from ssmd.registry.feeds import FeedCatalogue, FeedDescription
from ssmd.registry.postgres import PostgresRegistry, prepare_database
from ssmd.registry.tables import feed_calendars
from tests.databases import Database as Server

pytestmark = pytest.mark.integration
DAY = date(2026, 11, 22)


@pytest.fixture
def feeds(database: Database) -> FeedCatalogue:
    return FeedCatalogue(database)


def facts(version: str = "v1", start: date = DAY, endpoint: str = "wss://a.example/ws", **more: Any) -> FeedFacts:
    return FeedFacts(version=version, effective_from=start, protocol="wss", endpoint=endpoint, **more)


def spans(feeds: FeedCatalogue, name: str, known_at: datetime | None = None) -> list[tuple[str, str, str]]:
    found = feeds.show(name, DAY, known_at).versions
    return [(v.facts.version, str(v.facts.effective_from), str(v.effective_to or "")) for v in found]


def test_the_built_in_feed_is_there_with_its_dated_endpoints_and_calendar(feeds: FeedCatalogue) -> None:
    (listed,) = feeds.list()
    assert (listed.name, listed.status, listed.description) == ("kalshi", "active", "Prediction market")
    before = feeds.show("kalshi", date(2025, 12, 1))
    after = feeds.show("kalshi", DAY)

    assert before.holds is not None
    assert after.holds is not None
    assert before.holds.facts.endpoint == "wss://api.elections.kalshi.com/trade-api/ws/v2"
    assert after.holds.facts.endpoint == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    assert after.holds.facts.required_transport == ("nats", "memory")
    assert after.calendar is not None
    assert after.calendar.pauses == [{"weekday": "thursday", "from": "03:00", "to": "05:00"}]
    assert feeds.show("kalshi", date(2020, 12, 31)).holds is None


def test_a_day_belongs_to_the_version_that_begins_on_it(feeds: FeedCatalogue) -> None:
    last, first = feeds.show("kalshi", date(2026, 5, 6)).holds, feeds.show("kalshi", date(2026, 5, 7)).holds

    assert last is not None
    assert first is not None
    assert (last.facts.version, first.facts.version) == ("v1", "v2")


def test_a_new_feed_is_listed_with_all_that_was_said_of_it(feeds: FeedCatalogue) -> None:
    given = facts(
        rest_endpoint="https://a.example", auth_method="api_key", secret_ref="sealed-secret/a-creds",
        supports_orderbook=True, max_symbols_per_connection=10, rate_limit_per_second=5, parser_config={"a": [1]},
        required_transport=("nats",),
    )  # fmt: skip
    feeds.create("another", FeedDescription("websocket", "Another", "a venue", "disabled"), given)

    view = feeds.show("another", DAY)
    assert view.holds is not None
    assert view.holds.facts == given
    assert (view.display_name, view.description, view.status) == ("Another", "a venue", "disabled")
    assert [f.name for f in feeds.list("active")] == ["kalshi"]
    assert [f.name for f in feeds.list("disabled")] == ["another"]
    assert feeds.show("another", date(2026, 11, 21)).holds is None


def test_what_exists_is_not_created_again(feeds: FeedCatalogue) -> None:
    with pytest.raises(RefusedError, match="exists already"):
        feeds.create("kalshi", FeedDescription(), facts())
    assert len(feeds.show("kalshi", DAY).versions) == 2


def test_a_later_version_ends_the_one_before_it_and_what_was_known_stays(feeds: FeedCatalogue) -> None:
    feeds.create("another", FeedDescription(), facts())
    known = datetime.now(UTC)
    feeds.add_version("another", FeedDescription(), facts("v2", date(2027, 1, 1), "wss://b.example/ws"))

    assert spans(feeds, "another") == [("v1", "2026-11-22", "2027-01-01"), ("v2", "2027-01-01", "")]
    assert spans(feeds, "another", known) == [("v1", "2026-11-22", "")]


@pytest.mark.parametrize(
    ("version", "start"),
    [("v1", date(2027, 1, 1)), ("v2", DAY), ("v2", date(2026, 1, 1))],
    ids=["same name", "same day", "earlier day"],
)
def test_a_version_that_is_not_later_is_refused(feeds: FeedCatalogue, version: str, start: date) -> None:
    feeds.create("another", FeedDescription(), facts())

    with pytest.raises(RefusedError):
        feeds.add_version("another", FeedDescription(description="changed"), facts(version, start))
    assert spans(feeds, "another") == [("v1", "2026-11-22", "")]
    assert feeds.show("another", DAY).description is None


def test_a_correction_replaces_what_is_known_and_moves_its_neighbours_end(feeds: FeedCatalogue) -> None:
    known = datetime.now(UTC)
    old = feeds.show("kalshi", DAY).versions[1].facts
    feeds.replace("kalshi", "v2", FeedDescription(), facts("v2", date(2026, 5, 9), "wss://right.example/ws"))

    assert spans(feeds, "kalshi") == [("v1", "2021-01-01", "2026-05-09"), ("v2", "2026-05-09", "")]
    assert spans(feeds, "kalshi", known) == [("v1", "2021-01-01", "2026-05-07"), ("v2", "2026-05-07", "")]
    before = feeds.show("kalshi", date(2026, 5, 8), known).holds
    after = feeds.show("kalshi", date(2026, 5, 8)).holds
    assert before is not None
    assert after is not None
    assert before.facts == old
    assert (before.known_to, after.facts.version, after.known_to) == (after.known_from, "v1", None)


def test_a_correction_leaves_rows_that_stay_true_alone(feeds: FeedCatalogue) -> None:
    before = feeds.show("kalshi", DAY).versions[0]
    feeds.replace("kalshi", "v2", FeedDescription(), facts("v2", date(2026, 5, 7)))

    assert feeds.show("kalshi", DAY).versions[0] == before


def test_a_correction_needs_its_version_and_a_day_of_its_own(feeds: FeedCatalogue) -> None:
    with pytest.raises(RefusedError, match="no version 'v9'"):
        feeds.replace("kalshi", "v9", FeedDescription(), facts("v9"))
    with pytest.raises(RefusedError, match="both begin on 2021-01-01"):
        feeds.replace("kalshi", "v2", FeedDescription(), facts("v2", date(2021, 1, 1)))
    assert len(feeds.show("kalshi", DAY).versions) == 2


def test_services_see_only_what_is_known_now(feeds: FeedCatalogue, database: Database) -> None:
    feeds.replace("kalshi", "v2", FeedDescription(), facts("v2", date(2026, 5, 7), "wss://right.example/ws"))
    registry = PostgresRegistry(database._engine.url.render_as_string(hide_password=False))

    assert registry.feed_version("kalshi", DAY).ws == "wss://right.example/ws"
    registry.close()


def test_before_a_feed_was_known_is_an_error_that_says_since_when(feeds: FeedCatalogue) -> None:
    with pytest.raises(ConfigError, match="was not known at 2020-01-01") as refused:
        feeds.show("kalshi", DAY, datetime(2020, 1, 1, tzinfo=UTC))
    assert "known since 20" in refused.value.hint


def test_an_unknown_feed_is_an_error_with_a_near_miss(feeds: FeedCatalogue) -> None:
    with pytest.raises(ConfigError, match="'kalshy'") as refused:
        feeds.show("kalshy", DAY)
    assert "'kalshi'" in refused.value.hint
    with pytest.raises(ConfigError):
        feeds.add_version("kalshy", FeedDescription(), facts())


@pytest.mark.parametrize(
    ("name", "description", "bad", "said"),
    [
        ("Big", {}, {}, "cannot be called"),
        ("x" * 33, {}, {}, "cannot be called"),
        ("a; DROP TABLE feeds", {}, {}, "cannot be called"),
        ("ok", {"feed_type": "webscoket"}, {}, "websocket"),
        ("ok", {"feed_type": "rest"}, {}, "not reached by wss"),
        ("ok", {"status": "on"}, {}, "none of active"),
        ("ok", {"description": "x" * 257}, {}, "longer than 256"),
        ("ok", {"display_name": "two\nlines"}, {}, "one line"),
        ("ok", {}, {"protocol": "ftp"}, "protocol"),
        ("ok", {}, {"protocol": "ws"}, "does not begin with ws://"),
        ("ok", {}, {"endpoint": "a.example/ws"}, "does not begin with"),
        ("ok", {}, {"endpoint": "wss://"}, "no host"),
        ("ok", {}, {"endpoint": "wss://[bad/ws"}, "not a URL"),
        ("ok", {}, {"endpoint": "wss://a.example:99999/"}, "not a URL"),
        ("ok", {}, {"endpoint": "wss://a b/"}, "not a URL"),
        ("ok", {}, {"endpoint": "wss://user:hunter2@a.example/"}, "user name"),
        ("ok", {}, {"rest_endpoint": "wss://a.example"}, "https"),
        ("ok", {}, {"auth_method": "apikey", "secret_ref": "sealed-secret/a"}, "api_key"),
        ("ok", {}, {"auth_method": "api_key"}, "needs a secret"),
        ("ok", {}, {"secret_ref": "sealed-secret/a"}, "without authentication"),
        ("ok", {}, {"auth_method": "api_key", "secret_ref": "hunter2"}, "not a reference"),
        ("ok", {}, {"auth_method": "api_key", "secret_ref": "sealed-secret/A_B"}, "not a reference"),
        ("ok", {}, {"required_transport": ("natz",)}, "nats"),
        ("ok", {}, {"max_symbols_per_connection": 0}, "between 1"),
        ("ok", {}, {"rate_limit_per_second": 2**40}, "between 1"),
        ("ok", {}, {"version": "v 1"}, "version"),
    ],
)
def test_what_a_feed_cannot_be_is_refused_before_anything_is_stored(
    feeds: FeedCatalogue, name: str, description: dict[str, str], bad: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"version": "v1", "effective_from": DAY, "protocol": "wss", "endpoint": "wss://a.example"}
    with pytest.raises(ConfigError) as refused:
        feeds.create(name, FeedDescription(**description), FeedFacts(**given | bad))

    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert [listed.name for listed in feeds.list()] == ["kalshi"]


def test_bootstrap_does_not_bring_a_corrected_version_back(
    postgres: Server, database: Database, feeds: FeedCatalogue
) -> None:
    feeds.replace("kalshi", "v2", FeedDescription(description="ours"), facts("v2", date(2026, 5, 9)))
    prepare_database(database._engine.url.render_as_string(hide_password=False))

    assert spans(feeds, "kalshi") == [("v1", "2021-01-01", "2026-05-09"), ("v2", "2026-05-09", "")]
    assert feeds.show("kalshi", DAY).description == "ours"


def test_a_feed_of_an_older_database_gets_its_description(database: Database, feeds: FeedCatalogue) -> None:
    with database.transaction("forget") as connection:
        connection.execute(sa.text("UPDATE feeds SET description = NULL"))
        connection.execute(sa.delete(feed_calendars))
    with database.transaction("bootstrap") as connection:
        built_in.bootstrap(connection)

    assert feeds.show("kalshi", DAY).description == "Prediction market"
    assert feeds.show("kalshi", DAY).calendar is not None
