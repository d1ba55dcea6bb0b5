"""Writes environments/README.md: every key of an environment file, from the docstrings of the models.

`python -m ssmd.config.reference` writes the page; a test fails when it is not current.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ssmd.config.environment import Environment
from ssmd.resources import resource

_INTRODUCTION = """# Environment files

One file says what an environment is; nothing else configures ssmd. Shipped: `local.yaml` (what `ssmd up` starts when it
is given no file), `kalshi.yaml` (the shape of production), `test.yaml` (everything in memory).

- All problems of a file are reported at once, each with its path and line. Unknown and repeated keys, YAML aliases,
  anchors and tags are problems; so are plain words that YAML would change (`on`, `010`, `10:30`): put them in quotes.
- **Secrets never stand here.** `spec.keys` names them; `$key:name` or `$key:name.field` stands where one is needed.
  `ssmd key set ENVIRONMENT NAME` keeps their values: in encrypted files below `SSMD_HOME` (`SSMD_HOME/keys`), or, where
  the runtime is `kubernetes`, as a SealedSecret manifest that may be committed. Services take them from the first store
  that has them: the environment variables `SSMD_KEY_{NAME}_{FIELD}` (or `…_FILE`, a path), those files, mounted
  Kubernetes Secrets (`/var/run/secrets/ssmd/{name}/{field}`). A changed value is used within 60 s.
- A key counts as set without the fields `tls_cert`, `tls_key`, `tls_ca` (type `transport`), `port` (type `database`),
  `endpoint` and `region` (type `storage`); it needs all its other fields.
- **Relative paths** are meant below `SSMD_HOME` (the environment variable; else `.ssmd/` in the working folder), never
  below the folder that a command happens to be run in.

This page is made by `python -m ssmd.config.reference`.
"""


def page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for title, model in dict(_sections(Environment, "")).items():
        lines.append(f"## {title}\n\n{_first(model.__doc__)}\n")
        lines.append("| key | value | default | meaning |\n|---|---|---|---|")
        said = meanings(model)
        lines += [_row(name, field, said.get(name, "")) for name, field in model.model_fields.items()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """(title, model) of `model` and of everything below it, in the order of the file."""
    yield (f"`{path}`" if path else "The file"), model
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        annotation = field.annotation
        if get_origin(annotation) is dict:
            below += ".{name}"
            annotation = get_args(annotation)[1]
        models = _models(annotation)
        for inner in models:
            yield from ((_title(t, below, inner, len(models)), m) for t, m in _sections(inner, below))


def _title(title: str, path: str, model: type[BaseModel], kinds: int) -> str:
    if kinds > 1 and title == f"`{path}`":
        return f"`{path}` with `type: {get_args(model.model_fields['type'].annotation)[0]}`"
    return title


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field of a model, by field.

    Read here and not by pydantic, which would read the source of every model in every command (0.1 s).
    """
    parsed = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(parsed, ast.ClassDef)
    said = {}
    for field, below in pairwise(parsed.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            said[field.target.id] = str(ast.literal_eval(below.value))
    return said


def _row(name: str, field: FieldInfo, said: str) -> str:
    meaning = _first(said) or ("The kind." if name == "type" else "")
    return f"| `{name}` | {_kind(field.annotation, field)} | {_default(field)} | {meaning} |"


def _kind(annotation: Any, field: FieldInfo) -> str:
    """What a value may be, for people."""
    if get_origin(annotation) is Literal:
        return ", ".join(
            f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in get_args(annotation)
        )
    if _models(annotation) or get_origin(annotation) is dict:
        return "mapping"
    if get_origin(annotation) is tuple:
        return "list"
    plain = [a for a in get_args(annotation) or (annotation,) if a is not type(None)]
    if get_origin(plain[0]) is Annotated:
        plain = [get_args(plain[0])[0]]
    names = {str: "text", int: "whole number", bool: "true or false"}
    bounds = [f"≥ {m.ge}" for m in field.metadata if hasattr(m, "ge")]
    bounds += [f"≤ {m.le}" for m in field.metadata if hasattr(m, "le")]
    return " ".join([names.get(plain[0], str(plain[0])), *bounds])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "computed"
    if field.default is PydanticUndefined:
        return "**required**"
    if field.default is None:
        return "none"
    if isinstance(field.default, BaseModel):
        kind = getattr(field.default, "type", None)
        return f"`{kind}`" if kind else "its defaults"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(field.default)}]`"
    return (
        f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        if field.default != ""
        else '""'
    )


def _first(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    (resource("environments") / "README.md").write_text(page())
