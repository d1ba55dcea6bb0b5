"""The columns that tables have in common, and the metadata they all belong to."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData()

TIMESTAMP = sa.TIMESTAMP(timezone=True)
NOW = sa.text("now()")


def row_id(kind: type[sa.Integer | sa.BigInteger] = sa.BigInteger) -> sa.Column[int]:
    """The number that the database gives each row."""
    return sa.Column("id", kind, sa.Identity(always=True), primary_key=True)


def feed_id() -> sa.Column[int]:
    """The feed that the row belongs to."""
    return sa.Column("feed_id", sa.Integer, sa.ForeignKey("feeds.id"), nullable=False)


def time(name: str) -> sa.Column[object]:
    """A time that is there from the start: when the row was made, unless it says otherwise."""
    return sa.Column(name, TIMESTAMP, nullable=False, server_default=NOW)


def json(name: str, empty: str) -> sa.Column[object]:
    """A JSON value that is `empty` unless it is given."""
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text(f"'{empty}'::jsonb"))


def seconds(name: str, source: str) -> sa.Column[object]:
    """A timestamp that the database makes from nanoseconds."""
    return sa.Column(name, TIMESTAMP, sa.Computed(f"to_timestamp({source} / 1000000000.0)", persisted=True))
