"""Text from outside: seen, inert in every template, and the same again in the page."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template

from ssmd.quality.reports.sanitizing import sanitized
from ssmd.quality.reports.texts import MOST_ITEMS, enliven, inert, storable, visible
from tests.quality_runs import HOSTILE

ACTIVE = re.compile(r"[<>&\"'`${}]")
ANY = st.text(max_size=200) | st.sampled_from(HOSTILE)


@given(ANY)
def test_inert_text_has_nothing_active_and_comes_back_as_it_looked(text: str) -> None:
    sleeping = inert(text)
    assert not ACTIVE.search(sleeping)
    page = enliven(sleeping)
    assert html.unescape(page) == "\n".join(visible(line) for line in text.split("\n"))
    assert not re.search(r"[<>\"']", page)


@given(ANY)
def test_the_forms_in_which_python_and_json_write_it_are_harmless_too(text: str) -> None:
    for written in (repr([inert(text)]), json.dumps({"x": inert(text)})):
        page = enliven(written)
        assert "<" not in page
        assert ">" not in page


class Seen(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(ANY)
def test_a_template_that_does_not_escape_shows_it_and_runs_nothing(text: str) -> None:
    page = enliven(Template('<p title="{{ x }}">{{ x }}</p>').render(x=inert(text)))
    looks = "\n".join(visible(line) for line in text.split("\n"))
    for seen in (Seen(page), Seen(sanitized(page))):
        assert seen.elements == [("p", [("title", looks)])]
        assert seen.text == looks


@given(ANY)
def test_nothing_invisible_is_left(text: str) -> None:
    assert visible(text).isprintable() or not text.isprintable()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", visible(text))


def test_what_is_too_long_is_cut_and_says_so() -> None:
    assert visible("x" * 700, 10) == "xxxxxxxxxx… (and 690 more characters)"
    assert len(inert("x" * 10**7)) < 20_000
    assert inert(list(range(1_000)))[-1] == f"… and {1_000 - MOST_ITEMS:,} more"
    deep: object = "end"
    for _ in range(5_000):
        deep = [deep]
    assert len(str(inert(deep))) < 100


def test_names_by_which_templates_find_values_stay() -> None:
    assert inert({"unexpected_count": 1, "<b>": {"a b": None}}) == {
        "unexpected_count": 1, inert("<b>"): {"a b": None},
    }  # fmt: skip


@pytest.mark.parametrize("word", ["either_value_is_missing", "expect_column_to_exist", "0"])
def test_words_by_which_renderers_choose_stay(word: str) -> None:
    assert inert([word]) == [word]


def test_lone_surrogates_do_not_keep_a_run_from_being_stored() -> None:
    assert storable({"a\ud800": ["b\udfff", 1, None]}) == {"a?": ["b?", 1, None]}


@pytest.mark.parametrize(
    ("page", "left"),
    [
        ("<p onclick=x() style='a:b' class=c>t</p>", '<p class="c">t</p>'),
        ("a<script>alert(1)</script>b", "ab"),
        ("a<SCRIPT SRC=//x>alert(1)", "a"),
        (
            "<a href='javascript:x'>t</a><a href='//x'>u</a><a href='#here'>v</a>",
            '<a>t</a><a>u</a><a href="#here">v</a>',
        ),
        ("<img src=x onerror=y><b>t", "<b>t</b>"),
        ("<div><p>t</div></p></div>", "<div><p>t</p></div>"),
        ("<svg><style>@import 'x'</style></svg>t", "t"),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ("<!-- c --><!doctype html><?php x ?>t", "t"),
        ("<td class='a' class='b' id='\"><i>'>t</td>", '<td class="a" id="&quot;&gt;&lt;i&gt;">t</td>'),
        ("<base href=//x><meta http-equiv=refresh content='0;//x'><form action=//x><input name=k>t</form>", "t"),
    ],
)
def test_foreign_html_is_reduced_to_what_can_only_be_shown(page: str, left: str) -> None:
    assert sanitized(page) == left
    assert sanitized(left) == left
