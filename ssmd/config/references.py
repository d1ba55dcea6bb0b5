"""Every `$key:…` in a file leads to a key that `spec.keys` defines, and no two keys share an environment variable."""

from collections.abc import Iterator
from typing import Any

from ssmd.config.reading import Document, Path, Problem, dotted
from ssmd.config.values import KeyRef
from ssmd.nearest import nearest

_NEEDED = {"transport": ("username", "password"), "journal": ("username", "password"), "cache": ("password",)}
_STORAGE = ("access_key", "secret_key")


def variable(name: str, field: str) -> str:
    """The environment variable that holds a key's field: `SSMD_KEY_KALSHI_API_SECRET`."""
    return f"SSMD_KEY_{name}_{field}".upper().replace("-", "_")


def in_cluster(name: str) -> str:
    """A key's name as Kubernetes takes it (DNS-1123): `kalshi_main_` is `kalshi-main`."""
    return name.replace("_", "-").rstrip("-")


def reference_problems(document: Document) -> list[Problem]:
    """References to keys or fields that are not defined, and keys whose variables or names in a cluster collide."""
    spec = document.data.get("spec")
    keys = spec.get("keys") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not (isinstance(keys, dict) or keys is None):
        return []
    defined = {name: key for name, key in (keys or {}).items() if isinstance(key, dict)}
    problems = list(_collisions(document, defined))
    for path, reference in _references(("spec",), {k: v for k, v in spec.items() if k != "keys"}):
        text = _trouble(path, reference, keys or {}, defined)
        if text:
            problems.append(Problem(dotted(path), document.line_of(path), text))
    return problems


def _references(path: Path, value: Any) -> Iterator[tuple[Path, KeyRef]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _references((*path, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _references((*path, index), inner)
    elif isinstance(value, str):
        try:
            reference = KeyRef.parse(value)
        except ValueError:  # the field's own type reports the spelling
            return
        if reference is not None:
            yield path, reference


def _trouble(path: Path, reference: KeyRef, keys: dict[str, Any], defined: dict[str, Any]) -> str:
    if reference.name not in keys:
        guess = nearest(reference.name, keys)
        advice = f"did you mean $key:{guess}?" if guess else f"define it in spec.keys.{reference.name}"
        return f"refers to the key {reference.name!r}, which spec.keys does not define; {advice}"
    key = defined.get(reference.name, {})
    listed = key.get("fields")
    fields = [field for field in listed if isinstance(field, str)] if isinstance(listed, list) else []
    if not fields:  # reported already
        return ""
    if reference.field is not None and reference.field not in fields:
        guess = nearest(reference.field, fields)
        advice = f"did you mean $key:{reference.name}.{guess}?" if guess else f"its fields are {', '.join(fields)}"
        return f"refers to the field {reference.field!r}, which the key {reference.name!r} does not have; {advice}"
    if path[-1] == "credentials":
        needed = _STORAGE if "storage" in path else _NEEDED.get(str(path[-2]), ())
        missing = [field for field in needed if field not in fields]
        if missing:
            return f"needs a key with {', '.join(needed)}; the key {reference.name!r} lacks {', '.join(missing)}"
        return ""
    if "database" in path and key.get("type") != "database":
        return f"needs a key of type database; {reference.name!r} is of type {key.get('type')}"
    if reference.field is None and key.get("type") != "database" and "url" not in fields and len(fields) > 1:
        return f"must say which field of the key {reference.name!r}: $key:{reference.name}.{fields[0]} or another"
    return ""


def _collisions(document: Document, defined: dict[str, Any]) -> Iterator[Problem]:
    """Two fields that would be read from the same variable (`a-b.c` and `a_b.c`, or `x_file` beside `x`).

    And two keys that would be the same Secret in Kubernetes, or the same folder where it is mounted.
    """
    taken: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, key in defined.items():
        other_name = names.setdefault(in_cluster(str(name)), name)
        if other_name != name:
            path: Path = ("spec", "keys", name)
            text = f"is the Secret {in_cluster(name)!r} in Kubernetes, as the key {other_name!r} is; rename one"
            yield Problem(dotted(path), document.line_of(path), text)
        listed = key.get("fields")
        for field in listed if isinstance(listed, list) else []:
            if not isinstance(field, str):
                continue
            for spelled in (variable(name, field), variable(name, field) + "_FILE"):
                other = taken.setdefault(spelled, f"{name}.{field}")
                if other != f"{name}.{field}":
                    path = ("spec", "keys", name, "fields")
                    text = f"share the variable {spelled} with {other}; rename one"
                    yield Problem(dotted(path), document.line_of(path), text)
                    break  # their …_FILE variables collide as well
