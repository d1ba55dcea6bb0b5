"""The root command: what there is, and what an error becomes for the person or the scheduler who called."""

import contextlib
import errno
import gc
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError

from ssmd import __version__
from ssmd.clock import iso, now_ns
from ssmd.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, SsmdError
from ssmd.logs import load_when_needed

EXIT_INTERRUPTED = 130
_MAX_SAID = 300
_CLIENT_KEY = re.compile(r"(ssmd_[0-9A-Fa-f]{8}_)[A-Za-z0-9_-]+")
GC_THRESHOLD = 50_000
"""New objects after which the collector looks for garbage; Python's own 700 is for small programs."""

COMMANDS = (
    ("up", "ssmd.cli.up:up", "Start the whole local stack and watch it; Ctrl-C stops it."),
    ("down", "ssmd.cli.up:down", "Stop what `ssmd up` started, and nothing else."),
    ("status", "ssmd.cli.status:status", "Show what runs and how it is."),
    ("doctor", "ssmd.cli.doctor:doctor", "Check this machine and the environment; each problem with its fix."),
    ("run", "ssmd.cli.run:app", "Run one service in the foreground."),
    ("simulate", "ssmd.cli.simulate:simulate", "Run a simulated exchange that speaks Kalshi's protocol."),
    (
        "connector",
        "ssmd.cli.connector:app",
        "Start a connector for chosen symbols, checked against the registry first.",
    ),
    ("key", "ssmd.cli.key:app", "The secrets of an environment: set, rotate, verify; values are never shown."),
    ("env", "ssmd.cli.env:app", "Environments: check files, deploy them, ask what was deployed when."),
    ("feed", "ssmd.cli.feed:app", "Exchanges the registry knows, and how each is reached on a day."),
    ("schema", "ssmd.cli.schema:app", "Layouts of normalized data, compared before a new one is registered."),
    ("data", "ssmd.cli.data:app", "The archive: inventory, gaps, quality, verification, compaction."),
    ("quality", "ssmd.cli.quality:app", "Expectations about a day's data, and whether its checks ran."),
    ("market", "ssmd.cli.market:app", "Markets the registry knows."),
    ("ops", "ssmd.cli.ops:app", "The day of an environment: start and stop its services, see how it goes."),
    ("client", "ssmd.cli.client:app", "Clients of the gateway, and the API keys that let them in."),
    ("db", "ssmd.cli.db:app", "The metadata database."),
    ("completion", "ssmd.cli.completion:completion", "Print the completion script of a shell."),
)
"""Name, where it is (imported only when it is called), and its one sentence."""


def build() -> App:
    """The command tree."""
    app = App(
        name="ssmd",
        help="Stupid Simple Market Data: capture, stream and archive exchange data that can be proved complete.",
        version=f"ssmd {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for name, place, help_text in COMMANDS:
        app.command(place, name=name, help=help_text)
    return app


def run() -> None:
    """The entry point of the `ssmd` program."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them reads every package's metadata
    # Most of a short command's time is loading modules; they leave no garbage, and a fifth of it was spent looking.
    gc.set_threshold(GC_THRESHOLD)
    load_when_needed()
    try:
        code = main(sys.argv[1:])
    except Exception as error:  # noqa: BLE001 an error while an error was explained
        code = _bug(error)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Every error ends here as one message on stderr."""
    try:
        return _dispatch(arguments)
    except CycloptsError as error:
        return _usage(error, arguments)
    except SsmdError as error:
        return _say(error, str(error), error.exit_code)
    except ExceptionGroup as group:
        ours = _first_of_ours(group)
        return _say(group, str(ours), ours.exit_code) if ours else _bug(group)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return _bug(error)
        return _say(error, f"the file name {str(error.filename)[:80]!r}… is too long", EXIT_CONFIG)
    except Exception as error:  # noqa: BLE001 the last line: no traceback reaches a user
        return _bug(error)


def _dispatch(arguments: Sequence[str]) -> int:
    command, bound, _ = build().parse_args(list(arguments), print_error=False, exit_on_error=False)
    if getattr(command, "__module__", "").startswith("ssmd."):
        from ssmd.logs import log_for_people

        log_for_people()
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else EXIT_DONE


def _usage(error: CycloptsError, arguments: Sequence[str]) -> int:
    from ssmd.cli.usage import explain

    sys.stderr.write(explain(error, build(), lambda text: without_secrets(text, arguments)))
    return EXIT_CONFIG


def without_secrets(text: str, arguments: Sequence[str]) -> str:
    """`text` without API keys, and without what may be values in the arguments of `ssmd key …`, anywhere by a slip."""
    text = _CLIENT_KEY.sub(r"\1***", text)
    words = [word for word in arguments if not word.startswith("-")]
    if not words or words[0] != "key":
        return text
    given = [word.partition("=")[2] for word in arguments if word.startswith("-")]
    given += [word for word in arguments if word.startswith("-----")] + words[4:]
    given += [word for word, before in zip(arguments[1:], arguments, strict=False) if before.startswith("--")]
    for value in sorted({value for value in given if len(value) > 2}, key=len, reverse=True):
        text = text.replace(value, "***").replace(repr(value)[1:-1], "***")
    return text


def printable(text: str) -> str:
    """A message as it may be written: whatever it quotes, no terminal obeys it and it has its own lines only."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "·" for letter in text)


def _say(error: BaseException, text: str, code: int) -> int:
    sys.stderr.write(f"{printable(text)}\n")
    _debug(error)
    return code


def _bug(error: BaseException) -> int:
    """One line for the user, the whole story in a file they can send."""
    arguments = sys.argv[1:]
    story = without_secrets("".join(traceback.format_exception(error)), arguments)
    path = Path(os.environ.get("SSMD_HOME") or ".ssmd").absolute() / "log" / "bug.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", errors="backslashreplace") as file:
            file.write(
                f"{iso(now_ns())} ssmd {__version__} {without_secrets(' '.join(arguments), arguments)}\n{story}\n"
            )
        where = f"the traceback is in {path}"
    except OSError:
        where = "run it again with SSMD_DEBUG=1 for the traceback"
    said = without_secrets(f"{type(error).__name__}: {error}", arguments)
    said = printable(" ".join(said.split())[:_MAX_SAID])
    sys.stderr.write(f"This is a bug in ssmd: {said}; {where}\n")
    _debug(error)
    return EXIT_BUG


def _debug(error: BaseException) -> None:
    if os.environ.get("SSMD_DEBUG"):
        traceback.print_exception(error)


def _first_of_ours(group: BaseExceptionGroup[BaseException]) -> SsmdError | None:
    for error in group.exceptions:
        found = _first_of_ours(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, SsmdError):
            return found
    return None
