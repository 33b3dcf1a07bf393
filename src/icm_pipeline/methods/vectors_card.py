"""The card of published steering vectors: what they are, how well they read and steer, how they are used."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icm_pipeline.methods.strength import Strength
    from icm_pipeline.methods.vectors import SteeringVectors

EMBEDDED = "embedded:"
# What a pipeline's call takes of the settings that vectors were made with.
CALLED_WITH = {"num_steps": "num_inference_steps", "guidance_scale": "guidance_scale"}


@dataclass(frozen=True)
class About:
    """What a card says beyond what vectors say of themselves; what is not known is left out or said to be unknown."""

    judge: str | None = None
    """Who said what the images show that they were fitted to."""
    license: str | None = None
    """Its identifier on the hub, as `mit`."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """{what was measured of steering with them: the figure}."""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """{claim: what an audit of them found}."""


def named_publicly(vectors: "SteeringVectors") -> "SteeringVectors":
    """Return vectors whose model is a hub id, an embedded one or a mere name: a machine's folders are nobody else's."""
    path = str(vectors.made_with.get("path", ""))
    is_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists()
    if not path or is_hub_id or path.startswith(EMBEDDED):
        return vectors
    return replace(vectors, made_with={**vectors.made_with, "path": vectors.model})


def card(vectors: "SteeringVectors", repo_id: str, about: About, pictures: Sequence[str] = ()) -> str:
    """Return a repository's README.md, with the hub's metadata at its head; pictures: their paths in the repository."""
    vectors = named_publicly(vectors)
    named = _escaped(vectors.attribute.replace("_", " "))
    sections = [
        _metadata(vectors, about),
        f"# Steering vectors: {named} of {_escaped(vectors.model)}",
        f"They steer what `{_model(vectors)}` makes of prompts that leave {named} open, "
        f"towards {' or '.join(f'*{_escaped(option)}*' for option in vectors.options)}: the method ICM of "
        "[Attention, May I Have Your Decision?](https://arxiv.org/abs/2604.06052), by "
        f"`icm_pipeline`. They hold directions, no weights of the model.",
        *(f"![Pictures made with and without these vectors]({path})" for path in pictures),
        _usage(vectors, repo_id),
        _facts(vectors, about),
        _layers(vectors),
        _listed("Measured", "what", "figure", about.figures),
        _listed(
            "Audit of the probes behind them: claims, each against a control that could have refuted it",
            "claim",
            "verdict",
            about.verdicts,
        )
        or "## Audit\n\nNo audit of these vectors is known.",
        "## Limits\n\nThey were fitted to what one judge says of one model's images. What a judge calls by an option's "
        "name says nothing about the people it is said of, and other prompts, guidance scales and schedulers than "
        "those above may want another alpha.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metadata(vectors: "SteeringVectors", about: About) -> str:
    lines = ["library_name: icm_pipeline", "tags: [icm, steering-vectors, text-to-image, fairness]"]
    if about.license is not None:
        lines.append(f"license: {json.dumps(about.license)}")
    if not _model(vectors).startswith(EMBEDDED) and "/" in _model(vectors):
        lines.append(f"base_model: {json.dumps(_model(vectors))}")
    return "\n".join(["---", *lines, "---"])


def _model(vectors: "SteeringVectors") -> str:
    return str(vectors.made_with.get("path", vectors.model))


def _usage(vectors: "SteeringVectors", repo_id: str) -> str:
    alpha = "" if vectors.strength is not None else ', alpha=1.0, alpha_unit="relative"'
    made = {name: vectors.made_with.get(name) for name in CALLED_WITH}
    call = "".join(f", {CALLED_WITH[name]}={value}" for name, value in made.items() if value is not None)
    return (
        "```python\nfrom icm_pipeline import load_vectors, steer\n\n"
        f"vectors = load_vectors({json.dumps(repo_id)})\n"
        f"with steer(pipe, vectors, option={json.dumps(vectors.options[0])}{alpha}):  # pipe: this model of diffusers\n"
        f'    images = pipe("a face of a doctor"{call}).images\n```'
    )


def _facts(vectors: "SteeringVectors", about: About) -> str:
    made = {name: value for name, value in vectors.made_with.items() if name != "path" and value is not None}
    facts = {
        "model": f"`{_model(vectors)}`",
        "attribute": _escaped(vectors.attribute),
        "options": ", ".join(map(_escaped, vectors.options)),
        "alpha": _alpha(vectors),
        "steered steps": _window(vectors.strength),
        "judge of the images they were fitted to": about.judge or "not known",
        "made with": ", ".join(f"{name} {value}" for name, value in made.items()) or "not known",
        "foretell": f"after {len(vectors.readers)} steps of a run" if vectors.readers else "nothing: no readers",
        "licence": about.license or "none was given: ask before you use them",
    }
    return _listed("Facts", "what", "value", facts)


def _alpha(vectors: "SteeringVectors") -> str:
    """Return each option's own alpha where it was searched, else the one they were used with last."""
    strength = vectors.strength
    if strength is None:
        return "not chosen yet"
    unit = "times the layer's mean activation" if strength.alpha_unit == "relative" else "in activation units"
    if vectors.tuned:
        return (
            ", ".join(f"{_escaped(option)} {found.alpha:.3g}" for option, found in vectors.tuned.items()) + f" {unit}"
        )
    return f"{strength.alpha} {unit}"


def _window(strength: "Strength | None") -> str:
    if strength is None:
        return "not chosen yet"
    last = "the last" if strength.last_step is None else strength.last_step
    return f"{strength.first_step} to {last}" + (f" of {strength.num_steps}" if strength.num_steps else "")


def _layers(vectors: "SteeringVectors") -> str:
    rows = {f"`{layer}`": _score(vectors, layer) for layer in vectors.layers}
    title = "Layers, and how well their probes read the option on held-out images, or how alike pairs of prompts differ"
    return _listed(title, "layer", "score", rows)


def _score(vectors: "SteeringVectors", layer: str) -> str:
    kind = vectors.kinds.get(layer, "").replace("_", "-")
    score = f"{vectors.scores[layer]:.3f}" if layer in vectors.scores else "not known"
    return f"{score} ({kind})" if kind else score


def _listed(title: str, what: str, value: str, rows: Mapping[str, Any]) -> str:
    """Return a section with a table of two columns, nothing without rows."""
    if not rows:
        return ""
    body = "\n".join(f"| {_cell(name)} | {_cell(said)} |" for name, said in rows.items())
    return f"## {title}\n\n| {what} | {value} |\n|---|---|\n{body}"


def _escaped(text: str) -> str:
    """Return a name on one line, as Markdown shows it: no emphasis, no HTML."""
    return " ".join(re.sub(r"[\\`*<>\[\]&]", r"\\\g<0>", text).split())


def _cell(text: Any) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
