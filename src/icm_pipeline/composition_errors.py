"""Say in one line what is wrong with a YAML file or a word of the command line, where Hydra needs five.

Hydra reports what OmegaConf found as text; the parts read here are its first line, the file and `full_key`.
"""

import re
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import yaml

from icm_pipeline import config
from icm_pipeline.validation import ConfigError, no_setting

FILE = re.compile(r"In '([^']+)'")
KEY = re.compile(r"full_key: (\S+)")
UNKNOWN = re.compile(r"Key '([^']+)' not in '(\w+)'")
NO_SUCH_WORD = re.compile(r"Could not override '([^']+)'")
WRONG_KEY_TYPE = re.compile(r"Key (\S+) \((int|bool|float)\) is incompatible with \(str\)")
NO_LIST = re.compile(r"incompatible with type hint 'typing.List|is not a ListConfig")
NO_MAPPING = re.compile(r"is not a subclass of Dict|incompatible with type hint 'typing.Dict")
EMPTY = re.compile(r"is not Optional|Incompatible value 'None'")


def explain(error: Exception) -> str:
    """Return the message for whoever wrote the configuration, in one line where the mistake is a known one."""
    if isinstance(error, yaml.MarkedYAMLError):
        return _about_yaml(error)
    text = str(error)
    if "override_grammar" in text:  # the page of Hydra's that its parser refers to
        return f"{text}\nOn the command line such a value goes into two pairs of quotes: 'images=\"/photos/été (1)\"'."
    place, key = FILE.search(text), KEY.search(text)
    where = f"{place[1]}.yaml: " if place else ""
    name = key[1] if key else "a mapping"
    unknown = UNKNOWN.search(text)
    if unknown:
        return where + _about_unknown(name, unknown[1], unknown[2])
    word = NO_SUCH_WORD.search(text)
    if word and not word[1].startswith("hydra."):
        return _about_word(word[1])
    wrong = WRONG_KEY_TYPE.search(text)
    if wrong:
        return f"{where}{name}: YAML reads {wrong[1]} as {wrong[2]}; put the name in quotes as it should be read."
    if NO_LIST.search(text):
        return f"{where}{name} must be a list: write [...] around it, or one `- ...` a line."
    if NO_MAPPING.search(text):
        name = "options" if "Dict[str, List[str]]" in text else name
        return f"{where}{name} must be a mapping: one `name: [text, ...]` a line."
    if EMPTY.search(text):
        return f"{where}{name} is empty; give it a value, or delete the line."
    return text if isinstance(error, ConfigError) or not error.__cause__ else f"{text}\n{error.__cause__}"


def _about_unknown(key: str, name: str, schema: str) -> str:
    known = getattr(config, schema, None)
    names = [field.name for field in fields(known)] if is_dataclass(known) else []
    return no_setting(key, name, names)


def _about_word(dotted: str) -> str:
    """Return what is said of a word of the command line whose setting does not exist."""
    schema: Any = config.Settings
    for name in dotted.split("."):
        if not is_dataclass(schema):
            return f"there is no {dotted} yet. To add it: +{dotted}=<value>."
        known = [field.name for field in fields(schema)]
        if name not in known:
            return no_setting(dotted, name, known, dotted.removesuffix(name))
        schema = get_type_hints(schema)[name]
    return f"{dotted} cannot be set."


def _about_yaml(error: yaml.MarkedYAMLError) -> str:
    """Return file, line and problem; a key that stands twice is one of them."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    return f"{where}{error.problem or error.context}. Every name may stand once, and texts with : or {{}} need quotes."
