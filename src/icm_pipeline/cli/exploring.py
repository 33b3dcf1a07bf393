"""`icm explore`: its words, as those of a job of stage=explore."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from icm_pipeline.cli.errors import USER_ERRORS
from icm_pipeline.config.compose import quoted
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.exploring import ExploreConfig
from icm_pipeline.config.help_page import choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.artifacts import open_artifact
from icm_pipeline.store.manifest import MANIFEST, Manifest
from icm_pipeline.store.shelf import check_there, read_shelf
from icm_pipeline.text import no_setting

OF_ALL = [each.name for each in fields(Settings)]
OWN = [each.name for each in fields(ExploreConfig) if each.name not in OF_ALL]


def job_words(words: Sequence[str]) -> list[str]:
    """Return the words of a job that explores: `vectors=x` for explore.vectors=x, a word alone for what to open.

    Of an artifact its model, attribute and method are set, unless other words set them. Raises ValueError for two words
    alone and for a name that is none of its own and none of a run, ArtifactError for an artifact that is not there.
    """
    alone = [word for word in words if _is_place(word)]
    settings = [f"explore.{word}" if word.partition("=")[0] in OWN else word for word in words if word not in alone]
    if len(alone) > 1:
        raise ValueError(f"icm explore opens one thing, not {' and '.join(alone)}.")
    given = {word.partition("=")[0] for word in settings}
    for name in given:
        if re.fullmatch(r"\w+", name) and name not in OF_ALL and not (conf_path() / name).is_dir():
            raise ValueError(
                f"{no_setting(name, name, OWN)} Beside these stand the settings of every run (icm --help)."
            )
    asked = [word.partition("=")[2] for word in settings if word.startswith("explore.of=")]
    opened = alone or [word.strip("'") for word in asked]
    told = [] if not opened else [word for word in _told(opened[0], settings) if word.partition("=")[0] not in given]
    return ["stage=explore", *(f"explore.of={quoted(word)}" for word in alone), *told, *settings]


def _is_place(word: str) -> bool:
    """Say whether a word is what to open: a path that is there, though it has a =, or no setting's name before one."""
    if word.startswith("-"):
        return False
    before, equals, _ = word.partition("=")
    group = re.split(r"[./@:]", before.lstrip("+~"))[0]
    is_elsewhere = "/" in before and not (conf_path() / group).is_dir()
    return not equals or is_elsewhere or Path(word).expanduser().exists()


def _told(place: str, settings: Sequence[str]) -> list[str]:
    """Return the words for the model, the attribute and the method of an artifact; none for the folder of runs."""
    folder = Path(place).expanduser()
    if folder.is_dir() and not (folder / MANIFEST).exists():
        return []
    outputs = [word.removeprefix("paths.outputs=").strip("'") for word in settings if word.startswith("paths.outputs=")]
    check_there(place)
    artifact = open_artifact(folder) if folder.is_dir() else None
    if artifact is None:
        artifact = read_shelf(Path(outputs[0] if outputs else "outputs"), kinds_of_stages()).find(place)
    return [*_model(artifact.manifest), *_choice("attribute", artifact.manifest.attribute)]


def _model(manifest: Manifest) -> list[str]:
    known = _choice("model", manifest.model)
    path = manifest.config.get("model.path")
    return known or ["model=local", f"model.name={manifest.model}", *([f"model.path={quoted(path)}"] if path else [])]


def _choice(group: str, name: str) -> list[str]:
    return [f"{group}={name}"] if name in choices_of(group) else []


def settings_help() -> str:
    """Return what conf/config.yaml says of the settings of `explore`, a line each, as on the command line."""
    text = (conf_path() / "config.yaml").read_text("utf-8").partition("\nexplore:")[2].partition("\n\n")[0]
    lines = ["settings of its own, with their defaults:"]
    for name, value, about in re.findall(r"^  (\w+): (.*?) *# (.+)$", text, re.MULTILINE):
        word = f"{'' if name in OWN else 'explore.'}{name}={value}"
        lines.append(f"  {word:<18} {about}")
    return "\n".join([*lines, "Others are those of every run: icm --help."])


def words_or_end(words: Sequence[str]) -> list[str]:
    """Return the words of the job, or end the program with its help or with what is wrong with the command."""
    if {"-h", "--help"} & set(words):
        argparse.ArgumentParser(
            "icm explore", "icm explore [folder or key] [<name>=<value> ...]", "Steer in a browser while you look.",
            settings_help(), formatter_class=argparse.RawDescriptionHelpFormatter,
        ).print_help()  # fmt: skip
        sys.exit(0)
    try:
        return job_words(words)
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")
