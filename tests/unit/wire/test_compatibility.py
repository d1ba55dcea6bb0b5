"""Two schemas compared: what only grows is compatible, what a reader would misread is breaking, and each is named."""

from pathlib import Path

import capnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import ConfigError
from ssmd.resources import resource
from ssmd.wire import definitions
from ssmd.wire.compatibility import compare, differences
from ssmd.wire.definitions import Definition, EnumDefinition, Field, StructDefinition, read_definition

ID = "@0x866dbf7dc3419633;\n"
BASE = """
struct Trade {
  price @0 :Int64;
  size @1 :UInt32 = 7;
  side @2 :Side;
  legs @3 :List(Leg);
  union { none @4 :Void; fee @5 :Int64; }
  venue :group { name @6 :Text = "x"; code @7 :UInt8; }
  enum Side { buy @0; sell @1; }
  struct Leg { ratio @0 :Int16; }
}
"""


def changed(*replacements: tuple[str, str]) -> str:
    """The base schema with something replaced, which must be there."""
    text = BASE
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


def found(new: str, old: str = BASE) -> set[tuple[str, str, bool]]:
    return {(d.path, d.kind, d.breaking) for d in compare(ID + old, ID + new)}


def test_a_schema_is_compatible_with_itself_whatever_its_comments_and_order() -> None:
    assert compare(ID + BASE, ID + BASE) == []
    assert found(changed(("price @0", "# what was paid\n  price @0"))) == set()
    first, second = "  price @0 :Int64;\n", "  size @1 :UInt32 = 7;\n"
    assert found(changed((first + second, second + first))) == set()


@pytest.mark.parametrize(
    ("replacements", "expected"),
    [
        ([("  venue :group", "  tick @8 :Bool;\n  venue :group")], {("Trade.tick", "added", False)}),
        ([("enum Side { buy @0; sell @1; }", "enum Side { buy @0; sell @1; cross @2; }")],
         {("Trade.Side.cross", "added", False)}),
        ([("  enum Side", "  struct New { a @0 :Int8; }\n  enum Side")], {("Trade.New", "added", False)}),
        ([("struct Leg { ratio @0 :Int16; }", "struct Leg { ratio @0 :Int16; side @1 :Side; }")],
         {("Trade.Leg.side", "added", False)}),
        ([("fee @5 :Int64; }", "fee @5 :Int64; tax @8 :Int64; }")], {("Trade.tax", "added", False)}),
        ([("price @0", "paid @0")], {("Trade.paid", "renamed", False)}),
        ([("code @7", "mic @7")], {("Trade.venue.mic", "renamed", False)}),
        ([("price @0 :Int64", "price @0 :Float64")], {("Trade.price", "retyped", True)}),
        ([("price @0 :Int64", "price @0 :UInt64")], {("Trade.price", "retyped", True)}),
        ([("List(Leg)", "List(Int16)")], {("Trade.legs", "retyped", True)}),
        ([("size @1 :UInt32 = 7", "size @1 :UInt32 = 8")], {("Trade.size", "default", True)}),
        ([("size @1 :UInt32 = 7", "size @1 :UInt32")], {("Trade.size", "default", True)}),
        ([('name @6 :Text = "x"', 'name @6 :Text = "y"')], {("Trade.venue.name", "default", True)}),
        ([("ratio @0 :Int16", "ratio @0 :Int32")], {("Trade.Leg.ratio", "retyped", True)}),
        ([("buy @0; sell @1", "buy @0; short @1")], {("Trade.Side.sell", "enumerant", True)}),
        ([("buy @0; sell @1", "buy @0")], {("Trade.Side.sell", "removed", True)}),
        ([("buy @0; sell @1", "sell @0; buy @1")],
         {("Trade.Side.sell", "renumbered", True), ("Trade.Side.buy", "renumbered", True)}),
        ([(" code @7 :UInt8;", "")], {("Trade.venue.code", "removed", True)}),
        ([("name @6 :Text = \"x\";", ""), ("code @7", "code @6")],
         {("Trade.venue.name", "removed", True), ("Trade.venue.code", "renumbered", True)}),
    ],
    ids=lambda value: value[0][1].strip()[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_each_kind_of_change_is_named_and_judged(
    replacements: list[tuple[str, str]], expected: set[tuple[str, str, bool]]
) -> None:
    assert found(changed(*replacements)) == expected


def test_a_change_that_moves_others_names_them_too() -> None:
    swapped = found(changed(("price @0", "price @1"), ("size @1", "size @0")))
    replaced = found(changed(("price @0 :Int64", "cost @0 :Text")))

    assert swapped >= {("Trade.price", "renumbered", True), ("Trade.size", "renumbered", True)}
    assert replaced >= {("Trade.price", "removed", True), ("Trade.cost", "retyped", True)}
    assert ("Trade.size", "moved", True) in replaced  # the bytes that price took are free


def test_moving_a_field_into_or_out_of_a_union_breaks() -> None:
    plain = "struct A { a @0 :Int64; b @1 :Int64; c @2 :Int64; }"
    united = "struct A { a @0 :Int64; union { b @1 :Int64; c @2 :Int64; } }"

    assert ("A.b", "union", True) in found(united, plain)
    assert ("A.b", "union", True) in found(plain, united)
    assert ("A.c", "moved", True) in found(united, plain)  # the cases share their bytes


def test_a_field_that_moves_into_a_group_keeps_its_bytes() -> None:
    assert found("struct A { g :group { a @0 :Int64; } }", "struct A { a @0 :Int64; }") == {("A.g.a", "renamed", False)}


def test_another_id_breaks_and_a_struct_renamed_under_its_id_does_not() -> None:
    with_id = "struct A @0xd0abc13f6c19076d { a @0 :B; } struct B { b @0 :Int8; }"

    assert found(with_id.replace("6d", "6e"), with_id) == {("A", "id", True)}
    assert found(with_id.replace("struct A", "struct C"), with_id) == {("C", "renamed", False)}
    assert found(with_id.replace("struct A @0xd0abc13f6c19076d", "struct C"), with_id) == {
        ("A", "removed", True), ("C", "added", False),
    }  # fmt: skip
    other_file = compare(ID + with_id, ID.replace("33;", "34;") + with_id)
    assert [(d.path, d.kind, d.breaking) for d in other_file] == [("", "id", True)]


def test_a_type_renamed_with_its_id_is_not_a_retyped_field() -> None:
    old = "struct A { a @0 :List(B); } struct B @0xd0abc13f6c19076d { b @0 :Int8; }"

    assert found(old.replace("B", "New"), old) == {("New", "renamed", False)}


def test_sentences_say_what_was_and_what_is() -> None:
    (difference,) = compare(ID + BASE, ID + changed(("price @0 :Int64", "price @0 :Float64")))

    assert difference.sentence == "field Trade.price changed its type from Int64 to Float64"


def test_the_shipped_schemas_are_read_as_their_own_reader_sees_them() -> None:
    shipped = sorted(resource("schemas").glob("*.capnp"))

    for path in shipped:
        definition = read_definition(path.read_text())
        reader = getattr(capnp.SchemaParser().load(str(path)), definition.structs[0].path)
        assert [f.path for f in definition.structs[0].fields] == list(reader.schema.fieldnames)
        assert definition.id == path.read_text().partition(";")[0]
    assert len(shipped) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not declare an ID"),
        ("struct A {}", "does not declare an ID"),
        (ID + "struct A { a @1 :Int8; }", "line 2: Skipped ordinal"),
        (ID + "struct A { a @0 :Nowhere; }", "Nowhere"),
        (ID + "using A = A;\nstruct S { a @0 :A; }", "line"),
        (ID + "struct A @0xd0abc13f6c19076d {} struct B @0xd0abc13f6c19076d {}", "Duplicate ID"),
        (ID + "struct A {" * 20_000 + "}" * 20_000, "cannot be compiled"),
        (ID + "const a :Int32 = " + "(" * 100_000, "schema"),
        (ID + "struct A {}\0", "UTF-8"),
        (ID + "struct \udcff {}", "not UTF-8"),
        (ID + "#" * (1 << 20), "at most"),
        (ID + 'using X = import "/etc/passwd";', "reads another file (import)"),
        (ID + 'const a :Text = embed\n# in between\n"/etc/hostname";', "reads another file (embed)"),
        (ID + "const a :Text = embed `/etc/hostname\n;", "reads another file (embed)"),
        ("\x1b[31m" + ID, "Parse error"),
    ],
    ids=range(15),
)
def test_a_text_that_is_no_schema_is_one_short_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_definition(text, "the schema")
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\x1b" not in str(refused.value)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    read_definition(ID + BASE)
    with pytest.raises(ConfigError):
        read_definition("nonsense")

    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass\n")
    monkeypatch.setattr(definitions, "_PROGRAM", endless)
    monkeypatch.setattr(definitions, "_TIMEOUT_S", 0.2)

    with pytest.raises(ConfigError, match="takes longer"):
        read_definition(ID + BASE)


TYPES = ("Bool", "Int64", "Float64", "Text", "List(Int8)")


@st.composite
def structs(draw: st.DrawFn) -> StructDefinition:
    """A struct with fields numbered from 0, as a compiler would lay it out where only this matters."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6))
    fields = tuple(
        Field(name, number, draw(st.sampled_from(TYPES)), number, draw(st.sampled_from(("0", "1"))), ())
        for number, name in enumerate(names)
    )
    return StructDefinition("S", "@0x1", fields, {})


def definition(struct: StructDefinition, *values: str) -> Definition:
    return Definition("@0xf", (struct,), (EnumDefinition("E", "@0x2", values),))


@given(structs(), structs())
@settings(max_examples=300)
def test_compatible_means_that_every_old_field_is_where_it_was(old: StructDefinition, new: StructDefinition) -> None:
    breaking = any(d.breaking for d in differences(definition(old), definition(new)))
    numbered = {field.number: field for field in new.fields}
    names = {field.path: field.number for field in new.fields}

    def kept(field: Field) -> bool:
        now = numbered.get(field.number)
        if now is None or names.get(field.path, field.number) != field.number:
            return False
        was_another = any(f.path == now.path and f.number != field.number for f in old.fields)
        return (now.type, now.default) == (field.type, field.default) and not was_another

    assert breaking == (not all(kept(field) for field in old.fields))


@given(structs(), st.lists(st.sampled_from(TYPES), max_size=3))
def test_what_only_grows_is_compatible_and_what_shrinks_is_not(old: StructDefinition, more: list[str]) -> None:
    end = len(old.fields)
    grown = tuple(Field(f"new{n}", end + n, kind, end + n, "0", ()) for n, kind in enumerate(more))
    new = StructDefinition("S", "@0x1", old.fields + grown, {})

    there = differences(definition(old, "a"), definition(new, "a", "b"))
    back = differences(definition(new, "a", "b"), definition(old, "a"))

    assert not any(d.breaking for d in there)
    assert len(there) == len(more) + 1
    assert all(d.breaking for d in back)
    assert len(back) == len(more) + 1
