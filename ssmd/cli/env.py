"""`ssmd env`: environment files."""

from pathlib import Path

from cyclopts import App

from ssmd.cli.options import Json, environment_file
from ssmd.cli.output import GOOD, mark_line, show_json
from ssmd.config.environment import environment_hash
from ssmd.config.loading import InvalidEnvironment, load
from ssmd.errors import EXIT_CONFIG, EXIT_DONE

app = App(name="env", help="Environment files.")


@app.command
def validate(file: Path | None = None, *, json: Json = False) -> int:
    """Check an environment file: all its problems at once, each with its place. Exit code 2 when there are any."""
    path = environment_file(file)
    try:
        environment = load(path)
    except InvalidEnvironment as error:
        if not json:
            raise
        problems = [{"path": p.path, "line": p.line, "problem": p.text} for p in error.problems]
        show_json({"file": str(path), "valid": False, "problems": problems})
        return EXIT_CONFIG
    if json:
        show_json({"file": str(path), "valid": True, "problems": [], "hash": environment_hash(environment)})
    else:
        mark_line(GOOD, environment.name, f"{path} is a valid environment")
    return EXIT_DONE
