"""Markdown as text: what is code in it, and what is not."""

import re
from collections.abc import Callable

CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def outside_code(text: str, change: Callable[[str], str], code: Callable[[str], str] = str) -> str:
    """Return a text with one change everywhere but in code, and another in code."""
    parts, at = list[str](), 0
    for found in CODE.finditer(text):
        parts += [change(text[at : found.start()]), code(found[0])]
        at = found.end()
    return "".join([*parts, change(text[at:])])
