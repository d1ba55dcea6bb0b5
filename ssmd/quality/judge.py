"""Great Expectations, asked quietly: expectations over a batch that comes in pieces, or over a question to PostgreSQL.

An expectation about rows is judged piece by piece; its counts are added up, and whether enough rows are as they should
be (`mostly`) is said of their sum. An expectation about the whole table is judged on the first piece: such batches
come in one piece, except for their columns and types, which all pieces share.

This is the border: whatever type a value has on the other side, outcomes and documents hold only what JSON has.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import msgspec

from ssmd.errors import ConfigError
from ssmd.quality.outcome import MAX_SAMPLES, NOTES, ExpectationOutcome, Sample, State
from ssmd.quality.suites import Expectation

MAX_CELL = 200
_LEFT_OUT = (
    "partial_unexpected_index_list", "partial_unexpected_counts", "unexpected_list", "unexpected_index_list",
    "unexpected_index_query",
)  # fmt: skip
"""What Great Expectations says of one piece only."""
_COUNTS = ("element_count", "unexpected_count", "missing_count")


class Judged(msgspec.Struct):
    """What came of an expectation: the outcome, and Great Expectations' own words for it as JSON."""

    outcome: ExpectationOutcome
    document: dict[str, Any]
    rows: list[dict[str, Any]]
    """The rows behind the outcome's samples, as they stood in the batch."""


def require(*libraries: str) -> None:
    """ConfigError, with what to install, when libraries of the extra `quality` are absent."""
    from importlib.util import find_spec

    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} is not installed", "Run: pip install 'ssmd[quality]'")


def _great_expectations() -> Any:
    """The library, without telemetry and without talk."""
    require("great_expectations", "pyarrow")
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that Python deprecates, on import
        import great_expectations
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("great_expectations."):  # some have a level of their own
            logging.getLogger(name).setLevel(logging.ERROR)
    return great_expectations


class Judge:
    """One context of Great Expectations in memory; nothing of it is written or sent anywhere."""

    def __init__(self) -> None:
        gx = self._gx = _great_expectations()
        from great_expectations.data_context.types.base import ProgressBarsConfig

        with _quiet():
            self._context = gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
            asset = self._context.data_sources.add_pandas("parquet").add_dataframe_asset("rows")
            self._frame = asset.add_batch_definition_whole_dataframe("all")
        self.version = str(gx.__version__)

    def frames(self, expectations: Sequence[Expectation], pieces: Iterable[Any]) -> tuple[list[Judged], int]:
        """Judge a batch that comes as pandas frames of the same columns; and how many rows it had."""
        merged = [_Merged(expectation) for expectation in expectations]
        rows = 0
        for piece in pieces:
            asked = [its for its in merged if its.by_row or not its.judged]
            if asked:
                frame = piece.reset_index(drop=True)
                with _quiet():
                    batch = self._frame.get_batch(batch_parameters={"dataframe": frame})
                for its, result in zip(asked, self._ask(batch, asked), strict=True):
                    its.add(result, frame)
            rows += len(piece)
        return [its.judged_as() for its in merged], rows

    def sql(self, expectations: Sequence[Expectation], url: str, query: str) -> list[Judged]:
        """Judge the answer to a question, in the database: only counts and a few rows come here."""
        merged = [_Merged(expectation) for expectation in expectations]
        with _quiet():
            name = "registry"
            source = self._context.data_sources.add_or_update_sql(name, connection_string=url, create_temp_table=False)
            asset = source.add_query_asset("rows", query)
            batch = asset.add_batch_definition_whole_table("all").get_batch()
        try:
            for its, result in zip(merged, self._ask(batch, merged), strict=True):
                its.add(result, None)
        finally:
            with _quiet():
                engine = source.get_execution_engine()
                engine.close()
                self._context.data_sources.delete(name)
        return [its.judged_as() for its in merged]

    def _ask(self, batch: Any, merged: Sequence["_Merged"]) -> list[dict[str, Any]]:
        """Great Expectations' results in the order of the expectations: it gives them in one of its own."""
        expectations = [
            {
                "type": its.asked.type,
                "kwargs": its.asked.kwargs,
                "severity": its.asked.severity,
                "meta": {"place": place},
            }
            for place, its in enumerate(merged)
        ]
        try:
            suite = self._gx.ExpectationSuite(name="suite", expectations=expectations)
        except Exception as error:
            raise ConfigError(f"Great Expectations does not understand an expectation: {_line(error)}") from error
        # It leaves out, with a word in its log, what it does not know: that must not look like a pass.
        known = {its.meta["place"] for its in suite.expectations}
        for place, its in enumerate(merged):
            if place not in known:
                raise ConfigError(f"Great Expectations does not understand {its.asked.type!r} of {its.asked.column!r}")
        with _quiet():
            # all rows that fail are named only where they are to be added up: such batches are small
            wanted = "COMPLETE" if any(its.asked.counts for its in merged) else "SUMMARY"
            given = batch.validate(
                suite, result_format={"result_format": wanted, "partial_unexpected_count": MAX_SAMPLES}
            )
        by_place = {result.expectation_config.meta["place"]: _as_json(result) for result in given.results}
        return [by_place[place] for place in range(len(merged))]


class _quiet:
    """Great Expectations and pandas warn of each other's old ways; that is no news of the data."""

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings()
        self._catching.__enter__()
        warnings.filterwarnings("ignore", module=r"great_expectations\..*|pandas\..*|marshmallow.*|sqlalchemy.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)

    def __exit__(self, *exc: object) -> None:
        self._catching.__exit__(None, None, None)


class _Merged:
    """One expectation's results over all pieces."""

    def __init__(self, asked: Expectation) -> None:
        self.asked = asked
        self.judged = False
        self.by_row = False
        self._document: dict[str, Any] = {}
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._values: list[Any] = []
        self._rows: list[dict[str, Any]] = []
        self._records = 0
        self._trouble = ""
        self._note = ""
        self._success = True

    def add(self, result: dict[str, Any], frame: Any) -> None:
        """The result of one more piece."""
        found = result.get("result") or {}
        self._trouble = self._trouble or _raised(result)
        if frame is not None:
            self._note = self._note or frame.attrs.get(NOTES, {}).get(self.asked.column, "")
        if not self.judged:
            self._document = result
            self._document["expectation_config"]["meta"] = {"meaning": self.asked.meaning, "batch": self.asked.batch}
            self._document["expectation_config"]["kwargs"].pop("batch_id", None)
        self.judged = True
        self._success = self._success and bool(result["success"])
        self.by_row = "element_count" in found
        if not self.by_row:
            return
        for name in _COUNTS:
            self._counts[name] += found.get(name) or 0
        room = MAX_SAMPLES - len(self._values)
        self._values += (found.get("partial_unexpected_list") or [])[:room]
        if frame is not None and len(self._rows) < MAX_SAMPLES:
            for place in (found.get("partial_unexpected_index_list") or [])[: MAX_SAMPLES - len(self._rows)]:
                self._rows.append(frame.iloc[place].to_dict())
        if frame is not None and self.asked.counts in frame:
            failing = frame[self.asked.counts].iloc[found.get("unexpected_index_list") or []]
            self._records += int(failing.fillna(0).sum())

    def judged_as(self) -> Judged:
        """The outcome over everything."""
        asked, counts = self.asked, self._counts
        nonnull = counts["element_count"] - counts["missing_count"]
        bad = counts["unexpected_count"]
        success = self._success
        if self.by_row:
            success = not nonnull or (nonnull - bad) / nonnull >= float(asked.kwargs.get("mostly", 1.0))
        state: State = "passed" if success else "failed"
        if not self.judged:
            state = "not_run"
        elif self._trouble:
            state = "error"
        rows = self._rows or [{asked.column: value} for value in self._values]
        outcome = ExpectationOutcome(
            type=asked.type,
            meaning=asked.meaning,
            severity=asked.severity,
            state=state,
            kwargs=asked.kwargs,
            column=asked.column,
            rows=counts["element_count"],
            unexpected=bad,
            records=self._records,
            observed=self._observed(nonnull, bad),
            message=self._trouble or (self._note if state == "passed" else ""),
            samples=[] if state == "passed" else [Sample(values=shown(row)) for row in rows],
        )
        return Judged(outcome, self._merged_document(success and not self._trouble, nonnull), rows)

    def _observed(self, nonnull: int, bad: int) -> str:
        if self.by_row:
            stand_for = f" ({self.asked.counts}: {self._records:,})" if self._records else ""
            return f"{bad:,} of {nonnull:,} rows{stand_for}" if bad else f"none of {nonnull:,} rows"
        value = (self._document.get("result") or {}).get("observed_value")
        return "" if value is None else _cell(value)

    def _merged_document(self, success: bool, nonnull: int) -> dict[str, Any]:
        document = self._document
        if not document:
            return {}
        document["success"] = success
        if self.by_row:
            result, elements, bad = document["result"], self._counts["element_count"], self._counts["unexpected_count"]
            result.update(element_count=elements, unexpected_count=bad, partial_unexpected_list=self._values)
            result["unexpected_percent"] = 100 * bad / nonnull if nonnull else None
            if "missing_count" in result:
                missing = self._counts["missing_count"]
                result.update(missing_count=missing, missing_percent=100 * missing / elements if elements else None)
                result["unexpected_percent_nonmissing"] = result["unexpected_percent"]
            result["unexpected_percent_total"] = 100 * bad / elements if elements else None
            for name in _LEFT_OUT:
                result.pop(name, None)
        return document


def _as_json(result: Any) -> dict[str, Any]:
    """A result as JSON. Great Expectations' own way keeps numpy's floats, and raises about types it does not know."""
    from ssmd.quality.plain import plain  # not above: `require` must be there without pandas

    document: dict[str, Any] = plain(
        {
            "success": result.success,
            "expectation_config": result.expectation_config.to_json_dict(),
            "result": result.result,
            "meta": result.meta,
            "exception_info": result.exception_info,
        }
    )
    return document


def _raised(result: dict[str, Any]) -> str:
    """What an expectation raised, as one line; "" when it did not. There are two shapes of it."""
    found = result.get("exception_info") or {}
    for part in [found, *(inner for inner in found.values() if isinstance(inner, dict))]:
        if part.get("raised_exception"):
            return _line(part.get("exception_message") or "raised an exception without a word")
    return ""


def _line(error: object) -> str:
    return " ".join(str(error).split())[:500]


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row's cells as text."""
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> str:
    from ssmd.quality.plain import plain

    simple = plain(value)
    if simple is None:
        return ""
    if isinstance(simple, float):
        return f"{simple:.9g}"
    text = str(value if isinstance(value, date) else simple)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def document_of(suite: str, version: str, judged: Sequence[Judged]) -> dict[str, Any]:
    """Great Expectations' `ExpectationSuiteValidationResult` of a whole suite, as JSON."""
    results = [its.document for its in judged if its.document]
    good = sum(bool(result["success"]) for result in results)
    return {
        "success": good == len(results),
        "suite_name": suite,
        "suite_parameters": {},
        "results": results,
        "statistics": {
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results) if results else None,
        },
        "meta": {"great_expectations_version": version},
    }
