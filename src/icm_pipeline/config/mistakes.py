"""Say in one line what is wrong with a YAML file or a word of the command line, where Hydra needs five.

The schema tells four mistakes: an unknown setting, an unknown choice, a value of the wrong type, an empty value. Of
Hydra's own text only the file and the names in it are read; other mistakes keep its words.
"""

import re
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from icm_pipeline.config.choices import COMMANDS
from icm_pipeline.config.errors import ConfigError, unknown_setting
from icm_pipeline.config.help_page import NO_CHOICES, choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.text import did_you_mean

FILE = re.compile(r"In '([^']+)'")
KEY = re.compile(r"Could not override '(\S+)'|full_key: (\S+)")
SAID = re.compile(r"Error merging override (\S+)|value: (.+)")
NO_FILE = re.compile(r"Could not find '([^']+)/([^'/]+)'")
NO_TEXT = re.compile(r"Key (\S+) \((int|bool|float)\) is incompatible with \(str\)")
NO_ITEM = re.compile(r"Value (.+) \((int|bool|float)\) is incompatible with type hint 'str'")
NO_NAME = "Incompatible key type 'NoneType'"
EMPTY = re.compile(r"is not Optional|Incompatible value 'None'")
UNKNOWN = re.compile(r"Key '[^']+' not in|Could not override")
WRONG = re.compile(r"could not be converted|incompatible|is not a|Cannot (assign|convert)")
MERGED = re.compile(r"Cannot merge (Dict|List)Config with (Dict|List)Config")
SEVERAL = re.compile(r"Ambiguous value for argument '(.+)'")
NO_PRIMARY = re.compile(r"Cannot find primary config '([^']+)'")
NO_MODULE = "Primary config module"  # how Hydra reads a relative --config-path
GROUPED = {"window", *get_type_hints(Settings)}  # where what a choice brings goes
KINDS = {
    list: "a list: write [...] around it, or one `- ...` a line",
    dict: "a mapping: one `name: value` a line",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}
FORMS = {list: "a list, as [a,b], not a mapping", dict: "a mapping, as {a: b}, not a list"}
ORDERS = {"method.target_shares": " One share for each of attribute.options, in their order, as [0.7,0.3]."}


def explain(error: Exception) -> str:
    """Return the message for whoever wrote the configuration, in one line where the mistake is a known one."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f"{mark.name}, line {mark.line + 1}: " if mark else ""
        return f"{line}{error.problem or error.context}. Every name may stand once; texts with : or {{}} need quotes."
    text = f"{error}\n{error.__cause__}" if error.__cause__ else str(error)
    if isinstance(error, ConfigError):
        return str(error)
    if "override_grammar" in text:  # the page of Hydra's that its parser refers to
        word = getattr(error, "override", None)
        if word and "=" not in word:
            near = did_you_mean(word, list(COMMANDS), "icm ")
            return f"{word!r} sets nothing: write <name>=<value>.{near} --help lists the names and their choices."
        return f"{text}\nOn the command line such a value goes into two pairs of quotes: 'images=\"/photos/été (1)\"'."
    if several := SEVERAL.search(text):
        return _about_several(several[1])
    if no_primary := NO_PRIMARY.search(text):
        return f"there is no {no_primary[1]}.yaml for --config-name. Give --config-path, the folder in which it lies."
    if NO_MODULE in text:
        return "--config-path of a configuration that no run saved must be a whole path, from / on."
    if no_file := NO_FILE.search(text):
        return _about_choice(no_file[1], no_file[2], text)
    if NO_NAME in text:
        (name,) = KEY.findall(text)
        return (
            f"{name[1]}: YAML reads null, ~ and an empty name as nothing; put the name in quotes as it should be read."
        )
    where = f"{place[1]}.yaml: " if (place := FILE.search(text)) else ""
    key, said = KEY.search(text), SAID.search(text)
    if "is not a subclass of LabelerConfig" in text and not (said and said[1]):
        return f"{where}judge holds settings. Choose a file of conf/labeler in defaults: `- /labeler@judge: <name>`."
    if key:
        return where + (_about_setting(key[1] or key[2], text, not where) or text)
    if said and "subclass of Dict" in text:  # OmegaConf does not say which
        return f"{where}{said[2]} must be {KINDS[dict]}."
    return text


def _about_several(word: str) -> str:
    """Return what is said of a word with commas where nothing is varied."""
    name, _, values = word.partition("=")
    if name == "experiment":
        return f"{word} names several. Run one command for each: {name}={values.partition(',')[0]}, ..."
    return f"{word} gives several values. To run each of them add --multirun; to give a list, write {name}=[{values}]."


def _about_choice(group: str, name: str, text: str) -> str:
    """Return what is said of a choice that its group does not have; text: Hydra's own, which lists them."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("\t")]
    known = [choice for choice in lines if "=" not in choice and choice not in NO_CHOICES]  # and no search path
    hint = did_you_mean(name, known, f"{group}=")
    if group == "hydra/launcher":  # slurm_gpu is offered though its plugin may not be there
        hint += " ray_... need the extra ray, slurm_... the extra slurm."
    return f"there is no {group}={name}.{hint}" + (f" Choose from: {', '.join(known)}." if known else f"\n{text}")


def _about_setting(dotted: str, text: str, on_command_line: bool) -> str | None:
    """Return what is wrong with a setting, None if the schema does not tell."""
    kind: Any = Settings
    group, _, package = dotted.partition("@")
    if "Could not override" in text and choices_of(group) and (package or group).split(".")[0] in GROUPED:
        return f"there is no {dotted} yet. To add it: +{dotted}=<choice>, one of {', '.join(choices_of(group))}."
    words = re.findall(r"[^.\[\]]+", dotted)
    for depth, name in enumerate(words):
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            if name not in hints:
                if words[0] == "hydra" or not UNKNOWN.search(text):
                    return None
                place = "".join(f"{word}." for word in words[:depth]) if on_command_line else ""
                return unknown_setting(dotted, name, list(hints), place)
            kind = hints[name]
        else:
            kind = (get_args(kind) or (kind,))[-1]
        if get_origin(kind) is UnionType:
            (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if "Could not override" in text:
        return f"there is no {dotted} yet. To add it: +{dotted}=<value>."
    if wrong := NO_TEXT.search(text):
        return f"{dotted}: YAML reads {wrong[1]} as {wrong[2]}; put the name in quotes as it should be read."
    if wrong := NO_ITEM.search(text):
        return f"{dotted}: YAML reads a text as {wrong[1]} ({wrong[2]}); put it in quotes as it should be read."
    if EMPTY.search(text):
        return f"{dotted} is empty; give it a value, or delete the line."
    if MERGED.search(text) and (expected := FORMS.get(dict if is_dataclass(kind) else get_origin(kind))):
        said = SAID.search(text)
        return f"{said[1] if said and said[1] else dotted} must be {expected}.{ORDERS.get(dotted, '')}"
    if WRONG.search(text) and (expected := KINDS.get(dict if is_dataclass(kind) else get_origin(kind) or kind)):
        said = SAID.search(text)
        given = said[1] if said and said[1] else dotted
        is_choice = dotted == "judge" and given.partition("=")[2] in choices_of("labeler")
        hint = f" A file of conf/labeler is chosen by labeler@{given}." if is_choice else ""
        return f"{given} must be {expected}.{hint}"
    return None
