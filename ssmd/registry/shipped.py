"""What comes with ssmd and belongs into the registry: the schemas of schemas/ and the environments of environments/."""

import hashlib
from datetime import date

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from ssmd.config.loading import loads
from ssmd.errors import ConfigError
from ssmd.registry.environments import PROGRAM, add_version
from ssmd.registry.tables import environments, schema_versions
from ssmd.resources import resource

SCHEMA_VERSION = "v1"

_log = structlog.get_logger()


def add_schemas(connection: sa.Connection, effective_from: date) -> None:
    """Register each shipped schema as v1. What is registered stays; that it differs from what was shipped is logged."""
    for path in sorted(resource("schemas").glob("*.capnp")):
        text = path.read_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = {
            "name": path.stem,
            "version": SCHEMA_VERSION,
            "format": "capnp",
            "schema_definition": text,
            "schema_hash": digest,
            "status": "active",
            "effective_from": effective_from,
        }
        connection.execute(insert(schema_versions).values(row).on_conflict_do_nothing())
        v = schema_versions.c
        query = sa.select(v.schema_hash).where(v.name == path.stem, v.version == SCHEMA_VERSION)
        registered = connection.execute(query).scalar_one()
        if registered != digest:
            _log.warning(
                "registered schema differs from the shipped one",
                schema=f"{path.stem}:{SCHEMA_VERSION}", registered=registered[:12], shipped=digest[:12], file=str(path),
            )  # fmt: skip


def add_environments(connection: sa.Connection) -> None:
    """Register each shipped environment that is unknown, as version 1 that nobody deployed, with its keys."""
    for path in sorted(resource("environments").glob("*.y*ml")):
        raw = path.read_bytes()
        try:
            environment = loads(raw, str(path))
        except ConfigError as error:  # somebody is editing it; the others are good all the same
            _log.warning("environment file not registered", file=str(path), error=error.message.splitlines()[0])
            continue
        row = {"name": environment.name, "description": _first_comment(raw.decode())}
        statement = insert(environments).values(row).on_conflict_do_nothing().returning(environments.c.id)
        environment_id = connection.execute(statement).scalar_one_or_none()
        if environment_id is not None:
            add_version(connection, environment_id, environment, 1, by=PROGRAM)


def _first_comment(text: str) -> str | None:
    """What the first line of the file says of it, when that is a comment."""
    first = text.lstrip().partition("\n")[0]
    return first.removeprefix("#").strip().removesuffix(".") or None if first.startswith("#") else None
