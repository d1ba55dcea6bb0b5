"""What /docs shows: the two descriptions, flattened into tables for its template."""

import json
from typing import Any

from markupsafe import Markup

from ssmd.gateway.openapi import EXAMPLE_TICKER

DEEPEST = 3
ROWS_MOST = 120


def docs_values(openapi: dict[str, Any], asyncapi: dict[str, Any]) -> dict[str, Any]:
    """Groups of operations, and the messages of the stream."""
    schemas = openapi["components"]["schemas"]
    operations: dict[str, list[dict[str, Any]]] = {}
    for path, methods in openapi["paths"].items():
        for verb, operation in methods.items():
            shown = _operation(path, verb, operation, openapi, schemas)
            operations.setdefault(operation["tags"][0], []).append(shown)
    messages = {
        way: [
            _message(asyncapi, reference["$ref"].rpartition("/")[2])
            for reference in asyncapi["operations"][operation]["messages"]
        ]
        for way, operation in (("sent", "ask"), ("received", "tell"))
    }
    return {
        "groups": [tag | {"operations": operations[tag["name"]]} for tag in openapi["tags"]],
        "description": _paragraphs(openapi["info"]["description"]),
        "stream_text": _paragraphs(asyncapi["info"]["description"]),
        **messages,
    }


def _operation(
    path: str, verb: str, operation: dict[str, Any], openapi: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    schema = next((_json_of(answer) for answer in answers), None)
    body = _json_of(operation.get("requestBody", {}))
    return {
        "id": operation["operationId"],
        "path": path,
        "verb": verb,
        "summary": operation["summary"],
        "description": _paragraphs(operation.get("description", "")),
        "scope": operation["x-ssmd-scope"],
        "parameters": [
            {"name": of["name"], "type": type_of(of["schema"]), "text": _parameter_text(of), "depth": 0,
             "required": of["required"]}
            for of in operation["parameters"]
        ],
        "body": fields(body, schemas) if body else [],
        "answer": fields(schema, schemas) if schema else [],
        "statuses": [(status, _resolved(answer, openapi)["description"])
                     for status, answer in operation["responses"].items()],
        "example": _example(path, verb, operation, body, schemas),
    }  # fmt: skip


def _message(asyncapi: dict[str, Any], name: str) -> dict[str, Any]:
    message, schemas = asyncapi["components"]["messages"][name], asyncapi["components"]["schemas"]
    examples = [json.dumps(example["payload"], ensure_ascii=False) for example in message.get("examples", ())]
    return {
        "id": f"stream-{name}",
        "title": name,
        "summary": message["summary"],
        "fields": fields(message["payload"], schemas),
        "example": "\n".join(examples),
    }


def fields(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """A line for each field of a JSON Schema, those of inner objects below it."""
    found: list[dict[str, Any]] = []
    of = _inner(schema, schemas)
    for name, field in of.get("properties", {}).items():
        found.append(
            {"name": name, "type": type_of(field), "text": _text(field, schemas), "depth": depth, "required": False}
        )
        if depth + 1 < DEEPEST and len(found) < ROWS_MOST:
            found += fields(field, schemas, depth + 1)
    return found


def type_of(schema: dict[str, Any]) -> str:
    """A JSON Schema as people say it: `number or null`, `list of TradeRow`."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " | ".join("null" if value is None else str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(option) for option in schema["anyOf"]))
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {type_of(schema['items'])}"
    if kind == "array" and "prefixItems" in schema:
        return f"[{', '.join(type_of(item) for item in schema['prefixItems'])}]"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'])}"
    if kind == "integer" and "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']}–{schema['maximum']}"
    return str(schema.get("format") or kind)


def _inner(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The object behind references, lists and options."""
    for _ in range(8):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            objects = [option for option in schema["anyOf"] if "$ref" in option or option.get("type") == "array"]
            schema = objects[0] if objects else {}
        elif schema.get("type") == "array":
            schema = schema["items"] if isinstance(schema.get("items"), dict) else {}
        else:
            return schema
    return schema


def _text(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return next((text for option in schema["anyOf"] if (text := _text(option, schemas))), "")
    if "$ref" in schema or isinstance(schema.get("items"), dict):
        return str(_inner(schema, schemas).get("description", "")).replace("\n", " ")
    return ""


def _parameter_text(of: dict[str, Any]) -> str:
    default = of["schema"].get("default")
    return str(of["description"]) + (f" Default: {default}." if default is not None else "")


def _resolved(answer: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in answer:
        return answer
    found: dict[str, Any] = openapi["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def _json_of(of: dict[str, Any]) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = of.get("content", {}).get("application/json", {}).get("schema")
    return schema


def _example(
    path: str, verb: str, operation: dict[str, Any], body: dict[str, Any] | None, schemas: dict[str, Any]
) -> str:
    how = ['-H "Authorization: Bearer $SSMD_API_KEY"'] if operation.get("security") else []
    if verb != "get":
        how.append(f"-X {verb.upper()}")
    if body is not None:
        wanted = {name: type_of(field) for name, field in _inner(body, schemas).get("properties", {}).items()}
        how += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(wanted)}'"]
    asked = "&".join(f"{of['name']}={of['schema']['default']}" for of in operation["parameters"]
                     if of["in"] == "query" and "default" in of["schema"])  # fmt: skip
    address = path.replace("{ticker}", EXAMPLE_TICKER) + (f"?{asked}" if asked else "")
    return " ".join(["curl", "-s", *how, f'"$SSMD_GATEWAY{address}"'])


def prose(text: str) -> Markup:
    """Text whose `words` between backticks are code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _paragraphs(text: str) -> list[str]:
    return [paragraph.replace("\n", " ") for paragraph in text.split("\n\n") if paragraph.strip()]
