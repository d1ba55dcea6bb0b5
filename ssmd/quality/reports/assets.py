"""Style sheets and pictures of the pages, named by their content: an old page keeps those it was made for."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ssmd.quality.reports.layout import ASSETS

FOLDER = Path(__file__).parent / "assets"
NAMES = ("report.css", "data-docs.css", "bootstrap.min.css", "icon.svg")
HERE = "here.css"
"""Shows what works only where the pages are served; in a copy it is empty, the gateway has one of its own."""


class Asset(NamedTuple):
    """One file: its key in the bucket of reports, and its bytes."""

    key: str
    content: bytes


@cache
def assets() -> dict[str, Asset]:
    """All of them by their names here."""
    found = {}
    for name in NAMES:
        content = (FOLDER / name).read_bytes()
        stem, _, kind = name.rpartition(".")
        found[name] = Asset(f"{ASSETS}/{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{kind}", content)
    found[HERE] = Asset(f"{ASSETS}/{HERE}", b"/* Served by a gateway, this shows the links to its archive. */\n")
    return found
