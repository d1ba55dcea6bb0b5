"""Who asks: the key behind a request, what it may do, and from which address it comes."""

import msgspec
from aiohttp import web

from ssmd.registry.client_keys import SCOPES, Scope

__all__ = ["CALLER", "SCOPES", "Caller", "Scope"]


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
