"""Great Expectations' own Data Docs of a suite, made by its renderers; nothing in them runs or asks another machine.

Its templates put text into HTML without escaping it, and load scripts and styles from elsewhere. So the texts are
made inert before they go in, the frame of the page is ours, and what comes out is sanitized.
"""

import logging
import os
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader

from ssmd.errors import ConfigError
from ssmd.quality.reports.sanitizing import sanitized
from ssmd.quality.reports.texts import WORD, enliven, inert

TEMPLATES = Path(__file__).parent / "data_docs_templates"
_LEFT_OUT = frozenset(("unexpected_index_list", "unexpected_list", "unexpected_index_query"))
"""Parts of a result that are for machines, or too long for a page."""

_TRACEBACK = "Left out: it tells the paths of the machine that ran it."


def data_docs(document: dict[str, Any]) -> str:
    """The page's content as HTML; `document` is an `ExpectationSuiteValidationResult` as JSON.

    Takes seconds the first time, for the import. ConfigError when Great Expectations is not installed.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    try:
        from great_expectations.core.expectation_validation_result import (
            ExpectationSuiteValidationResult,
            expectationSuiteValidationResultSchema,
        )
        from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
        from great_expectations.render.view.view import DefaultJinjaPageView
    except ImportError as error:
        raise ConfigError(
            f"Great Expectations cannot be imported ({error})", "Run: pip install 'ssmd[quality]'"
        ) from error
    loaded = expectationSuiteValidationResultSchema.load(_showable(document))
    result = ExpectationSuiteValidationResult(**loaded) if isinstance(loaded, dict) else loaded
    view: Any = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([FileSystemLoader(TEMPLATES), view.env.loader])
    return sanitized(enliven(view.render(ValidationResultsPageRenderer().render(result))))


def _showable(document: dict[str, Any]) -> dict[str, Any]:
    """The document with inert texts; the types of expectations are left alone, their renderers are found by them."""
    shown: dict[str, Any] = inert({name: part for name, part in document.items() if name != "results"})
    shown["results"] = [_result(result) for result in document.get("results", ())]
    return shown


def _result(result: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = inert(_without(result))
    config = result.get("expectation_config")
    if isinstance(config, dict):
        for name in ("type", "severity"):
            word = str(config.get(name))
            if WORD.fullmatch(word):
                shown["expectation_config"][name] = word
    return shown


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _TRACEBACK if name == "exception_traceback" else _without(part)
            for name, part in value.items()
            if name not in _LEFT_OUT
        }
    return [_without(part) for part in value] if isinstance(value, list) else value
