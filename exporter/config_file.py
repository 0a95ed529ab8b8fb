"""Settings from a YAML file.

Values are taken as the text that stands in the file, so that they are read as flags
and environment are.
"""

import difflib
from collections.abc import Iterator

import yaml

from exporter.old_config import is_old
from exporter.settings import SETTINGS, Given
from exporter.yaml_file import describe, is_null, read_mapping

_SETTINGS = {s.name: s for s in SETTINGS if s.name != "config.file"}
_SECTIONS = tuple({name.rpartition(".")[0]: None for name in _SETTINGS})


def read_file(file: Given, problems: list[str]) -> list[Given]:
    """Return the values in a file; add a line to ``problems`` for each mistake."""
    root = read_mapping(file.text, file.where, problems)
    if root and is_old({name for name, _, _ in _keys(root)}):
        problems.append(
            f"{file.where}: got {file.text!r}, the old monitor's configuration, want a"
            f" YAML file; 'hakgal-exporter check --old-config={file.text}' says what to"
            " put where"
        )
        return []
    return _from_mapping(root, file.text, problems) if root else []


def _from_mapping(
    root: yaml.MappingNode, path: str, problems: list[str]
) -> list[Given]:
    given: list[Given] = []
    lines: dict[str, int] = {}
    for name, line, node in _keys(root):
        where = f"{path}:{line}: {name}"
        if name not in _SETTINGS and name not in _SECTIONS:
            problems.append(f"{path}:{line}: got unknown key {name!r}, {_hint(name)}")
        elif name in lines:
            problems.append(f"{where}: got again, want it in line {lines[name]} only")
        elif name in _SETTINGS:
            given += _value(Given(_SETTINGS[name], "", where), node, problems)
        elif not isinstance(node, yaml.MappingNode) and not is_null(node):
            problems.append(f"{where}: got {describe(node)}, want a mapping")
        lines.setdefault(name, line)
    return given


def _keys(
    mapping: yaml.MappingNode, prefix: str = ""
) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield dotted name, line and value of each key, sections opened."""
    for key, value in mapping.value:
        is_scalar = isinstance(key, yaml.ScalarNode)
        name = prefix + (key.value if is_scalar else describe(key))
        yield name, key.start_mark.line + 1, value
        if name in _SECTIONS and isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{name}.")


def _hint(name: str) -> str:
    section = name.partition(".")[0] + "."
    allowed = [known for known in _SETTINGS if known.startswith(section)]
    likely = difflib.get_close_matches(name, allowed or (*_SETTINGS, *_SECTIONS), n=1)
    if likely:
        return f"did you mean {likely[0]!r}?"
    outermost = [section for section in _SECTIONS if "." not in section]
    return f"want one of {', '.join(allowed or outermost)}"


def _value(given: Given, node: yaml.Node, problems: list[str]) -> list[Given]:
    kind = given.setting.kind
    is_list = kind.is_list and isinstance(node, yaml.SequenceNode)
    items: list[yaml.Node] = node.value if is_list else [node]
    wrong = [item for item in items if not _fits(item, kind.is_text)]
    problems += [given.refusal(describe(item)) for item in wrong]
    if wrong and len(wrong) == len(items):
        return []
    text = " ".join(item.value for item in items if item not in wrong)
    return [given._replace(text=text)]


def _fits(node: yaml.Node, is_text: bool) -> bool:
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        return False
    # YAML takes some numbers for text (1e-3): unless quoted, the parser decides.
    return node.tag.endswith(":str") if is_text else node.style is None
