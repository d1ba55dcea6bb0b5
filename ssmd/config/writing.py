"""An Environment back to text: the same for any order and comment of its file, and without the passwords in it."""

from collections.abc import Mapping
from typing import Any

import yaml

from ssmd.config.environment import Environment
from ssmd.config.values import masked, masked_within

_WIDTH = 110
_NESTED = (dict, list)


class _Dumper(yaml.SafeDumper):
    """Block style, lists of plain values on one line, no aliases (the reader refuses them)."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list_node(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=not any(isinstance(item, _NESTED) for item in items)
    )


_Dumper.add_representer(list, _list_node)


def to_yaml(environment: Environment) -> str:
    """What its file says, keys sorted by name, sections in the order of the reference, secrets in URLs masked.

    Loading it gives an equal environment (but for what is masked) with the same `environment_hash`.
    """
    said = masked_within(environment.model_dump(mode="json", exclude_unset=True))
    said["spec"]["keys"] = dict(sorted(said["spec"]["keys"].items()))
    return yaml.dump(said, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False)


def plain_yaml(value: Mapping[str, object]) -> str:
    """A document of another kind (a manifest) in the same style, its keys in their own order."""
    return yaml.dump(
        dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False
    )


def settings(environment: Environment) -> dict[str, Any]:
    """Every setting, defaults included, by its path (`spec.gateway.port`); lists are one value, secrets masked."""
    return dict(_flat("", masked_within(environment.model_dump(mode="json"))))


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [found for name, inner in value.items() for found in _flat(f"{path}.{name}" if path else name, inner)]


def embedded_secrets(environment: Environment) -> list[str]:
    """The paths of values that hold a password or a token, which belongs into a key."""
    said = dict(_flat("", environment.model_dump(mode="json", exclude_unset=True)))
    return [path for path, value in said.items() if isinstance(value, str) and masked(value) != value]
