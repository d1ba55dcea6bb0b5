"""Documents made from the database: remembered for a moment, given old and marked while the database is away."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ssmd.clock import iso, now_ns
from ssmd.errors import DataError, SsmdError
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hot import KEPT_S, Hot, stale_headers
from ssmd.gateway.meta_documents import Remembered
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import Reply
from ssmd.registry.interface import NotKnown, RegistryUnavailable

if TYPE_CHECKING:
    from ssmd.registry.database import Database

RARE_KEPT_S = 60.0
"""Questions that nobody else is likely to ask are not kept for long: there is no end of them."""

Document = TypeVar("Document", bound=Remembered)


class Remembering:
    """Answers of the metadata API. `database` None: the environment has none."""

    def __init__(
        self, database: "Database | None", catalogue: Catalogue, hot: Hot, clock: Callable[[], int] = now_ns
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._hot = hot
        self._clock = clock

    async def answer(
        self,
        question: tuple[object, ...],
        kind: type[Document],
        make: "Callable[[Database], Document]",
        *,
        instead: str,
        rare: bool = False,
    ) -> Reply:
        """The document that `make` makes from the database, in a thread. `question` is all that it depends on.

        ApiProblem 404 for what the registry does not know, with `instead` as the next step; 503 without a database.
        RegistryUnavailable while it is away and nothing is remembered.
        """
        database = self._database
        if database is None:
            detail = "this environment has no metadata database, and what is asked for is only there"
            raise ApiProblem(503, "no_database", detail, "An operator can name one: spec.database.url.")
        name = msgspec.json.encode(question).decode()
        kept_s = RARE_KEPT_S if rare else KEPT_S
        try:
            known = await self._hot.read(
                name, kind, lambda: self._catalogue.ask(lambda: _ask(make, database)), kept_s=kept_s
            )
        except NotKnown as error:
            step = f"Did you mean {error.near}? {instead}" if error.near else instead
            near = [error.near] if error.near else []
            raise ApiProblem(404, "not_known", error.message, step, near=near) from error
        if not known.stale:
            return Reply(known.value, {})
        old = msgspec.structs.replace(known.value, stale=True, as_known=iso(known.at_ns))
        return Reply(old, stale_headers(known.at_ns, self._clock()))


def _ask(make: "Callable[[Database], Document]", database: "Database") -> Document:
    """As services ask: whatever keeps the database from answering passes; only what is asked for can be wrong."""
    try:
        return make(database)
    except (RegistryUnavailable, NotKnown, DataError, ApiProblem):
        raise
    except SsmdError as error:
        raise RegistryUnavailable(error.message, error.hint) from error
