"""`ssmd completion`: scripts that complete commands and options in a shell."""

from typing import Literal, TypeAlias

from cyclopts import App

from ssmd.errors import EXIT_DONE

Shell: TypeAlias = Literal["bash", "zsh", "fish"]


def completion(shell: Shell) -> int:
    """Print the completion script of a shell. For bash: eval "$(ssmd completion bash)" in ~/.bashrc.

    Parameters
    ----------
    shell
        zsh: write it to a file `_ssmd` in a folder of $fpath; fish: to ~/.config/fish/completions/ssmd.fish.
    """
    from ssmd.cli.main import build

    tree: App = build()
    print(tree.generate_completion(shell=shell))
    return EXIT_DONE
