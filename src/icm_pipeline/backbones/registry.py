"""Which family knows which pipeline, by its class."""

import inspect
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from icm_pipeline.backbones.base import Backbone, BackboneError, Family, Sampling
from icm_pipeline.backbones.families.auraflow import AURAFLOW
from icm_pipeline.backbones.families.bria import BRIA, BRIA_FIBO
from icm_pipeline.backbones.families.chroma import CHROMA
from icm_pipeline.backbones.families.cogview import COGVIEW3PLUS, COGVIEW4, GLM_IMAGE
from icm_pipeline.backbones.families.cosmos import COSMOS2
from icm_pipeline.backbones.families.deepfloyd_if import DEEPFLOYD_IF
from icm_pipeline.backbones.families.ernie_image import ERNIE_IMAGE
from icm_pipeline.backbones.families.flux import FLUX, FLUX_KONTEXT
from icm_pipeline.backbones.families.flux2 import FLUX2, FLUX2_KLEIN, FLUX2_KLEIN_KV
from icm_pipeline.backbones.families.hidream import HIDREAM
from icm_pipeline.backbones.families.hunyuan_dit import HUNYUAN_DIT, HUNYUAN_DIT_PAG
from icm_pipeline.backbones.families.hunyuan_image import HUNYUAN_IMAGE
from icm_pipeline.backbones.families.kandinsky import KANDINSKY3, KANDINSKY5
from icm_pipeline.backbones.families.krea2 import KREA2
from icm_pipeline.backbones.families.lumina import LUMINA
from icm_pipeline.backbones.families.lumina2 import LUMINA2
from icm_pipeline.backbones.families.nucleus_image import NUCLEUS_IMAGE
from icm_pipeline.backbones.families.omnigen import OMNIGEN
from icm_pipeline.backbones.families.ovis_image import LONGCAT_IMAGE, OVIS_IMAGE
from icm_pipeline.backbones.families.pixart import PIXART, PIXART_PAG
from icm_pipeline.backbones.families.prx import PRX, PRX_PIXEL
from icm_pipeline.backbones.families.qwen_image import QWEN_IMAGE, QWEN_IMAGE_EDIT
from icm_pipeline.backbones.families.sana import SANA, SANA_PAG, SANA_SPRINT
from icm_pipeline.backbones.families.sd3 import SD3, SD3_PAG
from icm_pipeline.backbones.families.stable_cascade import STABLE_CASCADE_DECODER, STABLE_CASCADE_PRIOR
from icm_pipeline.backbones.families.stable_diffusion import (
    INSTRUCT_PIX2PIX,
    KOLORS,
    KOLORS_PAG,
    LATENT_CONSISTENCY,
    PERTURBED,
    PERTURBED_XL,
    SDXL,
    STABLE_DIFFUSION,
)
from icm_pipeline.backbones.families.z_image import Z_IMAGE, Z_IMAGE_OMNI
from icm_pipeline.backbones.family_checks import check_family
from icm_pipeline.backbones.guidance import MODULAR as MODULAR_LAYOUT
from icm_pipeline.backbones.loading import load_pipeline
from icm_pipeline.backbones.schedulers import use_scheduler
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.config.choices import SET_FOR_EVERY_CALL
from icm_pipeline.config.models import ComputeConfig, ModelConfig
from icm_pipeline.text import did_you_mean

FAMILIES = (
    STABLE_DIFFUSION, SDXL, PERTURBED, PERTURBED_XL, SANA, FLUX, SD3, PIXART, Z_IMAGE, QWEN_IMAGE, FLUX2, FLUX2_KLEIN,
    CHROMA, AURAFLOW, LUMINA2, SANA_SPRINT, LATENT_CONSISTENCY, KOLORS, HUNYUAN_DIT, COGVIEW4, COGVIEW3PLUS,
    HIDREAM, KANDINSKY3, KANDINSKY5, STABLE_CASCADE_PRIOR, DEEPFLOYD_IF, BRIA, OVIS_IMAGE, LONGCAT_IMAGE, KREA2,
    NUCLEUS_IMAGE, HUNYUAN_IMAGE, GLM_IMAGE, ERNIE_IMAGE, LUMINA, FLUX_KONTEXT, SD3_PAG, SANA_PAG,
    PIXART_PAG, HUNYUAN_DIT_PAG, KOLORS_PAG, PRX, PRX_PIXEL, COSMOS2, BRIA_FIBO, OMNIGEN, STABLE_CASCADE_DECODER,
    Z_IMAGE_OMNI, FLUX2_KLEIN_KV, QWEN_IMAGE_EDIT, INSTRUCT_PIX2PIX,
)  # fmt: skip
# The modular pipelines, and whose denoisers they run; each of their calls is one prediction.
MODULAR = {
    "StableDiffusionXLModularPipeline": SDXL,
    "StableDiffusion3ModularPipeline": SD3,
    "FluxModularPipeline": FLUX,
    "FluxKontextModularPipeline": FLUX_KONTEXT,
    "Flux2ModularPipeline": FLUX2,
    "Flux2KleinModularPipeline": FLUX2_KLEIN,
    "Flux2KleinBaseModularPipeline": FLUX2_KLEIN,
    "QwenImageModularPipeline": QWEN_IMAGE,
    "ZImageModularPipeline": Z_IMAGE,
    "Krea2ModularPipeline": KREA2,
    "ErnieImageModularPipeline": ERNIE_IMAGE,
}
OWN: list[Family] = []  # what users and installed packages have registered
GROUP = "icm_pipeline.families"
_MODULE_OF: dict[str, str] = {}  # what registered each of them, by the family's name
_LOOKED_UP: set[tuple[str, str]] = set()
# What is loaded from a path, and what can be attached to.
PIPELINES: dict[str, Family] = {
    pipeline: family for family in FAMILIES if family.to_pixels for pipeline in family.pipelines
}
ATTACHABLE = {pipeline: family for family in FAMILIES for pipeline in (*family.pipelines, *family.also)}

log = logging.getLogger(__name__)


def family_of(pipeline_class: str) -> Family:
    """Return the family of a pipeline class; raises BackboneError listing the classes there are."""
    if pipeline_class not in PIPELINES:
        raise BackboneError(f"A {pipeline_class} is not known here. Known pipelines: {', '.join(PIPELINES)}.")
    return PIPELINES[pipeline_class]


def register_family(family: Family, *, replace: bool = False) -> Family:
    """Make a family of one's own known to `attach`, `steer` and `record`, by its classes' names, and return it.

    The module or notebook that registered a family may register it again, in its place; replace: so may any other.
    Installed packages can give families too: entry points of the group `icm_pipeline.families`, each a Family or a
    module that registers some. Raises BackboneError for a name or a class that is known already, and for what is no
    family: names, functions, patterns, a layout or an order that cannot be.
    """
    return _register(family, sys._getframe(1).f_globals.get("__name__", ""), replace)


def _register(family: Family, module: str, replacing: bool = False) -> Family:
    """Register a family that a module gives; raises BackboneError."""
    check_family(family)
    names = (family.name, *family.pipelines, *family.also)
    if len(names) == 1:
        raise BackboneError(f"{family.name} has no pipelines: name the classes that it is for, as ('MyPipeline',).")
    known = known_families()
    before = next((each for each in OWN if each.name == family.name), None)
    if before is not None and not replacing and _MODULE_OF.get(family.name) != module:
        raise BackboneError(
            f"{family.name} is known already, from {_MODULE_OF.get(family.name)}: give your family another name, or "
            "replace=True to put it in that one's place."
        )
    others = [each for each in known if each is not before]
    taken = {name for each in others for name in (each.name, *each.pipelines, *each.also)} | MODULAR.keys()
    if clashes := [name for name in names if name in taken]:
        raise BackboneError(f"{', '.join(clashes)} is known already: give your family, and its class, another name.")
    OWN[:] = [each for each in OWN if each.name != family.name] + [family]
    _MODULE_OF[family.name] = module
    return family


def attach(
    pipe: Any,
    sites: Mapping[str, str] | None = None,
    name: str | None = None,
    family: Family | str | None = None,
) -> Backbone:
    """Return the backbone around a pipeline that its user loaded. sites: patterns by kind; None: the family's own.

    A class derived from a known one is known if it makes its images as that one does. Known are besides those that make
    an image of a prompt alone the img2img, inpaint and ControlNet classes of the same layout. family: what to take a
    class for that is not known, a known family's name or one of your own. A backbone is returned as it is, so that
    `steer` and `record` take one in a pipeline's place. Raises BackboneError.

    Example:
        backbone = attach(StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5"))
        backbone.layers  # the names that `steer`, `record` and `hooked` take
        attach(pipe, family="flux")  # a pipeline of somebody's own around FLUX's denoiser
        attach(pipe, family=replace(FLUX, name="mine", rows="embedded"))
    """
    if isinstance(pipe, Backbone):
        return pipe
    family = family_of_class(type(pipe)) if family is None else _checked(family)
    if any(base.__name__ == "ModularPipeline" for base in type(pipe).__mro__):
        family = replace(family, rows=MODULAR_LAYOUT)
    denoiser = getattr(pipe, family.denoiser, None)
    if denoiser is None:
        raise BackboneError(f"This {type(pipe).__name__} has no {family.denoiser}: load it with one.")
    found = find_sites(denoiser, sites or family.sites)
    backbone = Backbone(name or type(pipe).__name__, pipe, family, found)
    for site in found if sites else ():
        family.site(site.module)  # refuses text
        backbone.check_own(site)
    return backbone


def _checked(family: Family | str) -> Family:
    """Return a family by name, or one of a user's own; raises BackboneError for a name that is not known."""
    if isinstance(family, str):
        known = {each.name: each for each in known_families()}
        if family not in known:
            raise BackboneError(f"family={family!r} is not known here. Known: {', '.join(known)}.")
        return known[family]
    check_family(family)
    return family


def known_families() -> tuple[Family, ...]:
    """Return all that are known, with those that installed packages and the user have registered.

    An entry point that gives none costs a warning, once, and no other family.
    """
    new = [entry for entry in entry_points(group=GROUP) if (entry.name, entry.value) not in _LOOKED_UP]
    _LOOKED_UP.update((entry.name, entry.value) for entry in new)
    for entry in new:
        try:
            _take(entry)
        except Exception as error:  # somebody else's package, which may raise anything when it is imported
            package = entry.dist.name if entry.dist else entry.value
            reason = str(error) if isinstance(error, BackboneError) else f"{type(error).__name__}: {error}"
            log.warning(
                "The package %s gives no family of pipelines by its entry point %s = %s: %s",
                package, entry.name, entry.value, reason,
            )  # fmt: skip
    return (*FAMILIES, *OWN)


def _take(entry: EntryPoint) -> None:
    """Register what an entry point gives; raises BackboneError for what is neither a family nor a module."""
    found = entry.load()
    if isinstance(found, ModuleType) or any(each is found for each in OWN):  # which have registered theirs themselves
        return
    if not isinstance(found, Family):
        raise BackboneError(f"it is a {type(found).__name__}; give a Family, or a module that registers some.")
    _register(found, entry.value)


def family_of_class(pipeline_class: type) -> Family:
    """Return the family of the known class that a class is or derives from.

    Raises BackboneError for a class that only resembles one, as one of the same name.
    """
    import diffusers

    name = pipeline_class.__name__
    exact = ATTACHABLE.get(name) or MODULAR.get(name)
    if exact is not None and getattr(diffusers, name) is pipeline_class:  # whose name no other family may take
        return exact
    own = {
        called: family for family in known_families()[len(FAMILIES) :] for called in (*family.pipelines, *family.also)
    }
    if name in own:
        return own[name]
    known = f"Known pipelines: {', '.join([*ATTACHABLE, *MODULAR, *own])}."
    for base in pipeline_class.__mro__:
        if base.__name__ in MODULAR and getattr(diffusers, base.__name__) is base:
            return MODULAR[base.__name__]
        if base.__name__.endswith("ModularPipeline") and base.__module__.startswith("diffusers."):
            break  # one that is not known, derived from one that is: another number of pictures, or another loop
        if base.__name__ in ATTACHABLE and getattr(diffusers, base.__name__) is base:
            if pipeline_class.__call__ is base.__call__:
                return ATTACHABLE[base.__name__]
            raise BackboneError(
                f"A {name} is a {base.__name__} of diffusers with a __call__ of its own, so which "
                f"rows of a call are conditional is not known. {known}"
            )
    of = f" of {pipeline_class.__module__}" if name in ATTACHABLE else ""
    raise BackboneError(f"A {name}{of} is not known here. {known}")


def load_backbone(model: ModelConfig, compute: ComputeConfig) -> Backbone:
    """Load a pipeline from a local folder, an embedded one or the hub, ready to make images; raises BackboneError."""
    pipe = load_pipeline(model, compute, {name: family.denoiser for name, family in PIPELINES.items()})
    use_scheduler(pipe, model.scheduler)
    backbone = attach(pipe, model.sites, model.name)
    _check_options(type(pipe), model.call)
    family = backbone.family
    size = family.default_size(pipe)
    sampling = Sampling(
        num_steps=model.num_steps,
        guidance_scale=model.guidance_scale,
        height=model.height or size,
        width=model.width or size,
        options={**family.options, **model.call},
        decode_batch_size=compute.decode_batch_size,
    )
    _check_size(family, pipe, sampling)
    return replace(backbone, sampling=sampling)


def _check_options(pipeline_class: type, options: Mapping[str, Any]) -> None:
    """Raise BackboneError for an argument that a pipeline's call does not name; with **kwargs it would be ignored."""
    parameters = inspect.signature(pipeline_class.__call__).parameters.values()
    named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD and each.name != "self"]
    known = [name for name in named if name not in SET_FOR_EVERY_CALL]
    for name in options:
        if name not in known:
            raise BackboneError(
                f"model.call.{name} is no argument of {pipeline_class.__name__}.{did_you_mean(name, known)} "
                f"It takes: {', '.join(known)}."
            )


def _check_size(family: Family, pipe: Any, sampling: Sampling) -> None:
    step, largest = family.size_step(pipe), family.largest_size(pipe)
    for setting, value in (("height", sampling.height), ("width", sampling.width)):
        if value < step or value % step:
            below = max(step, value - value % step)
            raise BackboneError(
                f"model.{setting}={value} is not a size that {type(pipe).__name__} can make: it must be a multiple of "
                f"{step}. The nearest are {below} and {below + step}."
            )
        if largest is not None and value > largest:
            raise BackboneError(f"model.{setting}={value} is more than this model's largest size, {largest}.")
    height, width = family.made_size(pipe, sampling.height, sampling.width)
    if (height, width) != (sampling.height, sampling.width):
        raise BackboneError(
            f"model.height={sampling.height} and model.width={sampling.width} are no size that runs make with "
            f"{type(pipe).__name__}, which has sizes of its own: set model.height={height} and model.width={width}."
        )
