"""Steering vectors: per layer a unit direction per recorded step and option, in one safetensors file with metadata.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from icm_pipeline.methods.publishing import FILE_NAME, Picture, fetched, is_hub_id, publish
from icm_pipeline.methods.readers import METADATA, Reader, nearest_level, packed, unpacked
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.tuning import Tried, Tuned
from icm_pipeline.methods.vectors_card import About
from icm_pipeline.store.files import written_whole

if TYPE_CHECKING:
    from icm_pipeline.methods.lora_file import LoraFile

FORMAT = 1
YOUNGER = ("readers", "words", "tuned")  # fields that stand in a file only if there are any


@dataclass(frozen=True)
class SteeringVectors:
    """What steering needs to know of a model's layers."""

    directions: dict[str, Tensor]
    """{layer: [T, options, d]}, of unit length, or 0 where prompt pairs do not differ, float32."""
    mean_norms: dict[str, Tensor]
    """{layer: [T]}, the mean length of a pooled activation: the unit of a relative alpha."""
    steps: tuple[int, ...]
    """The T recorded steps."""
    noise_levels: tuple[float, ...]
    """Of the T recorded steps, see `hooks.clock.noise_levels`."""
    options: tuple[str, ...]
    model: str
    attribute: str
    scores: dict[str, float] = field(default_factory=dict)
    """{layer: mean accuracy of its probes}; of pairs of prompts, how alike they differ."""
    kinds: dict[str, str] = field(default_factory=dict)
    """{layer: site kind}."""
    strength: Strength | None = None
    """How they were used last, if they were."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the model and of sampling that they were made with, as far as they are known."""
    readers: tuple[Reader, ...] = ()
    """What foretells the finished image, by step; none in files that were made before there were any."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """{option: [words]} of prompts that name an option, see `methods.naming`."""
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """The alpha of each option with how it was found, if it was searched; in the unit and window of `strength`."""

    def __repr__(self) -> str:
        """Say in a line what they are, without their numbers."""
        made_for = f"{self.attribute} ({', '.join(self.options)}) on {self.model}"
        size = f"{len(self.layers)} layers, {len(self.steps)} steps"
        return f"SteeringVectors({made_for}: {size}, strength={self.strength})"

    @property
    def layers(self) -> list[str]:
        return list(self.directions)

    def slot(self, noise_level: float) -> int:
        """Return the index of the recorded step whose noise level is nearest, the noisier of two."""
        return nearest_level(self.noise_levels, noise_level)

    def option_index(self, option: str) -> int:
        """Return an option's index; raises ValueError listing the options."""
        if option not in self.options:
            raise ValueError(f"The vectors have no option {option!r}; theirs are {', '.join(self.options)}.")
        return self.options.index(option)

    def alpha_of(self, option: str) -> float:
        """Return the alpha that was searched for an option; raises ValueError listing those with one."""
        if option not in self.tuned:
            found = ", ".join(self.tuned)
            raise ValueError(f"No alpha was searched for {option!r}; there is one for {found}: give alpha=.")
        return self.tuned[option].alpha

    def averaged(self, lengths: bool = False) -> "SteeringVectors":
        """Return one direction per layer and option, the normalised mean over steps, used at every step.

        lengths: whether the layers' mean lengths are averaged too, so that a relative alpha is the same at every step.
        """
        directions = {
            layer: torch.nn.functional.normalize(values.mean(0, keepdim=True), dim=-1).expand_as(values).contiguous()
            for layer, values in self.directions.items()
        }
        norms = {layer: values.mean().expand_as(values).contiguous() for layer, values in self.mean_norms.items()}
        return replace(self, directions=directions, mean_norms=norms if lengths else self.mean_norms)

    def of_layers(self, layers: Sequence[str]) -> "SteeringVectors":
        """Return the vectors of some layers; raises ValueError listing all if one is missing or `layers` is empty."""
        if not layers:
            raise ValueError(f"layers=[] steers nothing; give some of {', '.join(self.layers)}.")
        missing = [layer for layer in layers if layer not in self.directions]
        if missing:
            raise ValueError(f"There are no vectors for {missing}; there are for {', '.join(self.layers)}.")
        return replace(
            self,
            directions={layer: self.directions[layer] for layer in layers},
            mean_norms={layer: self.mean_norms[layer] for layer in layers},
            scores={layer: score for layer, score in self.scores.items() if layer in layers},
            kinds={layer: kind for layer, kind in self.kinds.items() if layer in layers},
        )

    def best(self, k: int) -> "SteeringVectors":
        """Return the vectors of the k layers with the highest scores; raises ValueError for k beyond their number."""
        if not 0 < k <= len(self.scores):
            raise ValueError(f"k={k}: choose from 1 to {len(self.scores)}, the number of layers with a score.")
        return self.of_layers(sorted(self.scores, key=lambda layer: -self.scores[layer])[:k])

    def export_lora(
        self, path: str | Path, option: str, *, alpha: float | None = None, alpha_unit: str | None = None,
        window: tuple[int, int | None] | None = None, layers: Sequence[str] | None = None, pipe: Any = None,
        flavour: str = "diffusers", norm_preserving: bool | None = None,
    ) -> "LoraFile":  # fmt: skip
        """Write the shift towards an option as a LoRA file, which needs no code of ours; return what it shifts.

        option, alpha, alpha_unit, window, layers, norm_preserving: as in `steer`, and constant: `averaged` first, a
        window of all steps, and norm_preserving=False where they were used with it last. pipe: the pipeline it is for;
        None takes the model that the vectors were made with, from this disk and without loading it. flavour:
        `diffusers`, whose `load_lora_weights` reads it and `set_adapters` scales it, which diffusers' own loaders test;
        or `comfyui`, `<key>.diff_b`, for UNets and FLUX, which was never run in ComfyUI: its keys follow ComfyUI's
        source, and a UNet's are tested by diffusers' reader of kohya's names.

        A LoRA shifts the unconditional half of guidance too, which `steer` does not, and takes an alpha of its own:
        docs/lora.md. FLUX's single blocks end in a map of text and image tokens, so that it moves the text's too.

        Example:
            vectors.averaged(lengths=True).export_lora("woman.safetensors", "woman", alpha=8.0, window=(0, None))
            pipe.load_lora_weights("woman.safetensors", adapter_name="woman")
            pipe.set_adapters(["woman"], [0.5])

        Raises FoldingError, a ValueError, with the reason where no LoRA can stand for the shift, and ValueError for a
        path that does not end in .safetensors or is another file already; nothing is written then.
        """
        from icm_pipeline.methods.chosen import chosen_vectors
        from icm_pipeline.methods.lora_file import export_lora

        chosen, strength = chosen_vectors(self, option, layers, alpha, alpha_unit, window, norm_preserving)
        return export_lora(chosen, option, strength, path, flavour, pipe)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file that says in its metadata what it holds."""
        tensors, metadata = self._packed()
        with written_whole(Path(path)) as partial:
            save_file(tensors, partial, metadata=metadata)

    def to_bytes(self) -> bytes:
        """Return what `save` writes."""
        tensors, metadata = self._packed()
        return save(tensors, metadata=metadata)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        judge: str | None = None,
        license: str | None = None,
        figures: Mapping[str, str] | None = None,
        verdicts: Mapping[str, str] | None = None,
        pictures: Sequence[Picture] = (),
        private: bool | None = None,
        token: str | None = None,
        message: str = "Steering vectors",
        replace_card: bool = False,
    ) -> str:
        """Publish them on the hub as `user/name`, with a card that says what they are; return the page's address.

        judge: who said what the images show that they were fitted to; license: as `mit`, of the vectors; figures,
        verdicts: {what was measured: figure} and {claim: what an audit found}, for the card; pictures: images or their
        files, shown by the card. The repository is made if it is not there (private: for nobody else to see); token:
        None for the one that `hf auth login` or HF_TOKEN gave; replace_card: write over a README.md that is not ours.
        A licence that was given earlier stays where none is given. `icm push` fills all of this in from a finished run.

        Example:
            vectors.push_to_hub("me/gender-of-my-model", judge="FairFace", license="mit", pictures=["twins.png"])
            load_vectors("me/gender-of-my-model").options  # ("woman", "man")

        Raises HubError, a ValueError, without a token, for such a README.md, and where the hub cannot be reached or
        refuses.
        """
        about = About(judge, license, figures or {}, verdicts or {})
        return publish(self, repo_id, about, pictures, private, token, message, replace_card)

    def _packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {f"direction/{layer}": values.float().contiguous() for layer, values in self.directions.items()}
        tensors |= {f"mean_norm/{layer}": values.float().contiguous() for layer, values in self.mean_norms.items()}
        details = {"format": FORMAT, "layers": self.layers}
        details |= {each.name: getattr(self, each.name) for each in fields(self)[2:] if each.name not in YOUNGER}
        details["made_with"] = dict(self.made_with)
        if self.words:
            details["words"] = {option: list(words) for option, words in self.words.items()}
        if self.tuned:
            details["tuned"] = dict(self.tuned)
        if self.readers:
            read, details["readers"] = packed(self.readers)
            tensors |= read
        return tensors, {METADATA: json.dumps(details, default=asdict)}


def load_vectors(path: str | Path, layers: Sequence[str] | None = None, revision: str | None = None) -> SteeringVectors:
    """Read the vectors of some layers, None for all.

    path: a file, or the folder of an artifact with vectors.safetensors; or `user/name`, a repository of the hub whose
    vectors.safetensors is fetched, where no file or folder has that name; revision: of the repository.

    Example:
        vectors = load_vectors("outputs/artifacts/steer/tiny-gender-0123456789abcdef/vectors.safetensors")
        vectors.best(2).options  # ("woman", "man")

    Raises ValueError for another file or a missing layer, and where the hub has no such repository or no vectors in it.
    """
    file_here = fetched(str(path), revision) if is_hub_id(path) else _file_at(Path(path))
    try:
        with safe_open(file_here, framework="pt") as file:
            details = _details(file.metadata(), path)
            wanted = details["layers"] if layers is None else list(layers)
            missing = [layer for layer in wanted if layer not in details["layers"]]
            if missing:
                raise ValueError(f"{path} has no vectors for {missing}; it holds {', '.join(details['layers'])}.")
            directions = {layer: file.get_tensor(f"direction/{layer}") for layer in wanted}
            mean_norms = {layer: file.get_tensor(f"mean_norm/{layer}") for layer in wanted}
            readers = unpacked(file, details.get("readers", ()))
        scores = {layer: score for layer, score in details["scores"].items() if layer in wanted}
        kinds = {layer: kind for layer, kind in details.get("kinds", {}).items() if layer in wanted}
        strength = Strength(**details["strength"]) if details["strength"] else None
        tuned = {option: _tuned(about) for option, about in details.get("tuned", {}).items()}
        steps, noise_levels, options = (tuple(details[name]) for name in ("steps", "noise_levels", "options"))
        return SteeringVectors(
            directions, mean_norms, steps, noise_levels, options, details["model"], details["attribute"], scores,
            kinds, strength, details.get("made_with", {}), readers, _words(details.get("words", {})), tuned,
        )  # fmt: skip
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as steering vectors: {error!r}") from error


def _file_at(path: Path) -> Path:
    """Return a path's file of vectors, of a folder the one in it; raises ValueError where there is none."""
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise ValueError(f"{path} is a folder without {FILE_NAME}.")
        return path / FILE_NAME
    if not path.exists():
        raise ValueError(f"There is no file {path}; stage=steer leaves outputs/artifacts/steer/*/{FILE_NAME}.")
    return path


def _words(listed: Any) -> dict[str, list[str]]:
    """Return {option: [words]}; raises TypeError for anything else, as a text, which would count letter by letter."""
    if not isinstance(listed, dict):
        raise TypeError(f"words={listed!r} are not by option")
    for option, words in listed.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"the words of {option}, {words!r}, are no list of texts")
    return listed


def _tuned(about: Mapping[str, Any]) -> Tuned:
    """Return an option's alpha; raises TypeError for one that is no number."""
    if isinstance(about["alpha"], bool) or not isinstance(about["alpha"], (int, float)):
        raise TypeError(f"alpha={about['alpha']!r} is no number")
    return Tuned(**{**about, "curve": tuple(Tried(**point) for point in about["curve"])})


def _details(metadata: dict[str, str] | None, path: str | Path) -> dict[str, Any]:
    if not metadata or METADATA not in metadata:
        raise ValueError(f"{path} holds no steering vectors: its metadata has no {METADATA!r}.")
    try:
        details: dict[str, Any] = json.loads(metadata[METADATA])
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as steering vectors: its metadata is not JSON ({error}).") from error
    if details.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{path} has format {details['format']}, and this version reads {FORMAT}: install a newer one."
        )
    return details
