"""HTML from templates that are not ours, reduced to elements and attributes that can do nothing but be shown."""

import html
import re
from html.parser import HTMLParser

ELEMENTS = frozenset(
    (
        "a", "b", "br", "code", "details", "div", "em", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
        "i", "li", "nav", "ol", "p", "pre", "section", "small", "span", "strong", "summary", "table", "tbody", "td",
        "th", "thead", "tr", "ul",
    )
)  # fmt: skip
VOID = frozenset(("br", "hr"))
SILENT = frozenset(("script", "style", "template", "title", "noscript", "iframe", "object", "svg", "math", "textarea"))
"""Elements that go with everything in them."""
ATTRIBUTES = frozenset(("class", "id", "href", "hidden", "role", "scope", "colspan", "rowspan", "title"))
_HERE = re.compile(r"#[A-Za-z0-9_-]+")


class _Sanitizer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent or tag in SILENT:
            if tag in SILENT:
                self._silent.append(tag)
            return
        if tag not in ELEMENTS:
            return
        self.parts.append(f"<{tag}{_attributes(attrs)}>")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._silent and tag in ELEMENTS:
            self.parts.append(f"<{tag}{_attributes(attrs)}>" + ("" if tag in VOID else f"</{tag}>"))

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag == self._silent[-1]:
                self._silent.pop()
            return
        if tag not in self._open:
            return
        while True:
            last = self._open.pop()
            self.parts.append(f"</{last}>")
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(html.escape(data, quote=False))

    def finish(self) -> str:
        self.close()
        return "".join([*self.parts, *(f"</{tag}>" for tag in reversed(self._open))])


def _attributes(attrs: list[tuple[str, str | None]]) -> str:
    kept = {
        name: value or ""
        for name, value in reversed(attrs)  # of those given twice the first counts, as in a browser
        if (name in ATTRIBUTES or name.startswith("aria-")) and (name != "href" or _HERE.fullmatch(value or ""))
    }
    return "".join(f' {name}="{html.escape(value)}"' for name, value in sorted(kept.items()))


def sanitized(page: str) -> str:
    """`page` with harmless elements and attributes only, well nested; links lead to places on the page itself."""
    sanitizer = _Sanitizer()
    sanitizer.feed(page)
    return sanitizer.finish()
