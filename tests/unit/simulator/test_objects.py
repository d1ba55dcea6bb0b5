"""Recorded REST bodies: every shape is read, what is no object is passed over, what is no JSON is named."""

import gzip
import json
from pathlib import Path

import pytest

from ssmd.errors import ConfigError
from ssmd.simulator.objects import Objects, read_objects
from tests import tapes
from tests.unit.simulator.listing import EVENTS, MARKETS, SERIES, market

A, B = market("KXA-1-T1", "KXA-1", 1), market("KXA-1-T2", "KXA-1", 2)
EVENT = {"event_ticker": "KXA-1", "series_ticker": "KXA"}


def taken(body: object) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    objects = Objects()
    objects.take(body)
    return dict(objects.series), dict(objects.events), dict(objects.markets)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"markets": [A, B], "cursor": "x"}, ({}, {}, {"KXA-1-T1": A, "KXA-1-T2": B})),
        ({"market": A}, ({}, {}, {"KXA-1-T1": A})),
        ({"events": [EVENT]}, ({}, {"KXA-1": EVENT}, {})),
        ({"event": EVENT, "markets": [A]}, ({}, {"KXA-1": EVENT}, {"KXA-1-T1": A})),
        ({"event": {**EVENT, "markets": [A]}}, ({}, {"KXA-1": EVENT}, {"KXA-1-T1": A})),
        ({"events": [{**EVENT, "markets": [A]}]}, ({}, {"KXA-1": EVENT}, {"KXA-1-T1": A})),
        ({"series": SERIES[0]}, ({"KXA": SERIES[0]}, {}, {})),
        ({"series": SERIES}, ({"KXA": SERIES[0], "KXB": SERIES[1]}, {}, {})),
        ({"_metadata": {"limit": 5}, "response": {"market": A}}, ({}, {}, {"KXA-1-T1": A})),
        ([{"market": A}, {"market": B}], ({}, {}, {"KXA-1-T1": A, "KXA-1-T2": B})),
        ({"market_candlesticks": [[{"end_period_ts": 1}]]}, ({}, {}, {})),
        ({"markets": None, "event": None, "series": [None, 7, {"ticker": ""}, {"title": "x"}]}, ({}, {}, {})),
        (7, ({}, {}, {})),
    ],
    ids=range(13),
)
def test_every_shape_of_body_is_read(body: object, expected: object) -> None:
    assert taken(body) == expected


def test_of_two_recordings_of_a_market_the_one_updated_later_holds() -> None:
    old, new = {**A, "updated_time": "2026-01-01T00:00:00Z"}, {**A, "updated_time": "2026-02-01T00:00:00Z"}

    assert taken([{"market": new}, {"market": old}])[2] == {"KXA-1-T1": new}
    assert taken([{"market": old}, {"market": new}])[2] == {"KXA-1-T1": new}


def test_folders_and_compressed_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.json.gz").write_bytes(gzip.compress(json.dumps({"markets": MARKETS}).encode()))
    (tmp_path / "deep" / "b.json").write_text(json.dumps({"events": EVENTS}))
    (tmp_path / "deep" / "cutoff.json").write_text('{"market_settled_ts":"2026-07-27T00:00:00Z"}')
    (tmp_path / "deep" / "readme.md").write_text("no JSON")
    named = tmp_path / "series.gz"
    named.write_bytes(gzip.compress(json.dumps({"series": SERIES}).encode()))

    objects = read_objects([tmp_path / "deep", named])

    assert (len(objects.markets), len(objects.events), len(objects.series)) == (6, 6, 2)
    assert objects.markets["KXA-1-T1"] == MARKETS[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "cannot read recorded objects from .*objects.json"),
        (b"\xff", "cannot read recorded objects from .*objects.json"),
        (b"[" * 100_000, "cannot read recorded objects from .*objects.json"),
        (gzip.compress(b"{}" * 500, mtime=0)[:30], "cannot read recorded objects from .*objects.json"),
        (b'{"trades":[]}', "there are no markets, events or series in .*objects.json"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "objects.json"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=told):
        read_objects([file])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_objects([tmp_path / "nowhere"])


@pytest.mark.replay
@pytest.mark.parametrize(
    ("folder", "least"),
    [
        (("kalshi_rest_2026-09-25",), (1, 0, 9)),
        (("kalshi_golden_2026-01",), (2, 2, 6)),
        (("kalshi_gold15m", "metadata"), (0, 8, 8)),
    ],
    ids=lambda value: "-".join(str(part) for part in value),
)
def test_real_recordings_are_read_unchanged(folder: tuple[str, ...], least: tuple[int, int, int]) -> None:
    path = tapes.tape(*folder)

    objects = read_objects([path])

    found = len(objects.series), len(objects.events), len(objects.markets)
    assert all(count >= expected for count, expected in zip(found, least, strict=True)), found
    written = "".join(file.read_text() for file in sorted(path.rglob("*.json")))
    for ticker, row in objects.markets.items():
        assert ticker == row["ticker"]
        assert json.dumps(ticker) in written
