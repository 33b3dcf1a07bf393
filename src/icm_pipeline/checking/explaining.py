"""The layout of a pipeline that no family knows, measured: a family to start from, as a Python file.

Rows are found by changing the prompts alone; where in an output the image's tokens are by their number and, in one
sequence with the text, by what the result does not depend on; the timestep by comparing it with the scheduler's. What a
site is called is guessed from the classes and names of modules.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Described, Family
from icm_pipeline.backbones.latents import describe_grid, describe_packed, describe_patches, describe_sample
from icm_pipeline.backbones.modules import walk
from icm_pipeline.backbones.sites import CROSS_TEXT, JOINT_TEXT
from icm_pipeline.checking.calling import NUM_IMAGES, OTHERS, Caller, denoiser_of
from icm_pipeline.checking.watching import Seen, after_each, by_step, first_of, num_text_tokens, parts_of, watched

FEED_FORWARD = re.compile(r"FeedForward|MLP|Mlp|FFN|GLUMBConv|SwiGLU|MoE")
TIMESTEPS: dict[str, Callable[[Any, Any], Any]] = {  # what a denoiser is given, as the scheduler counts
    "{}": lambda pipe, given: given,
    "{} * 1000": lambda pipe, given: given * 1000,
    "1000 * (1 - {})": lambda pipe, given: 1000 * (1 - given),
    "{} + 1": lambda pipe, given: given + 1,
    "{} / pipe.transformer.config.timestep_scale": lambda pipe, given: given / pipe.transformer.config.timestep_scale,
}


@dataclass
class Explained:
    """What was measured."""

    class_name: str
    denoiser: str
    rows: str = ""
    describe: Callable[..., Described] = describe_sample
    timestep: str = ""
    """An expression of `inputs` and `pipe`."""
    sites: dict[str, list[str]] = field(default_factory=dict)
    """{kind: patterns}."""
    tokens: dict[str, str] = field(default_factory=dict)
    """{pattern: order}."""
    text: str = ""
    open_questions: list[str] = field(default_factory=list)
    """What could not be told; with any of these there is no family."""

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.class_name.removesuffix("Pipeline")).lower()

    def family(self) -> Family:
        orders = set(self.tokens.values())
        told, given = re.search(r"inputs\[\"(\w+)\"\]", self.timestep), self._timestep()
        assert told is not None
        return Family(
            name=self.name, pipelines=(self.class_name,), denoiser=self.denoiser, rows=self.rows,
            sites={kind: "|".join(patterns) for kind, patterns in self.sites.items()},
            tokens=orders.pop() if len(orders) == 1 else self.tokens, text=self.text, describe=self.describe,
            timestep=lambda pipe, inputs: given(pipe, inputs[told[1]]),
        )  # fmt: skip

    def _timestep(self) -> Callable[[Any, Any], Any]:
        by_text = {form.format('inputs["X"]'): function for form, function in TIMESTEPS.items()}
        return by_text[re.sub(r"inputs\[\"\w+\"\]", 'inputs["X"]', self.timestep)]

    def source(self) -> str:
        """Return the family as a Python file."""
        orders = set(self.tokens.values())
        known = {JOINT_TEXT: "JOINT_TEXT", CROSS_TEXT: "CROSS_TEXT"}
        text, describe = known.get(self.text, f'r"{self.text}"'), self.describe.__name__
        lines = [
            f'"""{self.class_name}, as `icm check-model` measured it."""', "",
            "from icm_pipeline import Family, register_family",
            f"from icm_pipeline.backbones.latents import {describe}",
            *([f"from icm_pipeline.backbones.sites import {text}"] if self.text in known else []), "",
            f"{self.name.upper()} = register_family(", "    Family(",
            f'        name="{self.name}",', f'        pipelines=("{self.class_name}",),',
            *([f'        denoiser="{self.denoiser}",'] if self.denoiser != "transformer" else []),
            "        sites={", *self._sites(), "        },",
            *([f"        text={text},  # modules whose tokens are the text's"] if self.text else []),
            f"        describe={describe},", f"        timestep=lambda pipe, inputs: {self.timestep},",
            f'        rows="{self.rows}",',
            *([f'        tokens="{orders.pop()}",'] if len(orders) == 1 else self._tokens()),
            "    )", ")",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _sites(self) -> Iterator[str]:
        for kind, patterns in self.sites.items():
            yield f'            "{kind}": r"{"|".join(patterns)}",'

    def _tokens(self) -> Iterator[str]:
        yield "        tokens={"
        for pattern, order in self.tokens.items():
            yield f'            r"{pattern}": "{order}",'
        yield "        },"


def explain(caller: Caller) -> Explained:
    """Measure a pipeline's layout; raises BackboneError for one that cannot be called with prompts."""
    pipe = caller.pipe
    found = Explained(type(pipe).__name__, denoiser_of(pipe))
    denoiser = getattr(pipe, found.denoiser)
    with watched(denoiser) as calls, after_each(dict(walk(denoiser)), note := _Outputs(calls)):
        caller.make()
    first_of(calls, denoiser)
    with watched(denoiser) as others:
        caller.make(OTHERS)
    _explain_rows(found, by_step(calls, others, caller.num_steps), [len(call.rows) for call in calls])
    _explain_latents(found, calls[0], hasattr(denoiser.config, "patch_size"))
    _explain_timestep(found, pipe, calls, caller.num_steps)
    if found.open_questions:
        return found
    said = found.describe(pipe, calls[0].args, calls[0].kwargs)
    _explain_sites(found, caller, note.first, said.num_image_tokens, num_text_tokens(calls[0]))
    return found


class _Outputs:
    """The shapes of what each module gives in the first call, in the order in which they end.

    Of a module that runs more than once, as one for the image's tokens and then for the text's, those of the last time.
    """

    def __init__(self, calls: list[Seen]) -> None:
        self._calls = calls
        self.first: dict[str, list[torch.Size]] = {}

    def __call__(self, name: str, output: Any) -> None:
        if not self._calls and name:
            self.first[name] = [part.shape for part in parts_of(output)]


def _explain_rows(found: Explained, changed: Sequence[Sequence[int]], num_rows: Sequence[int]) -> None:
    n = NUM_IMAGES
    first, second = list(range(n)), list(range(n, 2 * n))
    layouts = {
        "embedded": [(first, n)], "two calls": [(first, n), ([], n)], "unconditional first": [(second, 2 * n)],
        "conditional first": [(first, 2 * n)], "perturbed": [(list(range(n, 3 * n)), 3 * n)],
    }  # fmt: skip
    seen = list(zip(map(list, changed), num_rows, strict=False))
    found.rows = next((name for name, layout in layouts.items() if layout == seen), "")
    if not found.rows:
        told = "; then ".join(f"{count} rows, of which {rows} follow the prompt" for rows, count in seen)
        found.open_questions.append(f"rows: a step has {told} for {n} images, which no layout explains.")


def _explain_latents(found: Explained, call: Seen, has_patches: bool) -> None:
    """Tell how a call is described from the shape of its latents."""
    latents = call.args[0] if call.args else call.kwargs.get("sample", call.kwargs.get("hidden_states"))
    if not isinstance(latents, Tensor):
        found.open_questions.append(
            f"describe: the latents are a {type(latents).__name__}; give a `describe` of your own, as "
            "backbones/families/z_image.py does."
        )
        return
    of_map = describe_patches if found.denoiser == "transformer" and has_patches else describe_sample
    found.describe = {3: describe_packed, 5: describe_grid}.get(latents.dim(), of_map)


def _explain_timestep(found: Explained, pipe: Any, calls: Sequence[Seen], num_steps: int) -> None:
    true = [float(at) for at in pipe.scheduler.timesteps]
    told = {name: value for name, value in calls[0].inputs.items() if name == "t" or name.startswith("timestep")}
    a_step = len(calls) // num_steps
    for name in told:
        given = [call.inputs[name] for call in calls[::a_step]]
        for form, function in TIMESTEPS.items():
            try:
                values = [float(torch.as_tensor(function(pipe, value)).flatten()[0]) for value in given]
            except AttributeError:  # of another configuration
                continue
            if all(abs(one - other) <= _rounding(given[0], other) for one, other in zip(values, true, strict=False)):
                found.timestep = form.format(f'inputs["{name}"]')
                return
    found.open_questions.append(
        f"timestep: of the inputs {', '.join(told) or 'none'} is in a scale of the scheduler's that is known here."
    )


def _rounding(given: Any, value: float) -> float:
    """Return how far a timestep may be off that was scaled there and back in the precision of what was given."""
    is_scaled = isinstance(given, Tensor) and given.is_floating_point()
    return 1e-3 + (2 * torch.finfo(given.dtype).eps * abs(value) if is_scaled else 0.0)


def pattern_of(name: str) -> str:
    """Return a pattern of a module's name and of those that differ in the numbers of blocks alone."""
    return r"\.".join(r"\d+" if word.isdigit() else re.escape(word) for word in name.split("."))


def _explain_sites(
    found: Explained, caller: Caller, shapes: dict[str, list[torch.Size]], num_image: int | None, num_text: int | None
) -> None:
    denoiser = getattr(caller.pipe, found.denoiser)
    modules, text = dict(walk(denoiser)), _text_modules(shapes, num_image, num_text)
    kinds = {name: kind for name in shapes if name not in text and (kind := _kind(name, modules[name], text))}
    names = [name for name in kinds if not any(name.startswith(f"{other}.") for other in kinds)]
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(pattern_of(name), []).append(name)
    for pattern, of_pattern in alike.items():
        name = max(reversed(of_pattern), key=lambda name: len(shapes[name]))  # the last block may give less
        order = _order(found, caller, modules, shapes, name, num_image, num_text)
        if order is not None:
            found.sites.setdefault(kinds[name], []).append(pattern)
            found.tokens[pattern] = order
    if not found.sites:
        found.open_questions.append("sites: no module is called attention or feed-forward, or none gives image tokens.")
    image = [name for name in shapes if name not in text and num_image in _counts(shapes[name])]
    found.text = _text_pattern(text, image)


def _text_modules(shapes: dict[str, list[torch.Size]], num_image: int | None, num_text: int | None) -> list[str]:
    """Return the modules that give as many tokens as the text has, by itself or in a pair with the image."""
    if num_image is None:  # of a UNet, whose layers have as many tokens as they please
        return [name for name in shapes if _counts(shapes[name]) == [num_text] and re.fullmatch(CROSS_TEXT, name)]
    pairs = [counts for shape in shapes.values() if len(counts := _counts(shape)) == 2 and num_image in counts]
    texts = {num_text, *(count for counts in pairs for count in counts)} - {None, num_image}
    return [name for name, shape in shapes.items() if len(counts := _counts(shape)) == 1 and counts[0] in texts]


def _kind(name: str, module: nn.Module, text: Sequence[str]) -> str:
    """Return what a site is called by its class, its name and whether its keys are the text's; empty if it is none."""
    cls, own = type(module).__name__, name.rsplit(".", 1)[-1]
    if not any(word.isdigit() for word in name.split(".")):  # in no block
        return ""
    if re.search("Attention|Attn", cls) and not re.search("Block|Pool|Processor|Norm", cls):
        return "cross_attention" if f"{name}.to_k" in text or "cross" in own else "self_attention"
    return "feed_forward" if FEED_FORWARD.search(cls) and "context" not in own else ""


def _order(
    found: Explained, caller: Caller, modules: dict[str, nn.Module], shapes: dict[str, list[torch.Size]], name: str,
    num_image: int | None, num_text: int | None,
) -> str | None:  # fmt: skip
    """Return where the image's tokens are in what a site gives, None for a site that gives none."""
    given = shapes[name]
    counts = _counts(given)
    if not counts or (num_image is not None and max(counts) < num_image):
        return None
    if num_image is None or counts == [num_image]:
        return "image only"
    if len(given) > 1:
        block = next((b for b in shapes if name.startswith(f"{b}.") and len(shapes[b]) > 1), None)
        swapped = block is not None and _counts(shapes[block])[0] != num_image
        return "pair" if block is None or swapped else "image, text"
    more = counts[0] - num_image
    if not _counts_for(found, caller, modules[name], slice(0, more)):
        return "text first" if more == num_text else "image last"
    if not _counts_for(found, caller, modules[name], slice(num_image, None)):
        return "image first"
    found.open_questions.append(
        f"tokens: {name} gives {counts[0]} tokens, {num_image} of them the image's, and the result depends on those at "
        "either end."
    )
    return None


def _counts(shapes: Sequence[torch.Size]) -> list[int]:
    """Return the numbers of tokens [b, s, d], or of places of a map."""
    return [shape[1] if len(shape) == 3 else shape[2] * shape[3] for shape in shapes if len(shape) in (3, 4)]


def _counts_for(found: Explained, caller: Caller, module: nn.Module, places: slice) -> bool:
    """Say whether the rows that a denoiser gives depend on some tokens of a module's."""

    def moved(name: str, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, places] += torch.linspace(-1, 1, output.shape[-1]).to(output)
        return changed

    denoiser, results = getattr(caller.pipe, found.denoiser), list[list[Tensor]]()
    for hooks in ({}, {"": module}):
        with watched(denoiser) as calls, after_each(hooks, moved):
            caller.make()
        results.append(calls[0].rows)
    return any(not torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(*results, strict=True))


def _text_pattern(text: Sequence[str], image: Sequence[str]) -> str:
    """Return a pattern of all modules whose tokens are the text's, and of none whose are the image's."""
    if not text:
        return ""
    for known in (JOINT_TEXT, CROSS_TEXT):
        matches = re.compile(known).fullmatch
        if all(map(matches, text)) and not any(map(matches, image)):
            return known
    outer = [name for name in text if not any(name.startswith(f"{other}.") for other in text)]
    return f"({'|'.join(dict.fromkeys(map(pattern_of, outer)))})(\\..*)?"
