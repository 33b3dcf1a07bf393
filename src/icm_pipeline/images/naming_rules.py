"""Naming rules: what the name of an image file says about it, such as `{prompt}/{seed}` or `{prompt_index}_{seed}`.

A rule describes the path below the folder without its suffix. Fields: `{prompt}`, its place `{prompt_index}` among
the attribute's evaluation prompts (from 0), `{seed}`, `{option}` (what the image was steered to), `{id}` (what twins
share), and `{skip}` for a part that means nothing.
"""

import re
from collections.abc import Sequence

from icm_pipeline.config.schema import ConfigError

FIELDS = {
    "id": ".+?", "prompt": "[^/]+?", "prompt_index": "[0-9]+", "seed": "[0-9]+", "option": "[^/]+?", "skip": "[^/]*?",
}  # fmt: skip
FIELD = re.compile(r"\{(\w*)\}")


def compile_rules(rules: Sequence[str]) -> list[re.Pattern[str]]:
    """Turn naming rules into patterns with a group for each field; raises ConfigError for a rule that is none."""
    return [_compiled(rule) for rule in rules]


def read_name(name: str, patterns: Sequence[re.Pattern[str]]) -> dict[str, str] | None:
    """Return the fields of a name by the first rule that fits it, None if none does.

    A prompt without blanks has underscores in their place: `a_face_of_a_nurse`.
    """
    for pattern in patterns:
        found = pattern.fullmatch(name)
        if found:
            fields = found.groupdict()
            if " " not in fields.get("prompt", " "):
                fields["prompt"] = fields["prompt"].replace("_", " ")
            return fields
    return None


def _compiled(rule: str) -> re.Pattern[str]:
    pattern, position, seen = "", 0, []
    for field in FIELD.finditer(rule):
        name = field[1]
        if name not in FIELDS:
            raise ConfigError(f"folders.names: {rule!r} has a field {{{name}}}. Known: {_known()}.")
        if name in seen and name != "skip":
            raise ConfigError(f"folders.names: {rule!r} has the field {{{name}}} twice.")
        pattern += re.escape(rule[position : field.start()])
        pattern += f"(?:{FIELDS[name]})" if name == "skip" else f"(?P<{name}>{FIELDS[name]})"
        seen.append(name)
        position = field.end()
    if not seen:
        raise ConfigError(f"folders.names: {rule!r} has no field. Known: {_known()}.")
    return re.compile(pattern + re.escape(rule[position:]))


def _known() -> str:
    return ", ".join(f"{{{name}}}" for name in FIELDS)
