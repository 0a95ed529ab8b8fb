"""YAML files as values that know where they stand; nothing in them is constructed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPTH = 3  # of keys in keys; what is deeper is a mapping where none is wanted


class Value(NamedTuple):
    """A value: file and line, its keys from the outermost on, and what stands there.

    ``kind`` is nothing, a scalar, a sequence or a mapping; ``words`` are the text of
    the scalar, or those in the sequence.
    """

    place: str
    keys: tuple[str, ...]
    kind: str
    words: list[str]

    @property
    def name(self) -> str:
        """The keys, with dots between them."""
        return ".".join(self.keys)

    @property
    def text(self) -> str:
        """The text of a scalar, else nothing."""
        return self.words[0] if self.kind == "a scalar" else ""

    def refusal(self, wanted: str, got: str = "") -> str:
        """Return the error message for this value."""
        what = repr(self.text) if self.kind == "a scalar" else self.kind
        return f"{self.place}: {self.name}: got {got or what}, want {wanted}"


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
    if root is None or root.tag.endswith(":null"):
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
        is_mapping = node.id == "mapping"
        if is_mapping and node.value and len(inner) < DEPTH:
            yield from _values(path, node, inner)
            continue
        is_null = node.tag.endswith(":null") or (is_mapping and not node.value)
        kind = "nothing" if is_null else f"a {node.id}"
        nodes = {"a scalar": [node], "a sequence": node.value}.get(kind, [])
        is_plain = all(one.id == "scalar" for one in nodes)
        words = [one.value for one in nodes] if is_plain else []
        yield Value(f"{path}:{key.start_mark.line + 1}", inner, kind, words)
