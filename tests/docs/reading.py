"""Documents as tests read them."""

import re

from tests.servers import ROOT

FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in a language, without their indentation."""
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^ *```$", text)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


def prose(text: str) -> str:
    """Return a text without its code blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


def inline_code(text: str) -> list[str]:
    """Return what is set as code within sentences and tables."""
    return re.findall(r"`([^`\n]+)`", prose(text))
