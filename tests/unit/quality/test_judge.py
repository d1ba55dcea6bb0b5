"""Pieces are judged as the whole: counts, verdicts, samples; and what raises or cannot be understood says so."""

import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from ssmd.errors import ConfigError
from ssmd.quality import judge as judging
from ssmd.quality.judge import Judge
from ssmd.quality.suites import Expectation, choose_suites, load_suites


def asked(type_: str, /, severity: str = "critical", **kwargs: Any) -> Expectation:
    return Expectation(type_, "trade", "it holds", severity, kwargs)  # type: ignore[arg-type]


BETWEEN = "expect_column_values_to_be_between"
ASKED = [
    asked(BETWEEN, column="a", min_value=0, max_value=9),
    asked(BETWEEN, column="a", min_value=0, max_value=9, mostly=0.7),
    asked("expect_column_values_to_not_be_null", column="b"),
    asked("expect_column_values_to_be_in_set", column="c", value_set=["x", "y"]),
    asked("expect_table_columns_to_match_set", column_set=["a", "b", "c"]),
    asked("expect_column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b"),
]


def frame(count: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": [n % 13 for n in range(count)],
            "b": [None if n % 17 == 5 else float(n % 7) for n in range(count)],
            "c": ["xyz"[n % 10 // 4] for n in range(count)],
        }
    )


def cut(whole: pd.DataFrame, size: int) -> list[pd.DataFrame]:
    return [whole.iloc[start : start + size] for start in range(0, len(whole), size)]


@pytest.mark.parametrize("size", [1, 7, 39])
def test_pieces_are_judged_as_the_whole(judge: Judge, size: int) -> None:
    whole, rows = judge.frames(ASKED, [frame()])
    pieces, piece_rows = judge.frames(ASKED, cut(frame(), size))

    assert rows == piece_rows == 40
    assert [its.outcome for its in pieces] == [its.outcome for its in whole]
    assert [its.outcome.state for its in whole] == ["failed", "passed", "failed", "failed", "passed", "failed"]
    for one, other in zip(pieces, whole, strict=True):
        assert one.document["success"] == other.document["success"]
        for name in ("element_count", "unexpected_count", "unexpected_percent", "missing_count"):
            assert one.document["result"].get(name) == other.document["result"].get(name)


def test_a_sample_is_the_whole_row_and_there_are_at_most_twenty(judge: Judge) -> None:
    [its], _ = judge.frames([asked(BETWEEN, column="a", max_value=-1)], cut(frame(100), 30))

    assert (its.outcome.unexpected, its.outcome.rows, len(its.outcome.samples)) == (100, 100, 20)
    assert its.outcome.samples[5].values == {"a": "5", "b": "", "c": "y"}


def test_what_raises_is_an_error_that_names_it_and_never_a_pass(judge: Judge) -> None:
    found, _ = judge.frames([asked(BETWEEN, column="nope", min_value=0), ASKED[0]], [frame()])

    assert [its.outcome.state for its in found] == ["error", "failed"]
    assert found[0].outcome.message == 'Error: The column "nope" in BatchData does not exist.'
    assert found[0].document["success"] is False


def test_without_pieces_nothing_was_asked(judge: Judge) -> None:
    found, rows = judge.frames(ASKED, [])

    assert ({its.outcome.state for its in found}, rows) == ({"not_run"}, 0)


@pytest.mark.parametrize(
    "expectation",
    [asked("expect_the_impossible", column="a"), asked(BETWEEN, column="a", min_valu=3), asked(BETWEEN, colum="a")],
)
def test_an_expectation_that_is_none_is_refused(judge: Judge, expectation: Expectation) -> None:
    with pytest.raises(ConfigError, match="does not understand"):
        judge.frames([expectation], [frame()])


def test_nothing_is_told_to_anybody(judge: Judge) -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "False"


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="great_expectations and pyarrow is not installed") as refused:
        judging.require("great_expectations", "pyarrow")
    assert refused.value.hint == "Run: pip install 'ssmd[quality]'"


def hostile() -> pd.DataFrame:
    """A column of every type that pandas, Parquet and PostgreSQL give, each with something that JSON has not."""
    return pd.DataFrame(
        {
            "float": np.array([1.5, np.nan, np.inf, 2]),
            "float32": np.array([1, 2, 3, 4], np.float32),
            "int": np.array([1, 2, 3, 4]),
            "unsigned": np.array([1, 2, 3, 2**64 - 1], np.uint64),
            "decimal": [Decimal("1.1"), None, Decimal("NaN"), Decimal(2)],
            "time": pd.to_datetime([1, 2, 3, None]).tz_localize("UTC"),
            "span": pd.to_timedelta([1, 2, 3, None]),
            "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
            "truth": pd.array([True, None, False, True], dtype="boolean"),
            "text": ["a", None, "", "b"],
            "bytes": [b"\xff", b"a", None, b""],
            "category": pd.Categorical(["a", "b", None, "a"]),
            "day": [date(2026, 1, 1)] * 4,
            "array": [np.array([1, 2]), None, np.array([]), np.array([3.5])],
        }
    )


ASKED_OF_EACH: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_be_in_set", {"value_set": ["zz"]}),
    ("expect_column_values_to_not_be_null", {}),
    ("expect_column_values_to_be_null", {}),
    (BETWEEN, {"min_value": 100, "max_value": 101}),
    ("expect_column_value_lengths_to_equal", {"value": 77}),
    ("expect_column_values_to_be_of_type", {"type_": "odd"}),
    ("expect_column_max_to_be_between", {"max_value": -1}),
    ("expect_column_distinct_values_to_be_in_set", {"value_set": [7]}),
]


def pairs(frame: pd.DataFrame) -> list[Expectation]:
    return [
        asked(type_, column_A=column, column_B=other)
        for type_ in ("expect_column_pair_values_to_be_equal", "expect_column_pair_values_a_to_be_greater_than_b")
        for column in frame
        for other in ("float", "text")
        if column != other
    ]


def test_whatever_the_values_are_what_is_told_of_them_is_json(judge: Judge) -> None:
    """`numpy.float64` in the pairs that are not equal kept a report from being written just when trades were lost."""
    frame = hostile()
    singles = [asked(type_, column=column, **more) for type_, more in ASKED_OF_EACH for column in frame]

    found = [*judge.frames(singles, [frame])[0], *judge.frames(pairs(frame), [frame])[0]]

    assert {"failed", "passed", "error"} >= {its.outcome.state for its in found} > {"failed"}
    for its in found:
        outcome = msgspec.to_builtins(its.outcome)
        for told in (its.document, outcome):
            assert msgspec.json.decode(msgspec.json.encode(told)) == told, its.outcome.type


def test_pairs_that_differ_are_plain_numbers(judge: Judge) -> None:
    frame = pd.DataFrame({"archived": [3.0, 5.0], "listed": [3.0, 6.5]})
    [its], _ = judge.frames(
        [asked("expect_column_pair_values_to_be_equal", column_A="archived", column_B="listed")], [frame]
    )

    assert its.document["result"]["partial_unexpected_list"] == [[5.0, 6.5]]
    assert {type(value) for value in its.document["result"]["partial_unexpected_list"][0]} == {float}
    assert [sample.values for sample in its.outcome.samples] == [{"archived": "5", "listed": "6.5"}]


# -- the suites' own files -------------------------------------------------------------------------------------------


SUITES = load_suites()
ROW_BATCHES = ("trade", "orderbook", "ticker", "status")


def test_the_suites_are_those_of_the_design() -> None:
    assert [suite.name for suite in SUITES] == [
        "drift", "gaps", "orderbook", "quotes", "raw", "security_master", "status", "trades",
    ]  # fmt: skip
    for suite in SUITES:
        assert len({(its.batch, its.type, its.column, str(its.kwargs)) for its in suite.expectations}) == len(
            suite.expectations
        )
        assert all(its.meaning.endswith(".") for its in suite.expectations)


def test_great_expectations_understands_every_expectation(judge: Judge) -> None:
    for suite in SUITES:
        judge.frames(suite.expectations, [pd.DataFrame({"a": []})])


def test_what_is_asked_of_rows_in_pieces_can_be_answered_piece_by_piece(judge: Judge) -> None:
    """Of batches that come in pieces, what is asked of the whole table must be true of each piece alike."""
    for suite in SUITES:
        rows = [its for its in suite.expectations if its.batch in ROW_BATCHES]
        about_tables = {its.type for its in rows if "column_values" not in its.type and "column_value" not in its.type}
        assert about_tables <= {"expect_table_columns_to_match_set"}
        assert "expect_column_values_to_be_unique" not in {its.type for its in rows}


def test_a_suite_is_chosen_by_name_and_a_near_miss_is_told() -> None:
    assert [suite.name for suite in choose_suites(SUITES, ["raw", "gaps", "raw"])] == ["raw", "gaps"]
    assert choose_suites(SUITES, []) == SUITES
    with pytest.raises(ConfigError, match="there is no suite 'trade'") as refused:
        choose_suites(SUITES, ["trade"])
    assert "trades" in refused.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no suite"),
        ('{"name":"other","title":"","expectations":[]}', "is named 'other'"),
        ('{"name":"odd","title":"","expectations":[],"more":1}', "unknown field"),
        (
            '{"name":"odd","title":"","expectations":[{"type":"t","batch":"tarde","meaning":"m","severity":"info"}]}',
            "no batch 'tarde'",
        ),
        (
            '{"name":"odd","title":"","expectations":[{"type":"t","batch":"trade","meaning":"m","severity":"bad"}]}',
            "Invalid enum value",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(ConfigError, match=said) as refused:
        load_suites(tmp_path)
    assert "odd.json" in refused.value.message


def test_what_says_what_to_install_needs_none_of_it() -> None:
    import subprocess
    import sys

    program = (
        "import sys; sys.modules.update(dict.fromkeys(('pandas', 'numpy', 'pyarrow', 'great_expectations')));"
        "import ssmd.quality.judge"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from ssmd.cli.main import build; build(); import ssmd.cli.quality_run, ssmd.cli.data_export;"
        "print(sorted({'great_expectations', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
