"""Great Expectations' own Data Docs of a suite, made by its renderers; nothing in them runs or asks another machine.

Its templates put text into HTML without escaping it, and load scripts and styles from elsewhere. So the texts are
made inert before they go in, the frame of the page is ours, and what comes out is sanitized.
"""

import copy
import html
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, FileSystemLoader

from ssmd.errors import ConfigError
from ssmd.quality.reports.sanitizing import sanitized
from ssmd.quality.reports.texts import enliven, inert

TEMPLATES = Path(__file__).parent / "data_docs_templates"
_LEFT_OUT = frozenset(("id", "unexpected_index_list", "unexpected_list", "unexpected_index_query"))
"""Parts of a result that are for machines, or too long for a page."""

_TRACEBACK = "Left out: it tells the paths of the machine that ran it."


class DataDocs(NamedTuple):
    """The page's content as HTML, and which of the results it does not have, with the reason."""

    content: str
    left_out: list[str]


def data_docs(document: dict[str, Any]) -> DataDocs:
    """The Data Docs of an `ExpectationSuiteValidationResult` as JSON.

    Takes seconds the first time, for the import. ConfigError when Great Expectations is not installed. What else is
    raised comes from its renderers, which know some results less well than others: those are left out one by one.
    """
    render = _renderer()
    shown = _showable(document)
    try:
        return DataDocs(render(shown), [])
    except Exception:  # noqa: BLE001 which result it is, it does not say
        kept, left_out = [], []
        for result in shown["results"]:
            try:
                render(shown | {"results": [result]})
                kept.append(result)
            except Exception as error:  # noqa: BLE001
                kind = (result.get("expectation_config") or {}).get("type")
                left_out.append(f"{html.unescape(enliven(str(kind)))}: {type(error).__name__}")
        return DataDocs(render(shown | {"results": kept}), left_out)


def _renderer() -> Callable[[dict[str, Any]], str]:
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
    view: Any = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([FileSystemLoader(TEMPLATES), view.env.loader])

    def render(shown: dict[str, Any]) -> str:
        loaded = expectationSuiteValidationResultSchema.load(copy.deepcopy(shown))
        result = ExpectationSuiteValidationResult(**loaded) if isinstance(loaded, dict) else loaded
        return sanitized(enliven(view.render(ValidationResultsPageRenderer().render(result))))

    return render


def _showable(document: dict[str, Any]) -> dict[str, Any]:
    """The document with inert texts, and nothing that is for machines."""
    shown: dict[str, Any] = inert({name: part for name, part in document.items() if name not in ("results", "id")})
    return shown | {"results": [inert(_without(result)) for result in document.get("results", ())]}


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _TRACEBACK if name == "exception_traceback" else _without(part)
            for name, part in value.items()
            if name not in _LEFT_OUT
        }
    return [_without(part) for part in value] if isinstance(value, list) else value
