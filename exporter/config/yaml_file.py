"""YAML files as text by dotted name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from exporter.errors import ConfigError


class _Texts(yaml.SafeLoader):
    """Takes every scalar but null as the text that stands there, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep=True)
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                problem = f"found {key.value!r} twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return made


for _tag in ("bool", "int", "float", "timestamp"):
    _Texts.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda _, node: node.value)


def read_yaml(path: Path) -> dict[tuple[str, ...], Any]:
    """Return texts, lists, and what is empty, by their keys, from the outermost on.

    Raises:
        ConfigError: not to be read, not YAML, or not a mapping.
    """
    try:
        tree = yaml.load(path.read_bytes(), _Texts) or {}
        if not isinstance(tree, dict):
            raise yaml.YAMLError("no mapping")
        return dict(_flat(tree, ()))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None)
        got = reason or " ".join(str(error).split())
    raise ConfigError([f"{place}: {got}, want a YAML file that can be read"])


def _flat(tree: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*keys, str(key)))
        else:
            yield (*keys, str(key)), value
