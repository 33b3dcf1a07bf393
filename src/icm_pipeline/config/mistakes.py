"""Say in one line what is wrong with a YAML file or a word of the command line, where Hydra needs five.

Hydra reports what OmegaConf found as text; the parts read here are its first line, the file and `full_key`.
"""

import re
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import yaml

from icm_pipeline.config import schema as config
from icm_pipeline.config.schema import ConfigError
from icm_pipeline.text import did_you_mean, no_setting

FILE = re.compile(r"In '([^']+)'")
KEY = re.compile(r"full_key: (\S+)")
UNKNOWN = re.compile(r"Key '([^']+)' not in '(\w+)'")
NO_SUCH_WORD = re.compile(r"Could not override '([^']+)'")
WRONG_KEY_TYPE = re.compile(r"Key (\S+) \((int|bool|float)\) is incompatible with \(str\)")
NO_LIST = re.compile(r"incompatible with type hint 'typing.List|is not a ListConfig")
NO_MAPPING = re.compile(r"is not a subclass of Dict|incompatible with type hint 'typing.Dict")
NO_FILE = re.compile(r"Could not find '([^']+)/([^'/]+)'")
NO_NUMBER = re.compile(r"Value '(.*)' of type '\w+' could not be converted to (Float|Integer|Boolean)")
KINDS = {"Float": "number", "Integer": "whole number", "Boolean": "true or false"}
ASKED_FOR = {
    "dry_run": "stage=plan shows what a run would make, how long it takes and how much it keeps",
    "resume": "a run goes on by itself when its command is given again",
    "overwrite": "force=true makes a stage again",
}
EMPTY = re.compile(r"is not Optional|Incompatible value 'None'")


def explain(error: Exception) -> str:
    """Return the message for whoever wrote the configuration, in one line where the mistake is a known one."""
    if isinstance(error, yaml.MarkedYAMLError):
        return _about_yaml(error)
    text = str(error)
    if "override_grammar" in text:  # the page of Hydra's that its parser refers to
        word = getattr(error, "override", None)
        if word and "=" not in word:
            return f"{word!r} sets nothing: write <name>=<value>. --help lists the names and their choices."
        return f"{text}\nOn the command line such a value goes into two pairs of quotes: 'images=\"/photos/été (1)\"'."
    place, key = FILE.search(text), KEY.search(text)
    where = f"{place[1]}.yaml: " if place else ""
    name = key[1] if key else "a mapping"
    no_file = NO_FILE.search(text)
    if no_file:
        return _about_choice(no_file[1], no_file[2], text)
    cause = f"{text}\n{error.__cause__}"
    no_number = NO_NUMBER.search(cause)
    if no_number:
        name = key[1] if (key := KEY.search(cause)) else "a setting"
        return f"{where}{name}={no_number[1]} is no {KINDS[no_number[2]]}."
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
    return text if isinstance(error, ConfigError) or not error.__cause__ else cause


def _about_unknown(key: str, name: str, schema: str) -> str:
    known = getattr(config, schema, None)
    names = [field.name for field in fields(known)] if is_dataclass(known) else []
    return no_setting(key, name, names)


def _about_choice(group: str, name: str, text: str) -> str:
    """Return what is said of a choice that its group does not have; text: Hydra's own, which lists them."""
    known = [line.strip() for line in text.splitlines() if line.startswith("\t")]
    known = [choice for choice in known if choice != "base"]  # what the others start from
    hint = did_you_mean(name, known, f"{group}=")
    return f"there is no {group}={name}.{hint}" + (f" Choose from: {', '.join(known)}." if known else f"\n{text}")


def _about_word(dotted: str) -> str:
    """Return what is said of a word of the command line whose setting does not exist."""
    if dotted in ASKED_FOR:
        return f"there is no {dotted}: {ASKED_FOR[dotted]}."
    schema: Any = config.Settings
    words = dotted.split(".")
    for depth, name in enumerate(words):
        if not is_dataclass(schema):
            return f"there is no {dotted} yet. To add it: +{dotted}=<value>."
        known = [field.name for field in fields(schema)]
        if name not in known:
            return no_setting(dotted, name, known, "".join(f"{word}." for word in words[:depth]))
        schema = get_type_hints(schema)[name]
    return f"{dotted} cannot be set."


def _about_yaml(error: yaml.MarkedYAMLError) -> str:
    """Return file, line and problem; a key that stands twice is one of them."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    return f"{where}{error.problem or error.context}. Every name may stand once, and texts with : or {{}} need quotes."
