"""Settings from a YAML file.

Values are taken as the text that stands in the file, so that they are read as flags
and environment are.
"""

import difflib

import yaml

from exporter.settings import SETTINGS, Given
from exporter.yaml_file import describe, read_values

# Of the old monitor's config.json, and of no other program's file.
_OLD_KEYS = {
    *("database_path", "monitoring_interval", "max_history_size"),
    *("max_query_samples", "alert_thresholds", "flask"),
}
_SETTINGS = {s.name: s for s in SETTINGS if s.name != "config.file"}
_SECTIONS = tuple({name.rpartition(".")[0]: None for name in _SETTINGS})


def read_file(file: Given, problems: list[str]) -> list[Given]:
    """Return the values in a file; add a line to ``problems`` for each mistake."""
    values = read_values(file.text, file.where, problems)
    if _OLD_KEYS.intersection(value.keys[0] for value in values):
        problems.append(
            f"{file.where}: got {file.text!r}, the old monitor's configuration, want a"
            " YAML file; docs/migration.md says what to put where"
        )
        return []
    given: list[Given] = []
    for value in values:
        if value.name in _SETTINGS:
            where = f"{value.place}: {value.name}"
            given += _value(
                Given(_SETTINGS[value.name], "", where), value.node, problems
            )
        elif value.name not in _SECTIONS:
            hint = _hint(value.name)
            problems.append(f"{value.place}: got unknown key {value.name!r}, {hint}")
        elif not value.is_null:
            problems.append(value.refusal("a mapping"))
    return given


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
    if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
        return False
    # YAML takes some numbers for text (1e-3): unless quoted, the parser decides.
    return node.tag.endswith(":str") if is_text else node.style is None
