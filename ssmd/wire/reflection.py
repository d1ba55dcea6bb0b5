"""A program: a Cap'n Proto schema file in, its layout as JSON out; run apart, since the compiler aborts on any mistake.

It imports nothing of ssmd, so that a child process starts fast wherever the package lies. What it prints is
`definitions.Definition`: structs with every field that has a number (those of groups too, as `group.field`), and enums.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import capnp

NOT_IN_A_UNION = 0xFFFF
_NAMES = {"uint8": "UInt8", "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64"}


def reflect_file(path: str) -> dict[str, Any]:
    """The layout of the schema in a file. A mistake in the schema ends the process: the library aborts."""
    module = capnp.SchemaParser().load(path, imports=[])
    names: dict[int, str] = {}
    nodes = list(_nested(module.schema, module._nodeProto, "", names))
    return {
        "id": f"@0x{module._nodeProto.id:016x}",
        "structs": [_struct(path, schema, names) for path, schema in nodes if schema.node.which() == "struct"],
        "enums": [_enum(path, schema) for path, schema in nodes if schema.node.which() == "enum"],
    }


def _nested(schema: Any, proto: Any, parent: str, names: dict[int, str]) -> Iterator[tuple[str, Any]]:
    """Every named thing in the file as (path, schema), and into `names` by id: `Outer`, `Outer.Inner`, ..."""
    for nested in proto.nestedNodes:
        path = f"{parent}.{nested.name}" if parent else str(nested.name)
        names[nested.id] = path
        inner = schema.get_nested(nested.name)
        yield path, inner
        yield from _nested(inner, inner.get_proto(), path, names)


def _struct(path: str, schema: Any, names: dict[int, str]) -> dict[str, Any]:
    unions: dict[str, int] = {}
    fields = list(_fields(schema.as_struct(), "", (), names, unions))
    return {"path": path, "id": f"@0x{schema.node.id:016x}", "fields": fields, "unions": unions}


def _fields(
    struct: Any, prefix: str, cases: tuple[int, ...], names: dict[int, str], unions: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The numbered fields of a struct and of its groups; `cases` are the union cases in which the group lies."""
    if struct.node.struct.discriminantCount:
        unions[prefix.rstrip(".")] = struct.node.struct.discriminantOffset
    for field in struct.fields_list:
        proto = field.proto
        case = int(proto.discriminantValue)
        within = cases if case == NOT_IN_A_UNION else (*cases, case)
        if str(proto.which()) == "group":
            yield from _fields(field.schema, f"{prefix}{proto.name}.", within, names, unions)
            continue
        yield {
            "path": f"{prefix}{proto.name}",
            "number": int(proto.ordinal.explicit),
            "type": _type(proto.slot.type, names),
            "slot": int(proto.slot.offset),
            "default": _default(field, proto.slot),
            "cases": within,
        }


def _type(kind: Any, names: dict[int, str]) -> str:
    """A type as the schema writes it; types defined in the file by their path, with what a generic one is bound to."""
    which = str(kind.which())
    if which == "list":
        return f"List({_type(kind.list.elementType, names)})"
    if which in ("struct", "enum", "interface"):
        named = getattr(kind, which)
        scopes = list(named.brand.scopes)
        bound = f" of {' '.join(str(scope) for scope in scopes)}" if scopes else ""
        return " ".join(f"{names.get(named.typeId, hex(named.typeId))}{bound}".split())
    if which == "anyPointer":
        return " ".join(f"AnyPointer {kind.anyPointer}".split())  # a generic's parameter says which
    return _NAMES.get(which, which[0].upper() + which[1:])


def _default(field: Any, slot: Any) -> str:
    """The default as text; "" for types that have none."""
    which = str(slot.type.which())
    if which in ("void", "interface", "anyPointer"):
        return ""
    value = getattr(slot.defaultValue, which)
    if which == "list":
        value = value.as_list(field.schema)
    elif which == "struct":
        value = value.as_struct(field.schema)
    return str(value)


def _enum(path: str, schema: Any) -> dict[str, Any]:
    values = schema.as_enum().enumerants
    ordered = sorted(values, key=lambda name: int(values[name]))
    return {"path": path, "id": f"@0x{schema.node.id:016x}", "values": ordered}


def main() -> None:
    """Reflect the file named on the command line."""
    capnp.remove_import_hook()
    sys.stdout.write(json.dumps(reflect_file(sys.argv[1])))


if __name__ == "__main__":
    main()
