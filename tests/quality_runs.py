"""Quality runs for tests of their reports: calm days, bad days, and days whose every text is hostile."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from ssmd.quality.outcome import ExpectationOutcome, QualityRun, Sample, Severity, State, SuiteOutcome

FEED = "kalshi"
DAY = date(2026, 11, 22)
BUCKET = "ssmd-reports"
RAW_KEY = "kalshi/2026/11/22/trades-00.jsonl.zst"
GAP_KEY = "kalshi/2026/11/22/_gaps/1763820131000000000-c-1.json"

HOSTILE = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '"><svg onload="window.ran = 1">',
    "javascript:window.ran=1",
    '</title></table><iframe srcdoc="<script>parent.ran=1</script>">',
    "{{constructor.constructor('window.ran=1')()}} {% raw %} ${x} $$y $PARAMETER",
    "<a href='javascript:window.ran=1' autofocus onfocus='window.ran=1'>x</a>",
    "[x](javascript:window.ran=1) ![y](http://127.0.0.2/y.png) `z` **b** # h",
    "<style>@import 'http://127.0.0.2/x.css';</style><link rel=stylesheet href=//127.0.0.2/y>",
    "\u202egnp.exe\x1b[31m\x00\u2066 \ue000\ue001 \\ue000 \\ue004",
    "&lt;b&gt; &#60;script&#62; -->",
]


def expectation(
    meaning: str = "A price lies between 0 and 1", state: State = "passed", severity: Severity = "critical", **more: Any
) -> ExpectationOutcome:
    """One expectation about prices."""
    fields: dict[str, Any] = {"column": "price", "kwargs": {"column": "price", "min_value": 0}, "rows": 48_211} | more
    return ExpectationOutcome(
        type="expect_column_values_to_be_between", meaning=meaning, severity=severity, state=state, **fields
    )


def suite(name: str, *outcomes: ExpectationOutcome, title: str = "", **more: Any) -> SuiteOutcome:
    """A suite that ran."""
    fields: dict[str, Any] = {"ran": True, "rows": 48_211, "duration_s": 1.25} | more
    return SuiteOutcome(suite=name, title=title or name.title(), outcomes=list(outcomes), **fields)


def silent(name: str, why_not: str = "there is no such data") -> SuiteOutcome:
    """A suite that did not run."""
    return SuiteOutcome(suite=name, title=name.title(), ran=False, why_not=why_not)


def run(day: date = DAY, *suites: SuiteOutcome, feed: str = FEED, score: float | None = 0.995) -> QualityRun:
    """The run of a day, made the night after."""
    after = day + timedelta(days=1)
    return QualityRun(
        feed=feed, day=day, started=f"{after}T00:41:02Z", finished=f"{after}T00:43:12Z", suites=list(suites),
        score=score,
    )  # fmt: skip


def calm(day: date = DAY, **more: Any) -> QualityRun:
    """A day on which everything passed."""
    return run(day, suite("trades", expectation()), suite("quotes", expectation(), expectation()), **more)


def bad(day: date = DAY, texts: Sequence[str] = ("KXBTCD-26NOV22-T95000", "KXETH-26NOV22-T3000")) -> QualityRun:
    """A day with a failure, a warning, an error, a note, something not asked, and a suite that did not run."""
    samples = [
        Sample(values={"ticker": text, "price": "1.5", text: text}, raw_key=RAW_KEY, gap_key=GAP_KEY if n % 2 else "")
        for n, text in enumerate(texts)
    ]
    failed = expectation(
        f"Prices lie between 0 and 1 {texts[0]}", "failed", unexpected=12, observed=texts[-1], message=texts[0],
        samples=samples, kwargs={"column": texts[0], "value_set": list(texts)}, column=texts[0],
    )  # fmt: skip
    return run(
        day,
        suite(
            "trades", expectation("Ids are unique"), failed,
            expectation("Trades are young", "failed", "warning", unexpected=3),
            expectation("Prices are whole ticks", "failed", "info"),
            expectation("Numbers rise", "error", message=f"KeyError: {texts[0]}"),
            expectation("Sizes are above zero", "not_run", message="there are no rows"),
            title=f"Trades {texts[0]}", document=document(texts),
        ),
        suite("quotes", expectation()),
        silent("orderbook", f"compaction has not run {texts[0]}"),
    )  # fmt: skip


def document(texts: Sequence[str]) -> dict[str, Any]:
    """A validation result as Great Expectations writes it, with these texts wherever an exchange's could stand."""
    first = texts[0]
    counts = [{"value": text, "count": 5} for text in texts]
    result = {
        "element_count": 20, "unexpected_count": 10, "unexpected_percent": 50.0, "partial_unexpected_list": [*texts],
        "missing_count": 0, "missing_percent": 0.0, "unexpected_percent_total": 50.0,
        "unexpected_percent_nonmissing": 50.0, "partial_unexpected_counts": counts, "observed_value": first,
    }  # fmt: skip
    error = {"exception_traceback": f"File /secret/place {first}", "exception_message": first, "raised_exception": True}

    def answer(kind: str, kwargs: dict[str, Any], *, raised: bool = False) -> dict[str, Any]:
        info = {"metric": error} if raised else {"raised_exception": False, "exception_traceback": None,
                                                 "exception_message": None}  # fmt: skip
        config = {"type": kind, "kwargs": kwargs, "meta": {"notes": {"format": "markdown", "content": [*texts]}},
                  "id": first, "severity": "critical"}  # fmt: skip
        return {"success": False, "expectation_config": config, "result": {} if raised else result, "meta": {},
                "exception_info": info}  # fmt: skip

    results = [answer("expect_column_values_to_be_in_set", {"column": text, "value_set": [*texts]}) for text in texts]
    results += [
        answer("expect_column_values_to_match_regex", {"column": "ticker", "regex": "".join(texts)}),
        answer("expect_column_values_to_be_between", {"column": first, "min_value": 0}, raised=True),
        answer("expect_compound_columns_to_be_unique", {"column_list": [*texts]}),
        answer("expect_something_of_our_own", {"column": "ticker", first: first}),
        answer("expect_table_row_count_to_be_between", {"min_value": 1}),
    ]
    return {
        "success": False, "results": results, "suite_name": f"trades {first}", "suite_parameters": {first: first},
        "statistics": {"evaluated_expectations": len(results), "successful_expectations": 0,
                       "unsuccessful_expectations": len(results), "success_percent": 0.0},
        "meta": {"great_expectations_version": "1.24.1", "batch_spec": {first: first, "batch_data": first},
                 "batch_markers": {"ge_load_time": first}, "active_batch_definition": {"data_asset_name": first}},
        "id": None,
    }  # fmt: skip
