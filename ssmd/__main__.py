"""`python -m ssmd`: the command line."""

from ssmd.cli.main import run

run()
