"""`ssmd schema`: the layouts of normalized data, compared before a new one is registered."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ssmd.cli.opening import database_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_fields, show_json, show_rows, talk
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssmd.registry.schemas import SchemaVersion
    from ssmd.wire.compatibility import Difference

app = App(name="schema", help="Layouts of normalized data, compared before a new one is registered.")
_COLUMNS = {
    "name": "NAME", "version": "VERSION", "format": "FORMAT", "status": "STATUS", "effective_from": "FROM",
    "reads": "READS", "hash": "SHA256",
}  # fmt: skip
_USED = {"name": "NAME", "version": "VERSION", "status": "STATUS", "records": "RECORDS", "recorded": "RECORDED"}


@app.command
def register(
    file: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    effective_from: date | None = None,
    status: str | None = None,
    breaking_changes: str | None = None,
    env: EnvFile = None,
    json: Json = False,
) -> int:
    """Register a Cap'n Proto file. A change that breaks readers of the version before is refused unless it is said.

    Parameters
    ----------
    file
        One schema, with nothing imported.
    name
        Default: the file's name without its ending.
    version
        v1, v2, ...; default: the next one. A registered version never changes.
    effective_from
        First day of data in it; default: today.
    status
        draft, active or deprecated.
    breaking_changes
        What a reader of the version before has to do.
    """
    from ssmd.registry.schemas import SchemaCatalogue

    name = _stem(file) if name is None else name
    text = _read(file)
    with database_of(choose(env)) as database:
        done = SchemaCatalogue(database).register(
            name, text, version=version, effective_from=effective_from or datetime.now(UTC).date(), status=status,
            breaking_changes=breaking_changes,
        )  # fmt: skip
    schema = done.schema
    if json:
        show_json(_answer(schema) | {"new": done.is_new, "differences": done.differences})
        return EXIT_DONE
    for difference in done.differences:
        talk(f"  {_mark(difference)} {difference.sentence}")
    said = "registered" if done.is_new else f"is registered, {schema.status}"
    mark_line(GOOD, f"{schema.name}:{schema.version}", f"{said} (sha256 {schema.hash[:12]}…)")
    return EXIT_DONE


@app.command(name="list")
def list_schemas(*, env: EnvFile = None, json: Json = False) -> int:
    """List all versions of all schemas."""
    from ssmd.registry.schemas import SchemaCatalogue

    with database_of(choose(env)) as database:
        schemas = SchemaCatalogue(database).list()
    rows = [_answer(schema) for schema in schemas]
    if not json:
        rows = [row | {"hash": row["hash"][:12], "reads": ", ".join(row["compatible_with"])} for row in rows]
    show_rows(rows, _COLUMNS, as_json=json, empty="no schema is registered; to add the built-in ones: ssmd db migrate")
    return EXIT_DONE


@app.command
def show(
    name: str,
    *,
    version: str | None = None,
    text: Annotated[bool, Parameter(negative=())] = False,
    env: EnvFile = None,
    json: Json = False,
) -> int:
    """Show one version of a schema; default: the latest active one.

    Parameters
    ----------
    text
        Only the registered text, byte for byte.
    """
    from ssmd.registry.schemas import SchemaCatalogue

    with database_of(choose(env)) as database:
        schema = SchemaCatalogue(database).show(name, version)
    if json:
        show_json(_answer(schema) | {"text": schema.text})
    elif text:
        print(schema.text, end="")
    else:
        show_fields(
            {
                "Name": schema.name, "Version": schema.version, "Format": schema.format, "Status": schema.status,
                "Effective From": schema.effective_from, "Deprecated": schema.deprecated_at,
                "Compatible With": ", ".join(schema.compatible_with) or "-", "SHA256": schema.hash,
            }
        )  # fmt: skip
        if schema.breaking_changes:
            print("Breaking Changes:", *schema.breaking_changes.splitlines(), sep="\n  ")
        print("", schema.text, sep="\n", end="")
    return EXIT_DONE


@app.command
def compat(
    name: str,
    *,
    from_version: Annotated[str, Parameter(name="--from")],
    to: str | None = None,
    file: Path | None = None,
    env: Annotated[Path | None, Parameter(name="--env", help="Environment file.")] = None,
    json: Json = False,
) -> int:
    """Compare two versions of a schema: every difference, and whether it breaks readers. Exit code 6 when one does.

    Parameters
    ----------
    from_version
        The version that readers have.
    to
        The version that data is written in.
    file
        A file in place of --to, to ask before it is registered.
    """
    from ssmd.registry.schemas import SchemaCatalogue
    from ssmd.wire.compatibility import differences
    from ssmd.wire.definitions import read_definition

    if (to is None) == (file is None):
        raise ConfigError("compare with what?", "Give --to VERSION, or --file FILE.")
    with database_of(choose(env)) as database:
        catalogue = SchemaCatalogue(database)
        old = catalogue.show(name, from_version)
        new = _read(file) if file is not None else catalogue.show(name, to).text
    target = to if file is None else file.name
    found = differences(
        read_definition(old.text, f"{name} {old.version}"), read_definition(new, f"{name} {str(target)[:80]!r}")
    )  # fmt: skip
    breaking = sum(difference.breaking for difference in found)
    if json:
        show_json({"name": name, "from": old.version, "to": target, "compatible": not breaking, "differences": found})
    else:
        _show_comparison(f"{name} {old.version} → {str(target)[:80]}", found, breaking)
    return EXIT_FINDINGS if breaking else EXIT_DONE


@app.command
def used(*, feed: Feed = None, date: date, env: EnvFile = None, json: Json = False) -> int:
    """Show in which schemas a feed's normalized data of a day is written.

    Without data of that day: the versions that hold on it by their dates.

    Parameters
    ----------
    date
        UTC day.
    """
    from ssmd.registry.schemas import SchemaCatalogue

    chosen = choose(env)
    with database_of(chosen) as database:
        schemas = SchemaCatalogue(database).used(chosen.feed(feed), date)
    if schemas and not schemas[0].recorded and not json:
        talk(f"no normalized data of {date} is recorded; these versions hold by their dates")
    rows = [
        {"name": s.name, "version": s.version, "status": s.status, "hash": s.hash, "records": s.records,
         "recorded": s.recorded}
        for s in schemas
    ]  # fmt: skip
    show_rows(rows, _USED, as_json=json, empty=f"no schema held on {date}")
    return EXIT_DONE


def _show_comparison(what: str, found: "Sequence[Difference]", breaking: int) -> None:
    print(what)
    for difference in found:
        print(f"  {_mark(difference)} {difference.sentence}")
    if breaking:
        print(f"Breaking: {breaking} of {len(found)} differences break readers.")
    else:
        print("Compatible." if found else "Compatible: they lay down the same.")


def _mark(difference: "Difference") -> str:
    if difference.breaking:
        return BAD
    return GOOD if difference.kind == "added" else WAITING


def _answer(schema: "SchemaVersion") -> dict[str, Any]:
    import msgspec

    fields = msgspec.structs.asdict(schema)
    del fields["text"]
    return fields


def _stem(file: Path) -> str:
    if file.suffix != ".capnp":
        raise ConfigError(
            f"{str(file)[-80:]!r} does not end in .capnp", "Only Cap'n Proto is registered; give --name to insist."
        )  # fmt: skip
    return file.stem


def _read(file: Path) -> str:
    from ssmd.wire.definitions import MAX_BYTES

    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file {str(file)[-80:]!r} is not UTF-8 text", "Give a Cap'n Proto file.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "its name is no name of a file"
        raise ConfigError(f"the file {str(file)[-80:]!r} cannot be read: {reason}", "Give a readable file.") from error
