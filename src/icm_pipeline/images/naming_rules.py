"""Naming rules: what the name of an image file says about it, such as `{prompt}/{seed}` or `{prompt_index}_{seed}`.

A rule describes the path below the folder without its suffix. Fields: `{prompt}`, its place `{prompt_index}` among
the attribute's evaluation prompts (from 0), `{seed}`, `{option}` (what the image was steered to), `{id}` (what twins
share), and `{skip}` for a part that means nothing.
"""

import re
from collections.abc import Sequence

from icm_pipeline.config.errors import ConfigError

FIELDS = {
    "id": ".+?", "prompt": "[^/]+?", "prompt_index": "[0-9]+", "seed": "[0-9]+", "option": "[^/]+?", "skip": "[^/]*?",
}  # fmt: skip
KNOWN = ", ".join(f"{{{name}}}" for name in FIELDS)
FIELD = re.compile(r"\{(\w*)\}")


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


def compile_rule(rule: str) -> re.Pattern[str]:
    """Turn a naming rule into a pattern with a group for each field; raises ConfigError for a rule that is none."""
    pattern, position, seen = "", 0, []
    for field in FIELD.finditer(rule):
        name = field[1]
        if name not in FIELDS:
            raise ConfigError(f"folders.names: {rule!r} has a field {{{name}}}. Known: {KNOWN}.")
        if name in seen and name != "skip":
            raise ConfigError(f"folders.names: {rule!r} has the field {{{name}}} twice.")
        pattern += re.escape(rule[position : field.start()])
        pattern += f"(?:{FIELDS[name]})" if name == "skip" else f"(?P<{name}>{FIELDS[name]})"
        seen.append(name)
        position = field.end()
    if not seen:
        raise ConfigError(f"folders.names: {rule!r} has no field. Known: {KNOWN}.")
    return re.compile(pattern + re.escape(rule[position:]))
