"""What an environment decides: which markets, which paths; the shipped files and their page are current."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ssmd.config import reference
from ssmd.config.environment import Channel, Connector, Environment, Symbols
from ssmd.config.loading import load
from ssmd.config.paths import below, located, ssmd_home
from ssmd.market.events import EVENT_TYPES
from ssmd.resources import resource

SHIPPED = sorted(resource("environments").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_loads(path: Path) -> None:
    assert isinstance(load(path), Environment)


def test_the_three_documented_files_are_shipped() -> None:
    assert [path.name for path in SHIPPED] == ["kalshi.yaml", "local.yaml", "test.yaml"]


def test_the_local_environment_stays_on_this_machine_and_below_ssmd_home() -> None:
    spec = load(resource("environments") / "local.yaml").spec
    assert spec.endpoints is None
    assert spec.database_url is not None
    addresses = [spec.database_url, spec.gateway.host, spec.middleware.transport.model_dump()["url"]]
    assert all("127.0.0.1" in address for address in addresses)
    assert not Path(spec.middleware.storage.model_dump()["path"]).is_absolute()


def test_the_page_about_environment_files_is_current() -> None:
    written = (resource("environments") / "README.md").read_text()
    assert written == reference.page(), "run: python -m ssmd.config.reference"


def test_every_key_is_explained() -> None:
    sections = dict(reference._sections(Environment, ""))
    unexplained = [
        f"{title}.{name}"
        for title, model in sections.items()
        for name in model.model_fields
        if name not in reference.meanings(model) and name != "type"
    ]
    assert unexplained == []
    assert all(model.__doc__ for model in sections.values())


def test_channels_are_the_event_types_that_an_exchange_sends() -> None:
    assert set(Channel.__args__) == set(EVENT_TYPES) - {"gap"}  # type: ignore[attr-defined]
    assert set(Connector().channels) == set(Channel.__args__)  # type: ignore[attr-defined]


def test_relative_paths_lead_below_ssmd_home(tmp_path: Path) -> None:
    environment = load(resource("environments") / "local.yaml")
    spec = located(environment, tmp_path).spec
    assert spec.middleware.storage.model_dump()["path"] == str(tmp_path / "storage")
    assert spec.connector.spool.path == str(tmp_path / "spool")
    assert below(tmp_path, "/elsewhere") == Path("/elsewhere")
    assert located(located(environment, tmp_path), Path("/other")).spec == spec


def test_ssmd_home_is_the_variable_or_a_folder_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert ssmd_home({"SSMD_HOME": "/srv/ssmd"}) == Path("/srv/ssmd")
    assert ssmd_home({}) == tmp_path / ".ssmd"
    assert ssmd_home({"SSMD_HOME": ""}) == tmp_path / ".ssmd"


@pytest.mark.parametrize(
    ("symbols", "chosen", "left"),
    [
        ({}, ["KXBTC", "a.b"], []),
        ({"include": ["KXBTC*"]}, ["KXBTC", "KXBTC15M-1"], ["KXETH", "kxbtc"]),
        ({"exclude": ["*-T?"]}, ["KXBTC-T10"], ["KXBTC-T1"]),
        (
            {"include": ["KX*"], "exclude": ["KXMVE*"], "tickers": ["KXMVE-1"]},
            ["KXB", "KXMVE-1"],
            ["KXMVE-2"],
        ),
        ({"sync": False, "tickers": ["A"]}, ["A"], ["B"]),
    ],
)
def test_symbols_select_by_pattern_and_ticker(symbols: dict[str, Any], chosen: list[str], left: list[str]) -> None:
    selection = Symbols(**symbols)
    assert [ticker for ticker in chosen + left if selection.selects(ticker)] == chosen


def test_an_environment_cannot_be_changed() -> None:
    environment = load(resource("environments") / "test.yaml")
    with pytest.raises(ValidationError):
        environment.spec.feed = "other"
