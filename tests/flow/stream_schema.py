"""/asyncapi.json as the judge of what the gateway really sends, with a validator that knows nothing of ssmd."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from ssmd.gateway.asyncapi import asyncapi


@cache
def document() -> dict[str, Any]:
    """The description of the stream."""
    return asyncapi("kalshi", keys=True)


@cache
def _validators(operation: str) -> dict[tuple[str, str | None], Draft202012Validator]:
    """By (type, code) of messages, or (action, None) of requests."""
    described = document()
    schemas = described["components"]["schemas"]
    found: dict[tuple[str, str | None], Draft202012Validator] = {}
    for reference in described["operations"][operation]["messages"]:
        name = reference["$ref"].rpartition("/")[2]
        payload = described["components"]["messages"][name]["payload"]
        properties = schemas[payload["$ref"].rpartition("/")[2]]["properties"]
        kind = properties.get("type", properties.get("action"))["enum"][0]
        codes = properties.get("code", {}).get("enum") or [None]
        for code in codes:
            assert (kind, code) not in found, name
            found[kind, code] = Draft202012Validator({**payload, "components": described["components"]})
    return found


def check_message(fields: dict[str, Any]) -> None:
    """Is it as /asyncapi.json says? AssertionError that says what is not."""
    _check("tell", fields, str(fields["type"]))


def check_request(fields: dict[str, Any]) -> None:
    """The same of what a client sends."""
    _check("ask", fields, str(fields["action"]))


def _check(operation: str, fields: dict[str, Any], kind: str) -> None:
    validators = _validators(operation)
    validator = validators.get((kind, fields.get("code"))) or validators.get((kind, None))
    assert validator is not None, f"/asyncapi.json does not know {fields}"
    error = next(validator.iter_errors(fields), None)
    assert error is None, f"{fields}: {error.json_path} {error.message}" if error else ""
