"""YAML files as values that know where they stand; nothing in them is constructed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

DEPTH = 3  # of keys in keys; what is deeper is a mapping where none is wanted
_TYPES = {"str": "text", "bool": "boolean", "int": "number", "float": "number"}


class Value(NamedTuple):
    """A value: file and line, its keys from the outermost on, and its node."""

    place: str
    keys: tuple[str, ...]
    node: yaml.Node

    @property
    def name(self) -> str:
        """The keys, with dots between them."""
        return ".".join(self.keys)

    @property
    def is_null(self) -> bool:
        """Whether it is nothing, written out or left away."""
        is_mapping = isinstance(self.node, yaml.MappingNode)
        return self.node.tag.endswith(":null") or (is_mapping and not self.node.value)

    @property
    def text(self) -> str:
        """What stands there if it is text, else nothing."""
        return str(self.node.value) if self.node.tag.endswith(":str") else ""

    def refusal(self, wanted: str, got: str = "") -> str:
        """Return the error message for this value."""
        got = got or describe(self.node)
        return f"{self.place}: {self.name}: got {got}, want {wanted}"


def read_values(path: str, where: str, problems: list[str]) -> list[Value]:
    """Return the values in a file, those inside of sections by their dotted names.

    Adds a line to ``problems`` for each mistake; ``where`` is what named the path.
    """
    try:
        root = yaml.compose(Path(path).read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        got = f"{path!r} ({error.strerror})"
        problems.append(f"{where}: got {got}, want a file that can be read")
        return []
    except (yaml.YAMLError, RecursionError) as error:
        problems.append(_syntax_error(path, error))
        return []
    if root is None or root.tag.endswith(":null"):
        return []
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}: got {describe(root)}, want a mapping")
        return []
    values: dict[str, Value] = {}
    for value in _values(path, root, (), problems):
        if first := values.get(value.name):
            line = first.place.rpartition(":")[2]
            problems.append(value.refusal(f"it in line {line} only", "again"))
        values.setdefault(value.name, value)
    return [*values.values()]


def is_section(name: str, known: Iterable[str]) -> bool:
    """Tell whether known names are inside of this one."""
    return any(one.startswith(f"{name}.") for one in known)


def describe(node: yaml.Node) -> str:
    """Return what a node is, for an error message."""
    if isinstance(node, yaml.CollectionNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    type_name = node.tag.rpartition(":")[2]
    name = _TYPES.get(type_name, type_name)
    return "nothing" if type_name == "null" else f"{name} {node.value!r}"


def _values(
    path: str, mapping: yaml.MappingNode, keys: tuple[str, ...], problems: list[str]
) -> Iterator[Value]:
    for key, node in mapping.value:
        place = f"{path}:{key.start_mark.line + 1}"
        if not (isinstance(key, yaml.ScalarNode) and key.value.isprintable()):
            problems.append(f"{place}: got {describe(key)} as a key, want a name")
            continue
        inner = (*keys, key.value)
        if isinstance(node, yaml.MappingNode) and node.value and len(inner) < DEPTH:
            yield from _values(path, node, inner, problems)
        else:
            yield Value(place, inner, node)


def _syntax_error(path: str, error: Exception) -> str:
    reason, where = " ".join(str(error).split()), path
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        reason = ", ".join(filter(None, (error.context, error.problem)))
        where = f"{path}:{error.problem_mark.line + 1}"
    return f"{where}: not YAML ({reason}), want a mapping"
