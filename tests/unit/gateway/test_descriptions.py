"""Names of operations, tables of schemas, and how numbers look on pages."""

import pytest

from ssmd.gateway.docs_page import fields, prose, type_of
from ssmd.gateway.openapi import operation_id
from ssmd.gateway.routes import Ask, Route
from ssmd.gateway.status_page import _covered, age, ago, area, count, size, stroke


async def nothing(_ask: Ask) -> None: ...


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/markets", "getMarkets"),
        ("GET", "/v1/markets/{ticker}", "getMarket"),
        ("GET", "/v1/markets/{ticker}/orderbook", "getMarketOrderbook"),
        ("GET", "/v1/meta/inventory", "getMetaInventory"),
        ("GET", "/v1/meta/inventory/{feed}", "getMetaInventory"),
        ("GET", "/v1/meta/inventory/{feed}/{date}", "getMetaInventoryDate"),
        ("GET", "/v1/meta/series/{name:[a-z]+}", "getMetaSeries"),
        ("DELETE", "/v1/admin/clients/{client}", "deleteAdminClient"),
        ("GET", "/openapi.json", "getOpenapi"),
        ("GET", "/", "getIndex"),
    ],
)
def test_operations_have_readable_names(method: str, path: str, name: str) -> None:
    assert operation_id(Route(path, nothing, None, "", method=method)) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.34, "340 ms"), (4.24, "4.2 s"), (9.96, "10 s"), (59.97, "1 min"), (200, "3 min 20 s"),
     (3600, "1 h"), (18_720, "5 h 12 min"), (273_600, "3 d 4 h"), (-1, "0 ms")],
)  # fmt: skip
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_numbers_are_short() -> None:
    assert ago(0.2) == "< 1 s"
    assert [count(n) for n in (0, 0.44, 9.99, 12, 4310, 999_949, 1_234_567)] == [
        "0", "0.4", "10", "12", "4,310", "999,949", "1.2 M",
    ]  # fmt: skip
    assert [size(n) for n in (0, 912, 4_200, 123_456_789, 5e12)] == ["0 B", "912 B", "4.2 kB", "123 MB", "5.0 TB"]


def test_overlapping_spans_count_once() -> None:
    assert _covered([(10, 20), (15, 25), (40, 50), (41, 42)]) == 25
    assert _covered([]) == 0


def test_lines_fill_their_picture() -> None:
    assert stroke([0, 5, 10]) == "M0 38.0L4 20.0L8 2.0"
    assert stroke([0, 0]) == "M0 38.0L4 38.0"
    assert area([0, 1]).endswith("L4 40L0 40Z")


def test_text_between_backticks_is_code_and_all_of_it_escaped() -> None:
    assert prose("`<a>` & <b>") == "<code>&lt;a&gt;</code> &amp; &lt;b&gt;"


def test_schemas_become_lines_of_a_table() -> None:
    schemas = {
        "Row": {"properties": {"price": {"type": "number", "description": "dollars"}}},
        "Page": {"properties": {"rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}}},
    }
    shown = [(row["depth"], row["name"], row["type"], row["text"]) for row in fields({"$ref": "#/x/Page"}, schemas)]
    assert shown == [(0, "rows", "list of Row", ""), (1, "price", "number", "dollars")]
    assert type_of({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string or null"
    assert type_of({"enum": ["a", "b"]}) == "a | b"
    assert type_of({"type": "integer", "minimum": 1, "maximum": 9}) == "1–9"
