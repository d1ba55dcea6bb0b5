"""An environment file to an Environment, or one error that names every problem with path, line and way out."""

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ssmd.config import reading
from ssmd.config.environment import Environment
from ssmd.config.reading import Document, Problem, dotted
from ssmd.config.references import reference_problems
from ssmd.config.values import KEY_FIELD, KEY_NAME
from ssmd.errors import ConfigError
from ssmd.nearest import nearest

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping (`name: value` lines)",
    "model_type": "a mapping (`name: value` lines)",
    "model_attributes_type": "a mapping (`name: value` lines)",
}

_NAMES = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a fraction"}

_PATTERNS = {
    r"^[a-z][a-z0-9-]{0,62}$": "must be lower-case letters, digits and '-', begin with a letter, and have at most 63",
    r"^[a-z][a-z0-9-]{0,31}$": "must be lower-case letters, digits and '-', begin with a letter, and have at most 32",
    rf"^{KEY_NAME}$": "must be lower-case letters, digits, '_' and '-', begin with a letter, and have at most 63",
    rf"^{KEY_FIELD}$": "must be lower-case letters, digits and '_', begin with a letter, and have at most 63",
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": "must be lower-case letters, digits and '-' (not at its ends), at most 63",
    r"^[A-Za-z0-9_-]{1,64}$": "must be letters, digits, '_' and '-', at least one and at most 64",
    r"^[a-zA-Z0-9-]{1,64}$": "must be letters, digits and '-', at least one and at most 64",
    r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}$": "must be the name of an image, like registry.example/ssmd:1.0",
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$": "must be words of letters, digits, '_' and '-', with dots between them",
}
"""What the patterns mean, for those whom a regular expression does not tell."""

_LIMITS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "is an empty list; name at least one",
    "too_long": "must name at most {max_length}, and names {actual_length}",
}

_MOVED: dict[str, str] = {
    r"spec\.transport\.stream": "is gone: the stream is always called ssmd-{feed}",
    r"spec\.transport(\..*)": r"moved to spec.middleware.transport\1",
    r"spec\.storage\.(raw|normalized)\.bucket": r"moved to spec.middleware.storage.buckets.\1",
    r"spec\.storage\.(raw|normalized)\.(.*)": r"moved to spec.middleware.storage.\2 (one for both buckets)",
    r"spec\.storage(\..*)": r"moved to spec.middleware.storage\1",
    r"spec\.(cache|journal)(\..*)": r"moved to spec.middleware.\1\2",
    r"spec\.secrets\.(.*)": r"moved to spec.keys.\1 (type, fields; value: ssmd key set, or SSMD_KEY_{NAME}_{FIELD})",
    r"spec\.(transport|storage|cache|journal)": r"moved to spec.middleware.\1",
    r"spec\.secrets": "moved to spec.keys",
    r"spec\.symbols\.filters.*": "is not supported: write ticker patterns in spec.symbols.include",
    r"spec\.connector\.credentials": "is not needed: the feed's key is the one in spec.keys named like the feed",
}
_SHOWN = 120
_FLAT = ("transport", "storage", "secrets", "cache", "journal")


class InvalidEnvironment(ConfigError):
    """The file is not an environment; `problems` holds everything that is wrong with it, in the order of its lines."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.line or 0, p.path))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count}{lines}", "Correct the file; environments/README.md explains every key.")


def load(path: str | Path) -> Environment:
    """The environment in a file. Raises ConfigError when it cannot be read or has problems (all at once)."""
    return loads(read_file(Path(path)), shown(path))


def read_file(path: Path) -> bytes:
    """The bytes of an environment file, at most one more than it may have. ConfigError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(reading.MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"environment file {shown(path)} does not exist", _beside(path)) from error
    except IsADirectoryError as error:
        raise ConfigError(f"environment file {shown(path)} is a folder", _beside(path / "x")) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL, or characters that no file name can have
        why = error.strerror if isinstance(error, OSError) and error.strerror else "that is no name of a file"
        raise ConfigError(f"environment file {shown(path)} cannot be read: {why}", "Give a readable file.") from error


def shown(path: str | Path) -> str:
    """A path as errors show it: printable, its end when it is long."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(path))
    return text if len(text) <= _SHOWN else "…" + text[-_SHOWN:]


def _beside(path: Path) -> str:
    """What to do when there is no such file: the nearest one beside it, or all that are."""
    names = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    guess = nearest(path.name, names)
    if guess:
        return f"Did you mean {shown(path.parent / guess)}?"
    if names:
        return f"In {shown(path.parent)}: {', '.join(names[:10])}"
    return "Give the path of a file, as in environments/."


def loads(raw: bytes, source: str = "environment") -> Environment:
    """The environment in the bytes of a file; `source` names it in errors. Raises ConfigError as `load` does."""
    document = reading.read(raw)
    problems = list(document.problems)
    if not isinstance(document.data, dict):
        if not problems:
            problems.append(Problem("", 1, "the file is not a mapping; begin with `apiVersion: ssmd/v1`"))
        raise InvalidEnvironment(source, problems)
    moved = list(_moved(document))
    environment = None
    try:
        environment = Environment.model_validate(document.data)
    except ValidationError as error:
        problems += _model_problems(error, document, flat=bool(moved))
    problems += moved + reference_problems(document)
    if problems or environment is None:
        raise InvalidEnvironment(source, problems)
    return environment


def _moved(document: Document) -> Iterator[Problem]:
    """Where the keys of older shapes are now."""
    spec = document.data.get("spec")
    if not isinstance(spec, dict):
        return
    old: list[tuple[tuple[str, ...], Any]] = [(("spec", name), spec[name]) for name in _FLAT if name in spec]
    for name, key in (("symbols", "filters"), ("connector", "credentials")):
        section = spec.get(name)
        if isinstance(section, dict) and key in section:
            old.append((("spec", name, key), None))
    for path, value in old:
        for leaf in _leaves(path, value):
            text = dotted(leaf)
            for pattern, advice in _MOVED.items():
                match = re.fullmatch(pattern, text, re.DOTALL)
                if match:
                    yield Problem(text, document.line_of(leaf), match.expand(advice))
                    break


def _leaves(path: tuple[str | int, ...], value: Any) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield path


def _model_problems(error: ValidationError, document: Document, flat: bool) -> Iterator[Problem]:
    """What pydantic found, in the words of the file."""
    for found in error.errors(include_url=False):
        kind = found["type"]
        path = _file_path(found["loc"], document.data)
        if kind.startswith("union_tag"):
            path = (*path, "type")
        if kind == "default_factory_not_called" or any(path[: len(b)] == b for b in document.broken):
            continue
        if kind == "extra_forbidden" and _has_moved(path):
            continue
        if flat and kind == "missing" and path in (("spec", "keys"), ("spec", "middleware")):
            continue
        yield Problem(dotted(path), document.line_of(path), _explain(found, path, document))


def _has_moved(path: tuple[str | int, ...]) -> bool:
    return any(re.fullmatch(pattern, dotted(path), re.DOTALL) for pattern in _MOVED)


def _file_path(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """`loc` without the union tags that pydantic puts into it."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif part == "[key]" or not last or not isinstance(data, dict):
            continue
        path.append(part)
    return tuple(path)


def _explain(found: Mapping[str, Any], path: tuple[str | int, ...], document: Document) -> str:
    """What is wrong and what to write. Values are shown only where they cannot be secrets."""
    kind, value, context = found["type"], found.get("input"), found.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known key" + _advice(str(path[-1]), _known_keys(path[:-1], document.data))
    if kind in ("literal_error", "union_tag_invalid", "union_tag_not_found"):
        return _explain_option(kind, value, context, path, document)
    if kind in _EXPECTED:
        return _explain_type(kind, value)
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"]) or f"must match {context['pattern']}"
    return _LIMITS[kind].format_map(context) if kind in _LIMITS else str(found["msg"])


def _explain_option(kind: str, value: Any, context: Mapping[str, Any], path: Any, document: Document) -> str:
    if kind == "union_tag_not_found":
        return "is missing; one of: " + ", ".join(_kinds(path[:-1]))
    options = re.findall(r"'([^']*)'", context.get("expected_tags") or context.get("expected", ""))
    if kind == "union_tag_invalid":
        if isinstance(value, dict) and value.get("type") is None:
            return f"is empty; one of: {', '.join(options)}"
        value = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, str) or len(value) > 40:
        return "must be one of: " + ", ".join(options or [str(context.get("expected"))])
    return f"cannot be {value!r}" + _advice(value, options)


def _explain_type(kind: str, value: Any) -> str:
    if value is None:
        return f"is empty; give {_EXPECTED[kind]}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'must be text; write it in quotes: "{str(value).lower()}"'
    if kind in ("int_type", "bool_type") and isinstance(value, str) and re.fullmatch(r"\d{1,10}|true|false", value):
        return f"must be {_EXPECTED[kind]}; write {value} without quotes"
    return f"must be {_EXPECTED[kind]}, not {_NAMES.get(type(value), type(value).__name__)}"


def _advice(word: str, known: list[str]) -> str:
    guess = nearest(word, known)
    return f"; did you mean {guess!r}?" if guess else f"; known: {', '.join(known)}" if known else ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `A | B | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def _kind_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _annotation(path: tuple[str | int, ...], data: Any) -> Any:
    """The annotation of what stands at `path`."""
    annotation: Any = Environment
    for part in path:
        models = _models(annotation)
        if len(models) > 1:
            kind = data.get("type") if isinstance(data, dict) else None
            models = [model for model in models if _kind_of(model) == kind]
        if models and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            return None
        data = data.get(part) if isinstance(data, dict) else None
    models = _models(annotation)
    if len(models) > 1 and isinstance(data, dict):
        return next((model for model in models if _kind_of(model) == data.get("type")), annotation)
    return annotation


def _known_keys(path: tuple[str | int, ...], data: Any) -> list[str]:
    return [name for model in _models(_annotation(path, data))[:1] for name in model.model_fields]


def _kinds(path: tuple[str | int, ...]) -> list[str]:
    """The values of `type` at `path`."""
    return [_kind_of(model) for model in _models(_annotation(path, {}))]
