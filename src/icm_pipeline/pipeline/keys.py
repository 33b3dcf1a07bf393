"""A stage's key, and where its artifact lies.

A key is a hash of the part of the configuration that changes the stage's result and of the keys of what it needs.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from icm_pipeline.config.relevance import YOUNGER, relevant
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.images.folders import content_key, folder_of, list_images
from icm_pipeline.methods.registry import method_named, own_file
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.results.comparisons import comparable_evaluations
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.building import folder_of_key
from icm_pipeline.store.caches import prefix_folder
from icm_pipeline.store.fingerprints import fingerprint, make_key, stat_hash
from icm_pipeline.store.manifest import FORMAT_VERSION
from icm_pipeline.zoo.paths import bundled_weights, local_folder

# Of the settings that stages read: those that can point to weights on this disk, and to folders of pictures.
WEIGHTS = (
    "model.path", "judge.path", "judge.model", "evaluate.clip.path", "evaluate.clip.model", "labeler.path",
    "labeler.model", "evaluate.inception",
)  # fmt: skip
PICTURES = ("evaluate.reference",)
CLIP_FILES_READ = 2  # raised when a CLIP given as a file gets other pixels or another activation than before


class Keys:
    """The keys of all stages under one configuration, and where their artifacts lie or will lie."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._keys: dict[str, str] = {}
        self._contents: dict[str, str] = {}

    def key(self, name: str) -> str:
        """Return a stage's key under this configuration."""
        if name not in self._keys:
            self._keys[name] = make_key({**self.content(name), "parents": self.parents(name)})
        return self._keys[name]

    def folder(self, name: str) -> Path:
        """Return where a stage's artifact lies or will lie; attributes with the same prompts share their images."""
        label = f"{self.subject()}-{self.settings.attribute.name}-{self.key(name)}"
        return folder_of_key(Path(self.settings.paths.outputs) / "artifacts" / name / label)

    @cached_property
    def compared(self) -> tuple[Artifact, ...]:
        """The evaluations on disk that can stand beside this configuration's, as they were when first asked for."""
        return comparable_evaluations(self.folder("evaluate").parent, self.content("evaluate"), self.key("originals"))

    def content(self, name: str) -> dict[str, Any]:
        """Return what a stage's key stands for beside its parents: settings, weights and content of folders."""
        stage, settings = STAGES[name], self.settings
        reads = [name for name in stage.reads(settings) if YOUNGER.get(name, ...) != value_at(settings, name)]
        read_by_method = method_named(settings.method.name).reads
        values = {dotted: relevant(settings, dotted, read_by_method) for dotted in sorted(reads)}
        named = {dotted: value_at(settings, dotted) for dotted in (*WEIGHTS, *PICTURES) if dotted in reads}
        hashes = {dotted: self._hash_of(dotted, value) for dotted, value in named.items() if value is not None}
        weights = {dotted: found for dotted, found in hashes.items() if found}
        given = [dotted for dotted in stage.images if value_at(settings, dotted) is not None]
        content = {"images": {dotted: self._content(dotted) for dotted in given}} if given else {}
        shown = {"compared": [artifact.key for artifact in self.compared]} if stage.compares else {}
        own = own_file(settings.method.name) if name == "fit" or {"method", "method.name"} & set(reads) else None
        made_by: dict[str, Any] = {"format": FORMAT_VERSION, **({"version": stage.version} if stage.version else {})}
        made_by |= {"code": fingerprint(own)} if own else {}  # a method of one's own may change under its name
        return {"stage": name, **made_by, "config": values, "weights": weights, **content, **shown}

    def _hash_of(self, setting: str, value: str) -> str | None:
        """Return the hash of what a setting names; of a CLIP given as a file, with how such a file is read."""
        found = _hash_of(setting, value)
        group, _, name = setting.rpartition(".")
        is_clip = name == "path" and group != "model" and value_at(self.settings, f"{group}.kind") == "clip"
        return f"{found}-read{CLIP_FILES_READ}" if found and is_clip else found

    def _content(self, setting: str) -> str:
        """Return the hash of a folder of images, read once."""
        if setting not in self._contents:
            self._contents[setting] = content_key(list_images(self.settings, setting).rows)
        return self._contents[setting]

    def parents(self, name: str) -> dict[str, str]:
        """Return the keys of what a stage needs, by stage."""
        return {parent: self.key(parent) for parent in STAGES[name].needs(self.settings)}

    def subject(self) -> str:
        """Return what made the images: the model's name, or that of the folder they are in."""
        if self.settings.images is None:
            return self.settings.model.name
        return re.sub(r"[^\w.+-]+", "_", folder_of(self.settings, "images").name).strip("._")[:60] or "images"

    def prefix_folder(self) -> Path | None:
        """Return the folder of first steps that all runs with these originals and this first steered step share.

        None if the method may change every step, a compiled model would be compiled again, or force=true redoes them.
        """
        settings, first = self.settings, self.settings.method.first_step
        reused = settings.generate.reuse_prefix and method_named(settings.method.name).from_first_step and first > 0
        if not reused or settings.force or settings.compute.compile or settings.images is not None:
            return None
        return prefix_folder(self.folder("originals").parent, self.key("originals"), first, settings.compute.device)


def _hash_of(setting: str, value: str) -> str | None:
    """Return the hash of the pictures or weights that a setting names; None for weights that are not on this disk."""
    if setting in PICTURES:
        folder = Path(value).expanduser()
        if not folder.is_dir():
            raise ValueError(f"{setting}={value} is no folder. Give a folder of pictures or of another run.")
        return stat_hash(folder)
    weights = bundled_weights(value) if setting.endswith(".model") else local_folder(value)
    return fingerprint(weights) if weights is not None and weights.exists() else None
