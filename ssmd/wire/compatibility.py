"""Can data of one Cap'n Proto schema be read with another? What differs between two, and which of it breaks readers.

A field is found by its number; its name is for people. What grows at the end is compatible in both directions. What a
field's bytes are taken for (type, place, default, union case) must never change.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from ssmd.wire.definitions import Definition, EnumDefinition, Field, StructDefinition, read_definition

Node = TypeVar("Node", StructDefinition, EnumDefinition)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class Difference(msgspec.Struct, frozen=True):
    """One difference: where, of which kind, whether it breaks a reader of the other version, and a sentence.

    Kinds: added, removed, renamed, retyped, renumbered, moved, default, union, enumerant, id.
    """

    path: str
    kind: str
    breaking: bool
    sentence: str


def compare(old: str, new: str) -> list[Difference]:
    """What differs from the schema text `old` to `new`; [] when they lay down the same. ConfigError for a bad text."""
    return differences(read_definition(old, "the old schema"), read_definition(new, "the new schema"))


def differences(old: Definition, new: Definition) -> list[Difference]:
    """What differs between two definitions: the file, then structs, then enums, each in the order of its numbers."""
    found: list[Difference] = []
    new_file = old.id != new.id
    if new_file:
        sentence = f"the file's id changed from {old.id} to {new.id}, and with it the ids of its structs"
        found.append(Difference("", "id", True, sentence))
    structs = _paired("struct", old.structs, new.structs, found, new_file=new_file)
    enums = _paired("enum", old.enums, new.enums, found, new_file=new_file)
    names = {before.path: after.path for before, after in structs}
    names |= {before.path: after.path for before, after in enums}
    for before, after in structs:
        found += _struct_differences(before, after, names)
    for enum, other in enums:
        found += _enum_differences(enum, other)
    return found


def _paired(
    what: str, old: Sequence[Node], new: Sequence[Node], found: list[Difference], *, new_file: bool
) -> list[tuple[Node, Node]]:
    """What is the same thing in both: by its name, else by its id. The rest goes to `found`, and what became of ids."""
    by_path = {node.path: node for node in new}
    by_id = {node.id: node for node in new if node.path not in {n.path for n in old}}
    pairs: list[tuple[Node, Node]] = []
    for node in old:
        other = by_path.get(node.path)
        if other is None and (other := by_id.get(node.id)) is not None:
            sentence = f"{what} {node.path} is now called {other.path}"
            found.append(Difference(other.path, "renamed", False, sentence))
        if other is None:
            found.append(Difference(node.path, "removed", True, f"{what} {node.path} was removed"))
            continue
        if other.path == node.path and other.id != node.id and not new_file:
            sentence = f"the id of {what} {node.path} changed from {node.id} to {other.id}"
            found.append(Difference(node.path, "id", True, sentence))
        pairs.append((node, other))
    kept = {other.path for _, other in pairs}
    found += [
        Difference(n.path, "added", False, f"{what} {n.path} was added") for n in new if n.path not in kept
    ]  # fmt: skip
    return pairs


def _struct_differences(old: StructDefinition, new: StructDefinition, names: Mapping[str, str]) -> list[Difference]:
    found = []
    for group in sorted(old.unions.keys() & new.unions.keys()):
        if old.unions[group] != new.unions[group]:
            where = f"{new.path}.{group}" if group else new.path
            sentence = f"the union in {where} keeps its case at another place"
            found.append(Difference(where, "moved", True, sentence))
    was = {field.path: field for field in old.fields}
    by_number = {field.number: field for field in new.fields}
    paths = {field.path: field for field in new.fields}
    for field in sorted(old.fields, key=lambda f: f.number):
        where = f"{new.path}.{field.path}"
        same_name, same_number = paths.get(field.path), by_number.get(field.number)
        if same_name is not None:
            if same_name.number != field.number:
                sentence = f"field {where} has the number @{same_name.number} in place of @{field.number}"
                found.append(Difference(where, "renumbered", True, sentence))
            found += _field_differences(where, field, same_name, names, renumbered=same_name.number != field.number)
        elif same_number is not None and same_number.path not in was:
            now = f"{new.path}.{same_number.path}"
            changed = _field_differences(now, field, same_number, names, renumbered=False)
            if changed:
                sentence = f"field {where} @{field.number} was removed; {now} is another field under its number"
                found.append(Difference(where, "removed", True, sentence))
            else:
                sentence = f"field {where} @{field.number} is now called {same_number.path}; the bytes are the same"
                found.append(Difference(now, "renamed", False, sentence))
            found += changed
        else:
            found.append(Difference(where, "removed", True, f"field {where} @{field.number} was removed"))
    numbers = {field.number for field in old.fields}
    for field in sorted(new.fields, key=lambda f: f.number):
        if field.path not in was and field.number not in numbers:
            where = f"{new.path}.{field.path}"
            sentence = f"field {where} @{field.number} :{field.type} was added at the end"
            found.append(Difference(where, "added", False, sentence))
    return found


def _field_differences(
    where: str, old: Field, new: Field, names: Mapping[str, str], *, renumbered: bool
) -> list[Difference]:
    """What became of one field's meaning; a field with another number lies elsewhere, which need not be said twice."""
    found = []
    if _renamed(old.type, names) != new.type:
        found.append(
            Difference(where, "retyped", True, f"field {where} changed its type from {old.type} to {new.type}")
        )
    elif old.slot != new.slot and not renumbered:
        sentence = f"field {where} moved to another place (slot {old.slot} to {new.slot})"
        found.append(Difference(where, "moved", True, sentence))
    if old.default != new.default and _renamed(old.type, names) == new.type:
        sentence = f"field {where} changed its default from {_short(old.default)} to {_short(new.default)}"
        found.append(Difference(where, "default", True, sentence))
    if old.cases != new.cases:
        if len(old.cases) < len(new.cases):
            sentence = f"field {where} moved into a union"
        elif len(old.cases) > len(new.cases):
            sentence = f"field {where} moved out of a union"
        else:
            sentence = f"field {where} is another case of its union"
        found.append(Difference(where, "union", True, sentence))
    return found


def _enum_differences(old: EnumDefinition, new: EnumDefinition) -> list[Difference]:
    found = []
    for number, value in enumerate(old.values):
        where = f"{new.path}.{value}"
        now = new.values[number] if number < len(new.values) else None
        if now == value:
            continue
        if value in new.values:
            other = new.values.index(value)
            sentence = f"enumerant {where} has the number @{other} in place of @{number}"
            found.append(Difference(where, "renumbered", True, sentence))
        elif now is None or now in old.values:
            found.append(Difference(where, "removed", True, f"enumerant {where} @{number} was removed"))
        else:
            sentence = f"enumerant {where} @{number} changed to {now}"
            found.append(Difference(where, "enumerant", True, sentence))
    for number, value in list(enumerate(new.values))[len(old.values) :]:
        if value not in old.values:
            where = f"{new.path}.{value}"
            found.append(Difference(where, "added", False, f"enumerant {where} @{number} was added at the end"))
    return found


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """A type of the old schema with the names that its structs and enums have in the new one."""
    return _WORD.sub(lambda word: names.get(word[0], word[0]), text)


def _short(value: str) -> str:
    text = "".join(letter if letter.isprintable() else "·" for letter in value)
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
