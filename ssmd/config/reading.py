"""YAML text to plain data with the line of every value; what YAML would quietly change or repeat is a problem.

Only the part of YAML that reads the same to everyone is accepted: no aliases, anchors, tags, merge keys or second
documents, no duplicate keys, and none of the plain words that YAML 1.1 turns into something else (`on`, `010`,
`10:30`).
"""

import re
from typing import Any, NamedTuple

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_VALUES = 20_000

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+][0-9]+)?")

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing wrong in a file: where (`spec.gateway.port`, line from 1) and what to do about it."""

    path: str
    line: int | None
    text: str

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line is not None else ""
        return f"{line}{self.path} {self.text}" if self.path else f"{line}{self.text}"


class Document(NamedTuple):
    """What was read: `data`, the line of every path, the problems, and the paths whose value could not be used."""

    data: Any
    lines: dict[Path, int]
    problems: list[Problem]
    broken: set[Path]

    def line_of(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest mapping around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def dotted(path: Path) -> str:
    """`("spec", "symbols", "include", 0)` as `spec.symbols.include[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Composer(yaml.SafeLoader):
    """Builds the tree of nodes; remembers what is forbidden in it (by node), and does not follow it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.flaws: dict[int, str] = {}
        self.depth = 0
        self.count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        stream: Any = self
        event: Any = stream.peek_event()
        self.count += 1
        if self.count > MAX_VALUES:
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_VALUES} values", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            stream.get_event()
            node: Any = yaml.ScalarNode(_TAG + "null", "")
            node.start_mark = node.end_mark = event.start_mark
            self.flaws[id(node)] = f"is an alias (*{event.anchor}); write the value out"
            return node
        flaw = self._strip(event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if flaw:
            self.flaws[id(node)] = flaw
        return node

    @staticmethod
    def _strip(event: Any) -> str:
        """Remove anchor and tag from an event; say what was removed."""
        flaw = ""
        if event.anchor is not None:
            flaw = f"has an anchor (&{event.anchor}); remove it"
            event.anchor = None
        if event.tag is not None:
            flaw = f"has a tag ({event.tag}); remove it"
            event.tag = None
            if isinstance(event, yaml.ScalarEvent):
                event.implicit = (event.style is None, event.style is not None)
        return flaw


class _Builder:
    """Turns nodes into data and collects problems on the way."""

    def __init__(self, flaws: dict[int, str]) -> None:
        self.flaws = flaws
        self.document = Document(None, {}, [], set())

    def problem(self, path: Path, line: int, text: str) -> None:
        self.document.problems.append(Problem(dotted(path), line, text))
        self.document.broken.add(path)

    def build(self, node: Any, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        if id(node) in self.flaws:
            self.problem(path, line, self.flaws[id(node)])
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        value, trouble = _scalar(node.tag.removeprefix(_TAG), node.value)
        if trouble:
            self.problem(path, line, trouble)
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if id(key_node) in self.flaws:
                self.problem(path, line, f"has a key that {self.flaws[id(key_node)]}")
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(path, line, "has a key that is not a word")
                continue
            key = key_node.value
            if key_node.tag == _TAG + "merge":
                self.problem(path, line, "has a merge key (<<); write the keys out")
            elif key in first:
                self.problem((*path, key), line, f"stands twice (first on line {first[key]}); remove one")
            elif key_node.tag != _TAG + "str":
                self.problem((*path, key), line, f'is not read as a word; write "{key}" in quotes')
            else:
                self.document.lines[(*path, key)] = line
                data[key] = self.build(value_node, (*path, key))
            first.setdefault(key, line)
        return data


def _scalar(tag: str, text: str) -> tuple[Any, str]:
    """(value, trouble) of a plain or quoted scalar that YAML 1.1 resolved to `tag`."""
    if tag in ("str", "value"):
        return text, ""
    if tag == "null":
        return None, ""
    if tag == "bool":
        if text.lower() in ("true", "false"):
            return text.lower() == "true", ""
        meaning = "true" if text.lower() in ("yes", "on") else "false"
        return None, f'is {text} without quotes, which YAML reads as {meaning}; write {meaning}, or "{text}"'
    if tag == "int" and _WHOLE.fullmatch(text) and len(text) <= 20:
        return int(text), ""
    if tag == "float" and _DECIMAL.fullmatch(text) and len(text) <= 40:
        return float(text), ""
    shown = text if len(text) <= 40 else text[:40] + "…"
    if ":" in text and tag in ("int", "float"):
        return None, f'is {shown} without quotes, which YAML reads as a number in base 60; write "{shown}" in quotes'
    if tag == "timestamp":
        return None, f'is {shown} without quotes, which YAML reads as a date; write "{shown}" in quotes'
    return None, f"is {shown} without quotes, a number that not everyone reads alike; write it in decimal or in quotes"


def read(raw: bytes) -> Document:
    """The one document in `raw`. Never raises: what could not be read at all is the only problem, with data None."""
    if len(raw) > MAX_BYTES:
        return _unreadable(None, f"the file is too large; an environment file has at most {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return _unreadable(line, f"the file is not UTF-8 (byte {error.start}); save it as UTF-8")
    try:
        composer = _Composer(text)
        try:
            node = _single(composer)
        finally:
            composer.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = f"the file is not plain YAML: {_explained(error.problem or str(error))}"
        return _unreadable(mark.line + 1 if mark else None, text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _unreadable(line, f"the file holds a character that YAML forbids (U+{ord(text[error.position]):04X})")
    if node is None:
        return _unreadable(None, "the file is empty; begin with `apiVersion: ssmd/v1`")
    builder = _Builder(composer.flaws)
    return builder.document._replace(data=builder.build(node, ()))


def _single(composer: Any) -> Any:
    """The root node of the only document; None when there is none."""
    composer.get_event()
    if composer.check_event(yaml.StreamEndEvent):
        return None
    composer.get_event()
    node = composer.compose_node(None, None)
    composer.get_event()
    if not composer.check_event(yaml.StreamEndEvent):
        mark = composer.get_event().start_mark
        raise yaml.MarkedYAMLError(None, None, "a second document begins; one file holds one environment", mark)
    return node


def _explained(problem: str) -> str:
    return problem + " (indent with spaces, not tabs)" if "'\\t'" in problem else problem


def _unreadable(line: int | None, text: str) -> Document:
    return Document(None, {}, [Problem("", line, text)], set())
