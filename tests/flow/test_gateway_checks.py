"""The gateway says how the checks stand: on /metrics, on /status, and honestly while the database is away."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ssmd.clock import NS_PER_S, day_start_ns, now_ns
from ssmd.gateway import check_watch
from ssmd.gateway.check_watch import CheckWatch
from ssmd.registry.alerts import Alerts
from ssmd.registry.checks import WANTED, CheckRuns
from ssmd.registry.database import Database
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.postgres import PostgresRegistry
from ssmd.telemetry import CHECK_GAUGES, exposition
from tests.databases import Database as Server
from tests.flow.gateway_stage import FEED, running, until
from tests.servers import free_port

pytestmark = pytest.mark.integration

PLACE = "stage"
TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=1)
EARLIER = DAY - timedelta(days=2)
Labels = frozenset[tuple[str, str]]


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.ns = now_ns()

    def __call__(self) -> int:
        return self.ns


class Books:
    """The database that jobs write to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.runs = CheckRuns(self.database)
        self.alerts = Alerts(self.database)
        self.registry = PostgresRegistry(url)

    def archived(self, day: Any) -> None:
        start = day_start_ns(day)
        row = ObjectRecord("ssmd-raw", f"k/{day}", "raw", "trades", day, "0" * 64, 10, 5, start, start + NS_PER_S)
        self.registry.record_objects(FEED, [row])

    def ran(self, check: Any, day: Any, findings: int = 0, state: Any = None, summary: str = "") -> None:
        run = self.runs.start(FEED, check, day)
        state = state or ("findings" if findings else "passed")
        self.runs.finish(run, state, exit_code=6 if findings else 0, findings=findings, summary=summary)


@pytest.fixture
def books(postgres: Server) -> Iterator[Books]:
    made = Books(postgres.fresh())
    yield made
    made.database.close()
    made.registry.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(books: Books, clock: Clock) -> Iterator[CheckWatch]:
    made = CheckWatch(FEED, PLACE, books.database, clock)
    CHECK_GAUGES.follow(made.reading)
    yield made
    CHECK_GAUGES.forget(made.reading)


def scraped() -> dict[tuple[str, str], float]:
    """What Prometheus would read: (name, label values) → value."""
    body, _ = exposition()
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if family.name.startswith(("ssmd_check", "ssmd_alerts", "ssmd_day")):
                found[sample.name, "/".join(sample.labels.values())] = sample.value
    return found


def test_a_check_that_never_ran_is_there_and_as_old_as_the_archive(books: Books, watch: CheckWatch) -> None:
    watch.look()
    said = scraped()
    assert said["ssmd_checks_known", ""] == 1
    assert said["ssmd_check_age_seconds", "verify"] == 0  # nothing is archived yet

    books.archived(EARLIER)
    watch.look()
    said = scraped()
    assert said["ssmd_check_age_seconds", "verify"] > 3 * 86_400
    assert said["ssmd_check_day_age_seconds", "quality"] > 3 * 86_400
    assert said["ssmd_check_ok", "verify"] == 0
    assert said["ssmd_day_status", "missing"] == 1


def test_before_an_archived_day_is_over_no_check_is_well_or_ill(books: Books, watch: CheckWatch) -> None:
    def judged() -> list[float]:
        watch.look()
        said = scraped()
        return [said[name, check] for name in ("ssmd_check_ok", "ssmd_check_findings") for check in WANTED]

    assert all(map(math.isnan, judged()))
    books.archived(TODAY)
    books.ran("verify", TODAY, findings=3)
    books.ran("quality", DAY, state="failed")  # by the schedule, before there was an archive
    assert all(map(math.isnan, judged()))

    books.archived(DAY)
    books.ran("compact", EARLIER)
    assert judged()[:3] == [0, 0, 0]
    books.ran("quality", DAY)
    assert judged()[:3] == [0, 0, 1]


def test_the_latest_day_that_is_over_counts_and_earlier_trouble_is_not_forgotten(
    books: Books, watch: CheckWatch
) -> None:
    books.archived(DAY)
    books.registry.set_day_condition(FEED, DAY, "raw", "partial", 0.97)
    books.ran("verify", EARLIER, findings=4)
    books.ran("verify", DAY, state="failed")
    books.ran("verify", DAY)
    books.ran("quality", DAY, findings=2)
    books.ran("verify", TODAY, findings=9)  # the day goes on: what is found today says nothing yet
    books.ran("secmaster_sync", TODAY)
    watch.look()

    said = scraped()
    assert (said["ssmd_check_ok", "verify"], said["ssmd_check_findings", "verify"]) == (1, 0)
    assert (said["ssmd_check_ok", "quality"], said["ssmd_check_findings", "quality"]) == (0, 2)
    assert said["ssmd_check_days_failing", "verify"] == 2
    assert said["ssmd_check_ok", "compact"] == 0
    assert said["ssmd_check_ok", "secmaster_sync"] == 1
    assert ("ssmd_check_ok", "health") not in said
    assert said["ssmd_check_age_seconds", "verify"] < 60
    assert said["ssmd_check_day_age_seconds", "verify"] < 86_400
    assert (said["ssmd_day_status", "partial"], said["ssmd_day_status", "complete"]) == (1, 0)
    assert said["ssmd_day_quality_score", ""] == 0.97


def test_a_check_that_was_killed_or_failed_did_not_run(books: Books, watch: CheckWatch) -> None:
    books.archived(EARLIER)
    books.runs.start(FEED, "verify", DAY)
    books.ran("compact", DAY, state="failed")
    watch.look()

    said = scraped()
    assert said["ssmd_check_age_seconds", "verify"] > 86_400
    assert said["ssmd_check_age_seconds", "compact"] > 86_400
    assert said["ssmd_check_ok", "compact"] == 0


def test_alerts_are_counted_by_operation_and_state_until_they_are_closed(books: Books, watch: CheckWatch) -> None:
    books.alerts.report(PLACE, "archive_verification", "findings", task="verify", day=DAY)
    books.alerts.report(PLACE, "archive_verification", "findings", task="verify", day=EARLIER)
    books.alerts.report("other-place", "data_quality", "failed")
    watch.look()
    assert scraped()["ssmd_alerts_open", "archive_verification/findings"] == 2
    assert ("ssmd_alerts_open", "data_quality/failed") not in scraped()

    books.alerts.went_well(PLACE, "archive_verification", task="verify", day=DAY)
    books.alerts.went_well(PLACE, "archive_verification", task="verify", day=EARLIER)
    watch.look()
    assert scraped()["ssmd_alerts_open", "archive_verification/findings"] == 0


def test_labels_stay_bounded(books: Books, watch: CheckWatch) -> None:
    for number in range(check_watch.MOST_OPERATIONS + 5):
        books.alerts.report(PLACE, f"dag_{number}", "failed")
    watch.look()

    counts = {labels: value for (name, labels), value in scraped().items() if name == "ssmd_alerts_open"}
    assert len(counts) == check_watch.MOST_OPERATIONS + 1
    assert counts["other/failed"] == 5


def test_without_an_answer_nothing_is_claimed_and_ages_grow(books: Books, watch: CheckWatch, clock: Clock) -> None:
    books.archived(DAY)
    books.ran("verify", DAY)
    books.alerts.report(PLACE, "backfill", "failed")
    watch.look()
    before = scraped()
    assert before["ssmd_check_ok", "verify"] == 1

    clock.ns += 300 * NS_PER_S  # the database is silent: no look has come back since

    said = scraped()
    assert said["ssmd_checks_known", ""] == 0
    assert math.isnan(said["ssmd_check_ok", "verify"])
    assert math.isnan(said["ssmd_day_quality_score", ""])
    assert ("ssmd_alerts_open", "backfill/failed") not in said
    assert said["ssmd_check_age_seconds", "verify"] == pytest.approx(
        before["ssmd_check_age_seconds", "verify"] + 300, abs=1
    )
    assert watch.view(reasons=True) is None


def test_a_database_that_is_away_from_the_start_is_said(clock: Clock) -> None:
    database = Database(f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd")
    watch = CheckWatch(FEED, PLACE, database, clock)
    CHECK_GAUGES.follow(watch.reading)
    try:
        watch.look()
        assert scraped()["ssmd_checks_known", ""] == 0
        assert ("ssmd_check_ok", "verify") not in scraped()
    finally:
        CHECK_GAUGES.forget(watch.reading)
        database.close()
    assert scraped() == {}


async def test_a_running_gateway_looks_by_itself_and_its_page_shows_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_watch, "EVERY_S", 0.05)
    books.archived(DAY)
    books.ran("compact", DAY)
    books.ran("verify", DAY, findings=3, summary="<b>3 findings</b>")
    books.alerts.report(PLACE, "archive_verification", "findings", task="verify", day=DAY, summary="<script>alert(1)")
    async with running(books.registry, database=books.database, environment=PLACE) as stage:
        await until(lambda: scraped().get(("ssmd_check_findings", "verify")) == 3)
        async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/status") as answer:
            page = await answer.text()
        books.ran("verify", DAY)
        await until(lambda: scraped().get(("ssmd_check_ok", "verify")) == 1)

    assert scraped() == {}
    card = page[page.index('id="checks"') :]
    assert str(DAY) in card
    assert "did not run" in card  # quality
    assert "archive_verification" in card
    assert "<script>alert" not in page
    assert "<b>3 findings" not in page
