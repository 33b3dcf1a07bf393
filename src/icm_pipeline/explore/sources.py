"""Where what is explored comes from: an artifact, a run, a sweep, a file of vectors, or what the package ships."""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from icm_pipeline.config.compose import saved_settings
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.material import Material, Rival
from icm_pipeline.explore.readings import PROBES, read_layer
from icm_pipeline.explore.shipped import shipped_materials
from icm_pipeline.labelers.registry import check_labeler
from icm_pipeline.localization.selection import LayerScore, select_layers
from icm_pipeline.methods.chosen import warn_of_another_model
from icm_pipeline.methods.readers import FILE_NAME as READERS
from icm_pipeline.methods.readers import load_readers
from icm_pipeline.methods.registry import find_method, method_named
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.table import kinds_of_stages, stages_of
from icm_pipeline.results.records import from_json
from icm_pipeline.results.scores import Scores, Selection
from icm_pipeline.results.sweeps import RESULT, JobResult
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages.ways import strengthened
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.manifest import MANIFEST
from icm_pipeline.store.shelf import Shelf, check_there, read_shelf

OVERLAID = ("model", "attribute", "method", "layers", "judge", "labeler", "compute", "alpha", "seed")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What one configuration has made."""

    settings: Settings
    artifacts: Mapping[str, Artifact]

    @property
    def subject(self) -> tuple[str, str]:
        return self.settings.model.name, self.settings.attribute.name


def opened(settings: Settings, words: Sequence[str] = ()) -> list[Material]:
    """Return what the settings ask to explore, one entry for each attribute, those of the first model.

    words: what opens it again on a command line. Raises ValueError or ArtifactError where there is nothing to steer.
    """
    asked = settings.explore
    if asked.vectors is not None:
        found = [_of_file(settings, asked.vectors)]
    elif asked.of is not None:
        found = _grouped(_made_at(settings, asked.of))
    else:
        own = _grouped([_made_by(settings)])
        found = own + shipped_materials(settings, [material.attribute.name for material in own])
    if not found and asked.of is not None:
        raise ValueError(
            f"There is nothing to explore in {asked.of}: what it was made from has no probes. Give an artifact, a run "
            "or a sweep of a method that fits them, such as icm, or vectors=<file>."
        )
    if not found:
        command = shlex.join(["icm", "stage=select", *words])
        raise ValueError(
            f"There is nothing to explore yet: {settings.model.name} has no probes for {settings.attribute.name} in "
            f"{settings.paths.outputs}. Make them with {command}, or give vectors=<file>, an artifact "
            "or a run."
        )
    model = found[0].settings.model
    left_out = [material.name for material in found if material.settings.model != model]
    if left_out:
        log.warning("explore: one model at a time, %s; left out: %s", model.name, ", ".join(left_out))
    return [_judged(replace(each, words=(*each.words, *words))) for each in found if each.settings.model == model]


def _of_file(settings: Settings, path: str) -> Material:
    """Return the material of a file of vectors; its attribute is the configured one, or a drift's of the same name."""
    vectors = load_vectors(path)
    warn_of_another_model(vectors, settings.model.path)
    known = [settings.attribute, *settings.evaluate.drift.values()]
    same = [each for each in known if tuple(each.options) == vectors.options]
    if not same:
        options = {option: [f"a photo of {option}"] for option in vectors.options}
        same = [replace(settings.attribute, name=vectors.attribute or "vectors", options=options)]
    named = [each for each in same if each.name == vectors.attribute] or same
    return Material(named[0].name, replace(settings, attribute=named[0]), vectors, tuple(vectors.layers))


def _made_by(settings: Settings) -> Made:
    """Return what a configuration has made so far."""
    keys = Keys(settings)
    found = {name: open_artifact(keys.folder(name)) for name in stages_of(settings) if name != "report"}
    return Made(settings, {name: artifact for name, artifact in found.items() if artifact is not None})


def _made_at(settings: Settings, place: str) -> list[Made]:
    """Return what an artifact, a run or the jobs of a sweep have made; raises ValueError or ArtifactError."""
    folder = Path(place).expanduser()
    if folder.is_dir() and not (folder / MANIFEST).exists():
        results = sorted(folder.rglob(RESULT))
        if not results:
            raise ValueError(f"{place} is no artifact, and no folder of a run or a sweep: it holds no {RESULT}.")
        return [_of_job(settings, result) for result in results]
    check_there(place)
    outputs = folder.resolve().parents[:3][-1] if folder.is_dir() else Path(settings.paths.outputs)
    shelf = read_shelf(outputs, kinds_of_stages())
    return [_behind(settings, shelf, shelf.find(place))]


def _of_job(settings: Settings, result: Path) -> Made:
    """Return what a job of a run or a sweep has made, by the configuration that Hydra saved of it."""
    try:
        told: JobResult = from_json(JobResult, json.loads(result.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{result} cannot be read ({error}).") from error
    found = {stage: told.find(stage, Path(settings.paths.outputs)) for stage in told.artifacts}
    made = {stage: each for stage, each in found.items() if each is not None}
    return Made(saved_settings(result.parent, settings), made)


def _behind(settings: Settings, shelf: Shelf, artifact: Artifact) -> Made:
    """Return an artifact with all that it was made from, and the settings that their keys stand for."""
    every = [shelf.artifacts[key] for key in shelf.ancestors([artifact.key])] or [artifact]
    settings = deepcopy(settings)
    for each in every:
        for dotted, value in each.manifest.config.items():
            if dotted.split(".")[0] in OVERLAID:
                _overlay(settings, dotted.split("."), value)
    settings.model.name, settings.attribute.name = artifact.manifest.model, artifact.manifest.attribute
    return Made(settings, {each.stage: each for each in every})


def _overlay(group: Any, names: Sequence[str], value: Any) -> None:
    """Set a setting by its dotted name; of a group those values that its key stood for."""
    name = names[0]
    known = {each.name for each in fields(group)}
    if name not in known or value is None:
        return
    inner = getattr(group, name)
    if len(names) > 1 and is_dataclass(inner):
        _overlay(inner, names[1:], value)
    elif is_dataclass(inner):
        for key, own in value.items():
            _overlay(inner, [key], own)
    else:
        setattr(group, name, value)


def _grouped(made: Sequence[Made]) -> list[Material]:
    """Return a material for each model and attribute whose probes are among what was made, with its rivals."""
    found = []
    for subject in dict.fromkeys(each.subject for each in made):
        of_subject = [each for each in made if each.subject == subject]
        base = next((each for each in of_subject if "probe" in each.artifacts), None)
        if base is None:
            continue
        rivals = dict[str, Rival]()
        for each in of_subject:
            method = find_method(each.settings.method.name)
            if method is None:  # a file that is gone
                continue
            if method.name not in ("icm", "none") and set(method.parents) <= set(each.artifacts):
                rivals.setdefault(method.name, _rival(each))
        foretold = next((each.artifacts["foretell"] for each in of_subject if "foretell" in each.artifacts), None)
        found.append(replace(_material(base, foretold), rivals=rivals))
    return found


def _material(made: Made, foretold: Artifact | None) -> Material:
    settings, probe = made.settings, made.artifacts["probe"]
    vectors = load_vectors(probe.path(f"vectors-{settings.method.direction}.safetensors"))
    vectors = vectors.averaged() if settings.method.vector == "mean" else vectors
    tuned = Tuning.read(made.artifacts["tune"]).options if "tune" in made.artifacts else {}
    readers = load_readers(foretold.path(READERS)) if foretold is not None else ()
    scores = Scores.read(probe)
    chosen = tuple(
        Selection.read(made.artifacts["select"]).layers if "select" in made.artifacts else _top(made, scores)
    )
    # Of a steered layer: one that is not need not show what steering does.
    known = {layer: scores.layers[layer].score for layer in chosen if layer in scores.layers}
    known = known or {layer: row.score for layer, row in scores.layers.items()}
    reading = read_layer(probe.path(PROBES), known, vectors.noise_levels)
    how = settings.method
    material = Material(settings.attribute.name, settings, vectors, chosen, scores, reading)
    strength = Strength(
        material.alpha, how.alpha_unit, how.first_step, how.last_step, settings.model.num_steps, how.norm_preserving
    )
    return replace(
        material,
        vectors=replace(vectors, strength=strength, readers=readers, words=settings.attribute.words, tuned=tuned),
    )


def _top(made: Made, scores: Scores) -> list[str]:
    """Return the layers that selecting would choose by the probes' scores; all of a kind where its rule is another."""
    layers = made.settings.layers
    rows = [LayerScore(layer, row.kind, row.score) for layer, row in scores.layers.items()]
    rule = layers.rule if layers.rule != "causal" else "top"
    return select_layers(rows, layers.kind, rule, layers.k, layers.names, layers.seed)


def _rival(made: Made) -> Rival:
    artifacts = made.artifacts
    settings, method = strengthened(made.settings, artifacts), method_named(made.settings.method.name)
    layers = Selection.read(artifacts["select"]).layers if method.in_layers else []
    return Rival(settings, artifacts, layers, Tuning.read(artifacts["tune"]).options if "tune" in artifacts else {})


def _judged(material: Material) -> Material:
    """Return the material with why its judge cannot be asked, if it cannot."""
    options = {material.attribute.name: material.attribute.options}
    try:
        check_labeler(material.settings.judge, "judge", options)
    except (ValueError, ModuleNotFoundError, OSError) as error:
        log.warning("explore: nobody says what pictures show: %s", error)
        return replace(material, judge_problem=str(error))
    return material
