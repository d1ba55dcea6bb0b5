"""A wrong command line, in one short line, and the command to run next."""

from collections.abc import Callable, Iterable, Sequence

from cyclopts import App, CycloptsError
from cyclopts.exceptions import UnknownCommandError, UnusedCliTokensError

from ssmd.nearest import nearest

_MAX_LINE = 200
_MAX_WORD = 80


def explain(error: CycloptsError, tree: App, hide: Callable[[str], str] = str) -> str:
    """What is wrong with the command line, on one line, and on the next the help of the command that was meant.

    `hide` takes out what must not be shown, before anything is cut.
    """
    chain = list(error.command_chain or ())
    if isinstance(error, UnknownCommandError):
        message, chain = _unknown_command(error, tree, chain, hide)
    elif isinstance(error, UnusedCliTokensError):
        message = f"Unexpected argument {_word(hide((error.unused_tokens or [''])[0]))}."
    else:
        message = one_line(hide(str(error)))
    return f"{message}\n  Run: {' '.join(['ssmd', *chain])} --help\n"


def one_line(text: str) -> str:
    """`text` as one printable line of at most 200 characters; what is cut is its middle, where values stand."""
    line = "".join(letter if letter.isprintable() else "·" for letter in " ".join(text.split()))
    if len(line) <= _MAX_LINE:
        return line
    return f"{line[: _MAX_LINE - 61]}…{line[-60:]}"


def _unknown_command(
    error: CycloptsError, tree: App, chain: list[str], hide: Callable[[str], str]
) -> tuple[str, list[str]]:
    word = (error.unused_tokens or [""])[0]
    known = list(_commands(tree, chain))
    if guess := nearest(word, known):
        return f'Unknown command {_word(hide(word))}. Did you mean "{guess}"?', [*chain, guess]
    return f"Unknown command {_word(hide(word))}. Commands: {', '.join(known)}.", chain


def _commands(tree: App, chain: Sequence[str]) -> Iterable[str]:
    """The commands below a chain of commands; only that one's module is loaded."""
    for name in chain:
        tree = tree[name]
    return (name for name in tree if not name.startswith("-"))


def _word(text: str) -> str:
    """A word as it was typed, in quotes; short, and printable."""
    shown = text if len(text) <= _MAX_WORD else f"{text[: _MAX_WORD - 1]}…"
    return '"' + "".join(letter if letter.isprintable() else "·" for letter in shown) + '"'
