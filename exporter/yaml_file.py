"""YAML files as nodes, which know their line; nothing in a file is ever constructed.

Imported only when there is such a file, because the YAML library costs memory and
start time.
"""

from pathlib import Path

import yaml

_TYPES = {"str": "text", "bool": "boolean", "int": "number", "float": "number"}


def read_mapping(path: str, where: str, problems: list[str]) -> yaml.MappingNode | None:
    """Return the mapping in a file, None if there is nothing.

    Adds a line to ``problems`` for each mistake; ``where`` is what named the path.
    """
    try:
        root = yaml.compose(Path(path).read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        got = f"{path!r} ({error.strerror})"
        problems.append(f"{where}: got {got}, want a file that can be read")
        return None
    except (yaml.YAMLError, RecursionError) as error:
        problems.append(_syntax_error(path, error))
        return None
    if root is None or is_null(root):
        return None
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}: got {describe(root)}, want a mapping")
        return None
    return root


def is_null(node: yaml.Node) -> bool:
    """Tell whether a node is nothing, written out or left away."""
    return node.tag.endswith(":null")


def describe(node: yaml.Node) -> str:
    """Return what a node is, for an error message."""
    if isinstance(node, yaml.CollectionNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    type_name = node.tag.rpartition(":")[2]
    name = _TYPES.get(type_name, type_name)
    return "nothing" if is_null(node) else f"{name} {node.value!r}"


def _syntax_error(path: str, error: Exception) -> str:
    reason, where = " ".join(str(error).split()), path
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        reason = ", ".join(filter(None, (error.context, error.problem)))
        where = f"{path}:{error.problem_mark.line + 1}"
    return f"{where}: not YAML ({reason}), want a mapping"
