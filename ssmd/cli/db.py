"""`ssmd db`: the metadata database."""

from cyclopts import App

from ssmd.cli.opening import KeySecrets, resolver_of
from ssmd.cli.options import EnvFile, Json, choose
from ssmd.cli.output import show_json, talk
from ssmd.errors import EXIT_DONE, ConfigError

app = App(name="db", help="The metadata database.")
_WAIT_S = 4
"""For a server that does not answer: whoever runs this sees it, and may run it again."""


@app.command
def migrate(*, env: EnvFile = None, json: Json = False) -> int:
    """Create the database and its tables and add the known feeds, whatever of it is missing; safe to repeat."""
    from ssmd.registry.postgres import prepare_database

    chosen = choose(env)
    url = chosen.environment.spec.database_url
    if url is None:
        raise ConfigError(f"{chosen.file} names no database", "Add spec.database.url.")
    prepare_database(KeySecrets(resolver_of(chosen)).text(url), wait_s=_WAIT_S)
    if json:
        show_json({"environment": chosen.environment.name, "migrated": True})
    else:
        talk(f"the database of {chosen.environment.name} is up to date")
    return EXIT_DONE
