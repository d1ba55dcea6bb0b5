"""Text from an exchange on its way into a page: made visible, cut, and inert in every template."""

import html
import re
import unicodedata
from typing import Any

MOST_CHARS = 600
MOST_ITEMS = 100
DEEPEST = 12
WORD = re.compile(r"[A-Za-z0-9_]{1,64}")

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_ACTIVE = "<>&\"'$`{}[]()*_#!|\\"
"""What may mean something to HTML, to templates or to Markdown."""
_FIRST = 0xE000
_INERT = {ord(letter): chr(_FIRST + n) for n, letter in enumerate(_ACTIVE)}
_STAND_IN = re.compile(rf"[{chr(_FIRST)}-{chr(_FIRST + len(_ACTIVE) - 1)}]|\\ue0([01][0-9a-f])")


def visible(text: str, most: int = MOST_CHARS) -> str:
    """`text` with what nobody would see (controls, direction marks, lone surrogates) spelled out, `most` characters."""
    left_out = len(text) - most
    shown = "".join(
        letter if unicodedata.category(letter) not in _UNSEEN else f"\\u{ord(letter):04x}" for letter in text[:most]
    )
    return shown if left_out <= 0 else f"{shown}… (and {left_out:,} more characters)"


def inert(value: Any, depth: int = 0) -> Any:
    """A JSON value whose texts mean nothing to any template: `enliven` brings back what they looked like.

    For templates that do not escape. A plain word stays what it is, some are looked up by them. Long texts, long lists
    and deep structures are cut.
    """
    if isinstance(value, str):
        if WORD.fullmatch(value):
            return value
        # What stands for something else must not come from outside; `visible` spells it out.
        return "\n".join(visible(line).translate(_INERT) for line in value[: 20 * MOST_CHARS].split("\n"))
    if depth > DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {inert(str(name)): inert(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        cut = [inert(item, depth + 1) for item in value[:MOST_ITEMS]]
        return cut if len(value) <= MOST_ITEMS else [*cut, f"… and {len(value) - MOST_ITEMS:,} more"]
    return value


def enliven(page: str) -> str:
    """HTML made from `inert` values, with entities for what was taken out of them."""
    return _STAND_IN.sub(_entity, page)


def _entity(found: re.Match[str]) -> str:
    number = int(found[1], 16) if found[1] else ord(found[0]) - _FIRST
    return html.escape(_ACTIVE[number]) if number < len(_ACTIVE) else found[0]


def storable(value: Any) -> Any:
    """A JSON value without lone surrogates, which no UTF-8 holds."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {storable(name): storable(item) for name, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, list | tuple) else value
