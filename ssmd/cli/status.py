"""`ssmd status`: what runs in this SSMD_HOME, and how it is."""

import os

import msgspec

from ssmd.cli.options import EnvFile, Json
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, talk
from ssmd.config.paths import ssmd_home
from ssmd.errors import EXIT_DONE, EXIT_REFUSED
from ssmd.local.home import Home
from ssmd.local.survey import Component, survey, total

_WIDTH = len("airflow-scheduler")


def status(*, env: EnvFile = None, json: Json = False) -> int:
    """Show the programs of the local stack and the memory of each with all its children, shared pages counted once.

    Exit code 0: all is well; 3: something is not, or nothing runs.
    """
    home = Home(ssmd_home(os.environ))
    components = survey(home)
    if json:
        lines = [*components, total(components)] if components else []
        show_json([msgspec.to_builtins(component) for component in lines])
    elif not components:
        talk(f"nothing is running in {home.root}; start it with: ssmd up")
    else:
        for component in components:
            mark_line(_mark(component), f"{component.name:<{_WIDTH}}", _detail(component))
        whole = total(components)
        mark_line(_mark(whole), f"{whole.name:<{_WIDTH}}", f"{whole.status:<9} {whole.memory_mb:,} MB of memory")
    return EXIT_DONE if components and all(component.well for component in components) else EXIT_REFUSED


def _mark(component: Component) -> str:
    if component.well:
        return GOOD
    return BAD if component.status in ("down", "silent") else WAITING


def _detail(component: Component) -> str:
    if component.status == "stopped":
        return component.detail
    if not component.pid:
        return f"{component.state.lower()}  {component.detail}"
    minutes, seconds = divmod(component.up_s, 60)
    up = f"up {minutes // 60}:{minutes % 60:02}:{seconds:02}"
    words = f"{component.status:<9} process {component.pid:<8} {up}  {component.memory_mb:>5,} MB"
    return f"{words}  {component.detail}".rstrip()
