"""A database of another program on the stack's PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ssmd.errors import ConfigError, Unavailable
from ssmd.registry.neighbour import ensure_database, neighbour_urls
from tests.databases import Database as Server

pytestmark = pytest.mark.integration


def test_it_is_made_once_also_by_several_at_a_time_and_whatever_its_name_is(postgres: Server) -> None:
    url, name = postgres.fresh(), 'air"flow; DROP DATABASE x'

    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: ensure_database(url, name), range(4)))
    ensure_database(url, name)

    engine = sa.create_engine(sa.make_url(url).set(database=name), poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT current_database()")).scalar_one() == name


def test_who_may_not_make_databases_is_told_what_to_do(postgres: Server) -> None:
    url = postgres.fresh()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE plain_reader LOGIN"))
    plain = sa.make_url(url).set(username="plain_reader").render_as_string(hide_password=False)

    with pytest.raises(ConfigError, match="'plain_reader' may not create the database 'airflow_x'"):
        ensure_database(plain, "airflow_x")


def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(Unavailable, match="cannot make the database 'airflow'"):
        ensure_database("postgresql+psycopg2://postgres@127.0.0.1:1/ssmd", "airflow")


def test_both_drivers_get_an_address_in_their_words() -> None:
    url = "postgresql+psycopg2://ops:p%40ss@db.example:5433/ssmd?sslmode=require"

    assert neighbour_urls(url, "airflow") == (
        "postgresql+psycopg2://ops:p%40ss@db.example:5433/airflow?sslmode=require",
        "postgresql+asyncpg://ops:p%40ss@db.example:5433/airflow?ssl=require",
    )
