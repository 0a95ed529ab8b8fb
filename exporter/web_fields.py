"""The values in a strict YAML file, each with its place and a list of mistakes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import yaml

from exporter.yaml_file import describe, is_null

T = TypeVar("T")

_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False}
_SWITCH |= {"off": False}


@dataclass(frozen=True)
class Field:
    """A value; its name is dotted, ``problems`` is shared by all of the file."""

    path: str
    line: int
    name: str
    node: yaml.Node
    problems: list[str]

    @property
    def where(self) -> str:
        """The start of an error message."""
        return f"{self.path}:{self.line}: {self.name}"

    def refuse(self, wanted: str, got: str = "") -> None:
        """Report a mistake."""
        got = got or describe(self.node)
        self.problems.append(f"{self.where}: got {got}, want {wanted}")

    def entries(self) -> dict[str, "Field"]:
        """Return the fields of a mapping, by their last name."""
        fields: dict[str, Field] = {}
        if not isinstance(self.node, yaml.MappingNode):
            if not is_null(self.node):
                self.refuse("a mapping")
            return fields
        for key, value in self.node.value:
            is_text = _is_text(key) and not is_null(key)
            last = key.value if is_text else describe(key)
            name = f"{self.name}.{last}".removeprefix(".")
            line = key.start_mark.line + 1
            field = Field(self.path, line, name, value, self.problems)
            if not is_text:
                field.refuse("text as a name", got=last)
            elif last in fields:
                field.refuse(f"it in line {fields[last].line} only", got="again")
            else:
                fields[last] = field
        return fields

    def texts(self, wanted: str) -> list[str]:
        """Return the texts in a list."""
        if not (isinstance(self.node, yaml.SequenceNode) and self.node.value):
            got = "an empty list" if self.node.value == [] else describe(self.node)
            self.refuse(f"a list, each {wanted}", got)
            return []
        return [
            text
            for node in self.node.value
            if (text := self._at(node).text(wanted)) is not None
        ]

    def text(self, wanted: str) -> str | None:
        """Return a text, which is not empty; None if it is none."""
        if _is_text(self.node) and self.node.value and self.node.tag.endswith(":str"):
            return str(self.node.value)
        self.refuse(wanted)
        return None

    def switch(self) -> bool | None:
        """Return a boolean, None if it is none."""
        # A tag may be written out before what is none: !!bool maybe.
        word = self.node.value.lower() if _is_text(self.node) else ""
        if self.node.tag.endswith(":bool") and word in _SWITCH:
            return _SWITCH[word]
        self.refuse("true or false")
        return None

    def choice(self, choices: Mapping[str, T], refused: Mapping[str, str]) -> T | None:
        """Return what a word stands for; None, with advice, if it is not allowed."""
        wanted = " or ".join((", ".join([*choices][:-1]), [*choices][-1]))
        word = self.text(wanted)
        if word is None or word in choices:
            return choices[word] if word else None
        self.refuse(refused.get(word, wanted))
        return None

    def _at(self, node: yaml.Node) -> "Field":
        line = node.start_mark.line + 1
        return Field(self.path, line, self.name, node, self.problems)


def _is_text(node: yaml.Node) -> bool:
    """Tell whether a node is a word that can be shown in a line, and be in a path."""
    return isinstance(node, yaml.ScalarNode) and str(node.value).isprintable()
