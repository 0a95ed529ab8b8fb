"""YAML files as values that know where they stand; nothing in them is constructed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPTH = 3  # of keys in keys; what is deeper is a mapping where none is wanted


class Value(NamedTuple):
    """A value: file and line, its keys from the outermost on, and its node."""

    place: str
    keys: tuple[str, ...]
    node: Any

    @property
    def name(self) -> str:
        """The keys, with dots between them."""
        return ".".join(self.keys)

    @property
    def is_null(self) -> bool:
        """Whether it is nothing, written out or left away."""
        is_empty = self.node.id == "mapping" and not self.node.value
        return bool(is_empty or self.node.tag.endswith(":null"))

    @property
    def is_scalar(self) -> bool:
        """Whether it is one text, and not a list or a mapping."""
        return bool(self.node.id == "scalar")

    @property
    def texts(self) -> list[str]:
        """What stands there: a scalar, or each of a list of scalars."""
        nodes = [self.node] if self.is_scalar else self.node.value
        is_plain = self.node.id != "mapping" and all(n.id == "scalar" for n in nodes)
        return [n.value for n in nodes] if is_plain and not self.is_null else []

    @property
    def text(self) -> str:
        """What stands there, if it is a scalar."""
        return "".join(self.texts) if self.is_scalar else ""

    def refusal(self, wanted: str, got: str = "") -> str:
        """Return the error message for this value."""
        what = repr(self.text) if self.is_scalar else f"a {self.node.id}"
        got = got or ("nothing" if self.is_null else what)
        return f"{self.place}: {self.name}: got {got}, want {wanted}"


def read_values(path: str, where: str, problems: list[str]) -> list[Value]:
    """Return the values in a file, those inside of sections by their dotted names.

    Adds a line to ``problems`` for each mistake; ``where`` is what named the path.
    """
    try:
        root: Any = yaml.compose(Path(path).read_bytes(), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{where}: {path}"
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None)
        got = reason or " ".join(str(error).split())
        problems.append(f"{place}: {got}, want a YAML file that can be read")
        return []
    whole = Value(path, (), root)
    if root is None or whole.is_null:
        return []
    if root.id != "mapping":
        problems.append(f"{path}: got a {root.id}, want a mapping")
        return []
    values: dict[str, Value] = {}
    for value in _values(path, root, ()):
        if not value.name.isprintable():
            problems.append(f"{value.place}: got a key that is no name")
        first = values.setdefault(value.name, value)
        if first is not value:
            problems.append(value.refusal(f"it once, {first.place} has it", "again"))
    return [*values.values()]


def is_section(name: str, known: Iterable[str]) -> bool:
    """Tell whether known names are inside of this one."""
    return any(one.startswith(f"{name}.") for one in known)


def _values(path: str, mapping: Any, keys: tuple[str, ...]) -> Iterator[Value]:
    for key, node in mapping.value:
        inner = (*keys, key.value if key.id == "scalar" else "\n")
        if node.id == "mapping" and node.value and len(inner) < DEPTH:
            yield from _values(path, node, inner)
        else:
            yield Value(f"{path}:{key.start_mark.line + 1}", inner, node)
