"""What a CLIP given as a file must be told: its architecture, its activation and how its pictures are prepared.

A tag of open_clip's knows the last two. A file does not, so they are those of the tags that open_clip has for its
architecture, where these agree, and of the tag that `preprocess` names where they do not.
"""

import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from icm_pipeline.zoo.weight_files import Shape, check_weights, is_script_archive, problem_of, read_shapes

ARCHITECTURES = "open_clip"
PREPARED = ("mean", "std", "interpolation", "resize_mode")
BUNDLE_CONFIG = "open_clip_config.json"  # beside the weights of a local-dir: or hf-hub: model
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
STORED_SIZES = ("input_resolution", "context_length", "vocab_size")  # that OpenAI's archives hold beside the weights
DEPTH = re.compile(r"(.*transformer)\.resblocks\.(\d+)\.")


def known_architectures() -> dict[str, Path | None]:
    """Return the files of open_clip's architectures by name, without importing it, which takes seconds.

    None stands for one that was added at run time.
    """
    package = find_spec(ARCHITECTURES)
    places = package.submodule_search_locations if package else None
    files = {file.stem: file for place in places or () for file in (Path(place) / "model_configs").glob("*.json")}
    added = sys.modules[ARCHITECTURES].list_models() if ARCHITECTURES in sys.modules else []
    return {**dict.fromkeys(added), **files}


def architecture(model: str, folder: Path | None) -> dict[str, Any]:
    """Return an architecture in open_clip's words, from the model's own folder if it has one; empty if not known."""
    if folder is not None and (folder / BUNDLE_CONFIG).is_file():
        return _read(folder / BUNDLE_CONFIG).get("model_cfg", {})
    if folder is not None and (folder / f"{model}.json").is_file():
        return _read(folder / f"{model}.json")
    file = known_architectures().get(model.replace("/", "-"))
    return {} if file is None else _read(file)


def check_bundle(folder: Path, named: str) -> None:
    """Raise ValueError for a folder that brings its own weights, and lacks them or what describes them."""
    check_weights(folder / BUNDLE_CONFIG)
    _read(folder / BUNDLE_CONFIG)
    problems = {file: problem_of(file) for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS}
    if not problems:
        raise ValueError(f"{named} has no weights ({', '.join(WEIGHTS)}) beside its {BUNDLE_CONFIG}.")
    if all(problems.values()):
        file, problem = next(iter(problems.items()))
        raise ValueError(f"{file} {problem}")


def check_fits(file: Path, named: str, model: str, described: Mapping[str, Any]) -> None:
    """Raise ValueError for a file that is not whole or holds a CLIP of another architecture, with those that it fits.

    described: the architecture, empty if it is not known.
    """
    found, expected = _described(read_shapes(file, named, script=True)), shapes_of(described)
    if not (wrong := [name for name, shape in expected.items() if found.get(name, shape) != shape]):
        return
    fitting = [name for name, shapes in _shapes_of_all().items() if shapes.items() <= found.items()]
    advice = f"It fits {', '.join(fitting[:4])}." if fitting else "Set the model to the architecture that it is of."
    differ = "; ".join(f"{name} is {_told(found[name])}, not {_told(expected[name])}" for name in wrong[:3])
    raise ValueError(f"{named} is a CLIP of another architecture than {model}: {differ}. {advice}")


def shapes_of(described: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shapes of some tensors of an architecture by which it can be told from others.

    Towers that timm or transformers builds are not among them; `<tower>` alone is its number of blocks.
    """
    if not described:
        return {}
    text, vision, width = described["text_cfg"], described["vision_cfg"], described["embed_dim"]
    shapes: dict[str, Shape] = {}
    if "hf_model_name" not in text:
        inside, length = text.get("width", 512), text.get("context_length", 77) + text.get("embed_cls", False)
        shapes |= {"token_embedding.weight": (text.get("vocab_size", 49408), inside)}
        shapes |= {"positional_embedding": (length, inside), "transformer": (text.get("layers", 12),)}
    if "timm_model_name" in vision:
        return shapes
    inside, layers = (
        vision.get("width", 64 if isinstance(vision.get("layers"), list) else 768),
        vision.get("layers", 12),
    )
    if isinstance(layers, list):  # a ResNet
        return shapes | {
            "visual.conv1.weight": (inside // 2, 3, 3, 3),
            "visual.attnpool.c_proj.weight": (width, inside * 32),
        }
    patch, size = vision.get("patch_size", 16), vision.get("image_size", 224)
    pooled = vision.get("attentional_pool", False)
    return shapes | {
        "visual.conv1.weight": (inside, 3, patch, patch),
        "visual.positional_embedding": ((size // patch) ** 2 + 1, inside),
        "visual.proj": (width if pooled else inside, width),
        "visual.transformer": (layers,),
    }


def training_of(model: str, weights: Path | str, preprocess: str | None, setting: str) -> dict[str, Any]:
    """Return how a model was trained, as open_clip's tags say it: `PREPARED` and `quick_gelu`.

    weights: a file, or a tag. preprocess: a tag of the architecture, or `<architecture>:<tag>`. Empty, which stands for
    open_clip's defaults, for a file of an architecture that it has no tags of. Raises ValueError for tags that do not
    agree, and for one that is none.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if preprocess is not None:
        other, _, tag = preprocess.rpartition(":")
        if found := open_clip.get_pretrained_cfg(other or model, tag):
            return found
        own = f"none of open_clip's tags for {model} ({', '.join(tags)})" if tags else "no tag of open_clip's"
        raise ValueError(f"{setting}.preprocess={preprocess} is {own}. Of another architecture: <architecture>:<tag>.")
    if isinstance(weights, str):
        if found := open_clip.get_pretrained_cfg(model, weights):
            return found
        known = ", ".join(tags) or "none"
        raise ValueError(f"{setting}.path={weights} is no file and no tag of {model}; open_clip has: {known}.")
    if is_openais(weights):
        return open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    trained = {tag: open_clip.get_pretrained_cfg(model, tag) for tag in tags}
    kinds: dict[str, list[str]] = {}
    for tag, found in trained.items():
        kinds.setdefault(json.dumps([found.get("quick_gelu", False), *(found[name] for name in PREPARED)]), []).append(
            tag
        )
    if len(kinds) > 1:
        apart = "; ".join(", ".join(alike[:3]) for alike in kinds.values())
        raise ValueError(
            f"{setting}.path={weights} does not say how its {model} was trained; open_clip knows {len(kinds)} ways, "
            f"which differ in QuickGELU or in pixels: {apart}. Set {setting}.preprocess to the tag it is of or like."
        )
    return next(iter(trained.values()), {})


def is_openais(file: Path) -> bool:
    """Say whether a file is a CLIP as OpenAI released it: a TorchScript archive that names its input's resolution."""
    if not is_script_archive(file):
        return False
    with ZipFile(file) as archive:
        code = (name for name in archive.namelist() if "/code/" in name and name.endswith(".py"))
        return any(STORED_SIZES[0].encode() in archive.read(name) for name in code)


@cache
def _shapes_of_all() -> dict[str, dict[str, Shape]]:
    files = {name: file for name, file in known_architectures().items() if file is not None}
    shapes = {name: shapes_of(_read(file)) for name, file in files.items()}
    return {name: found for name, found in shapes.items() if any(part.startswith("visual") for part in found)}


def _described(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return a file's shapes under the names of `shapes_of`: with a text tower of its own they begin with `text`."""
    named = {name.removeprefix("text."): shape for name, shape in shapes.items()}
    depths: dict[str, int] = {}
    for found in filter(None, map(DEPTH.match, named)):
        depths[found[1]] = max(depths.get(found[1], 0), 1 + int(found[2]))
    return named | {tower: (depth,) for tower, depth in depths.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}).") from error
    return found


def _told(shape: Shape) -> str:
    return " x ".join(map(str, shape))
