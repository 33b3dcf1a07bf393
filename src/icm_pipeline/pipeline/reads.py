"""The settings that change what stages make, in groups: a stage's key stands for those that it reads."""

from dataclasses import fields

from icm_pipeline.config.models import ComputeConfig


def under(group: str, *names: str) -> tuple[str, ...]:
    """Return the dotted names of settings of a group."""
    return tuple(f"{group}.{name}" for name in names)


MODEL = (
    *under("model", "path", "revision", "variant", "num_steps", "guidance_scale", "scheduler", "height", "width",
            "call"),
    *under("compute", "dtype", "vae_tiling"),
)  # fmt: skip
# What changes images by rounding at most: part of no key, but told in the manifest of what the model made.
ROUNDING = tuple(name for each in fields(ComputeConfig) if (name := f"compute.{each.name}") not in MODEL)
PROBE_DATASET = (
    *MODEL, *under("attribute", "probe_templates", "probe_subjects"), "generate.images_per_prompt", "seed",
)  # fmt: skip
RECORDING = ("model.sites", "timesteps.start", "timesteps.count")
EVALUATION_SET = (
    *MODEL, "attribute.evaluation_prompts", *under("evaluate", "images_per_prompt", "seeds_before"), "seed",
)  # fmt: skip
JUDGE = ("kind", "model", "path", "faces", "detector")
LABELLING = (*under("labeler", *JUDGE, "groups"), "attribute.name", "attribute.options")
AUDITING = (
    *under("judge", *JUDGE, "groups"), *LABELLING, *under("evaluate", "clip.model", "clip.path", "drift", "fd"),
)  # fmt: skip
JUDGING = (*AUDITING, *under("evaluate", "bootstrap", "reference", "inception"))
EVALUATED, EVALUATED_FOLDER = ("evaluate.images_per_prompt",), ("method.target_shares", "seed")
PROBING = (
    *under("probe", "C", "max_iter", "solver", "test_share", "group_by_prompt", "shuffle_labels"), "attribute.name",
    "seed",
)  # fmt: skip
FORETELLING = (*under("probe", "group_by_prompt", "shuffle_labels"), "attribute.name", "seed")
TUNING = (
    *MODEL, "model.steering.alpha",
    *under("method", "name", "params", "direction", "alpha_unit", "first_step", "last_step", "vector",
            "norm_preserving", "wanted_share"),
    *under("attribute", "probe_templates", "probe_subjects", "trial_subjects", "options"),
    "seed",
)  # fmt: skip
PUSHING = ("alpha", *under("method", "name", "params", "direction", "alpha_unit", "first_step", "last_step", "vector",
                            "norm_preserving"), "attribute.options")  # fmt: skip
NAMED = under("attribute", "named", "probe_templates", "probe_subjects", "trial_subjects")
