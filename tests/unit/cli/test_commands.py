"""Commands on an environment in memory: what they answer and with which exit code."""

import json
from pathlib import Path

import pytest

from ssmd.cli.main import main
from ssmd.registry.interface import Market
from ssmd.registry.memory import MemoryRegistry
from ssmd.resources import resource
from tests.servers import free_port

MEMORY = str(resource("environments") / "test.yaml")


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)


@pytest.mark.parametrize(
    "arguments",
    [["data", "inventory"], ["data", "gaps"], ["market", "list"]],
    ids=" ".join,
)
def test_nothing_is_an_empty_list_and_exit_code_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--env", MEMORY, "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main([*arguments, "--env", MEMORY]) == 0
    assert capsys.readouterr().out == ""


def test_status_of_nothing_is_an_empty_list_and_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 3
    assert capsys.readouterr().out == "[]\n"


def test_down_with_nothing_running_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "-f", MEMORY]) == 0
    assert "nothing is running" in capsys.readouterr().err


def test_the_environment_comes_from_the_variable_when_it_is_not_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSMD_ENV", str(tmp_path / "gone.yaml"))

    assert main(["market", "list"]) == 2
    assert "gone.yaml does not exist" in capsys.readouterr().err


def test_all_problems_of_an_environment_come_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(MEMORY).read_text().replace("feed: kalshi", "feed: KALSHI\n  gatway: {port: 1}"))

    assert main(["env", "validate", str(bad)]) == 2
    err = capsys.readouterr().err
    assert "spec.feed" in err
    assert "gatway" in err
    assert "gateway" in err  # did you mean
    assert main(["env", "validate", str(bad), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert {(check["mark"], check["severity"]) for check in answer} == {("✗", "config")}
    assert {check["path"] for check in answer} >= {"spec.feed", "spec.gatway"}
    assert main(["up", "-f", str(bad)]) == 2


def test_a_migration_needs_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "migrate", "--env", MEMORY]) == 2
    assert "names no database" in capsys.readouterr().err


def known(ticker: str) -> Market:
    return Market(ticker, "EVENT", f"Will {ticker}?", "active", None, None, "", {"yes_bid": 1})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    """The registry that the commands open, filled beforehand."""
    registry = MemoryRegistry()
    registry.upsert_markets("kalshi", [known(f"T-{number:04}") for number in range(1205)])
    monkeypatch.setattr("ssmd.cli.opening.open_registry", lambda *_arguments: registry)
    return registry


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(("limit", "count"), [(3, 3), (1100, 1100), (0, 1205)], ids=["few", "two pages", "all"])
def test_markets_are_listed_page_by_page(limit: int, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["market", "list", "--env", MEMORY, "--limit", str(limit), "--json"]) == 0

    tickers = [market["ticker"] for market in json.loads(capsys.readouterr().out)]
    assert tickers == [f"T-{number:04}" for number in range(count)]


@pytest.mark.usefixtures("registry")
def test_one_market_is_shown_with_everything_the_exchange_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["market", "show", "T-0001", "--env", MEMORY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["raw"] == {"yes_bid": 1}
    assert main(["market", "show", "T-0001", "--env", MEMORY]) == 0
    assert "yes_bid\t1\n" in capsys.readouterr().out


@pytest.mark.usefixtures("registry")
def test_an_unknown_market_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["market", "show", "T-00001", "--env", MEMORY]) == 2
    assert "Did you mean 'T-0" in capsys.readouterr().err


@pytest.mark.usefixtures("registry")
def test_an_unknown_feed_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "gaps", "--env", MEMORY, "--feed", "klashi"]) == 2
    assert "kalshi" in capsys.readouterr().err


def test_today_verifies_before_there_is_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "--env", MEMORY]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert main(["data", "verify", "--env", MEMORY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    assert main(["data", "compact", "--env", MEMORY]) == 2


def test_verification_without_the_database_recounts_the_archive_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / "environments" / "local.yaml").read_text()
    environment = tmp_path / "away.yaml"
    environment.write_text(text.replace("15432", str(free_port())))

    code = main(["data", "verify", "--env", str(environment), "--date", "2026-11-20"])

    said = capsys.readouterr()
    assert code == 7
    assert "rows are not checked" in said.err
    assert "not run: no database" in said.out
