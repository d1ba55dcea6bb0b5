"""Who asks: the key behind a request, what it may do, and from which address it comes."""

from typing import Literal, TypeAlias, get_args

import msgspec
from aiohttp import web

Scope: TypeAlias = Literal["read:live", "read:history", "write:feedback", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)


class Caller(msgspec.Struct, frozen=True):
    """A client of the API. `key_id` is "" where keys are not asked for, or none was given."""

    address: str
    key_id: str = ""
    name: str = ""
    scopes: frozenset[Scope] = frozenset()

    def may(self, scope: Scope | None) -> bool:
        """Is it allowed? `admin` alone gives nothing else; None is for everyone."""
        return scope is None or scope in self.scopes


CALLER = web.RequestKey("caller", Caller)
"""Where the door leaves the caller of a request."""
