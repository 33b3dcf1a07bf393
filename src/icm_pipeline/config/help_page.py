"""The groups of `--help`: what each is about, an example, and the choices there are in conf/."""

import textwrap

from icm_pipeline.config.conf_folder import conf_path

# In the order in which a newcomer meets them: {group: (what it is about, words to try)}.
GROUPS = {
    "experiment": ("a whole run or sweep by name, for a table or figure", "experiment=alpha_sweep"),
    "model": ("what generates the images", "model=sdxl model.path=/models/sdxl"),
    "world": ("what its pictures show, and so who judges them", "model=local model.path=/mine world=portraits"),
    "compute": ("where and how it computes; compute.device moves judges and probes with it", "compute=cpu"),
    "attribute": ("the choice that prompts leave open, its options and prompts", "attribute=age"),
    "evaluation": ("which prompts are evaluated, in place of the attribute's own", "evaluation=world"),
    "layers": ("which layers are steered", "layers=cross_attention layers.k=3"),
    "timesteps": ("which denoising steps are recorded and probed", "timesteps=five"),
    "window": ("which denoising steps are steered", "+window=last_half"),
    "method": ("how generation is changed", "method=none"),
    "labeler": ("who labels the probe dataset; labeler@judge judges the results", "labeler@judge=fairface"),
    "evaluate": ("what is measured, on which images", "evaluate=people evaluate.images_per_prompt=50"),
    "tracker": ("where figures and pictures go", "tracker=csv"),
    "hydra/launcher": (
        "where --multirun jobs run (also: basic, joblib)",
        "hydra/launcher=slurm_gpu hydra.launcher.mem_gb=80",
    ),
    "pretrain": ("training the embedded models", "stage=pretrain pretrain.part=clip"),
    "paths": ("where results go", "paths.outputs=/data/outputs"),
}
NO_CHOICES = ("base",)  # what the other files of a group start from
INDENT = 16


def groups_help() -> str:
    """Return two or more lines per group: what it is about with an example, and its choices."""
    lines = []
    for group, (about, example) in GROUPS.items():
        lines.append(f"{group:<{INDENT}}{about}; {example}")
        lines.append(textwrap.fill(" ".join(choices_of(group)), 100, initial_indent=INDENT * " ",
                                   subsequent_indent=INDENT * " ", break_on_hyphens=False))  # fmt: skip
    return "\n".join(lines)


def choices_of(group: str) -> list[str]:
    names = sorted(path.stem for path in (conf_path() / group).glob("*.yaml"))
    return [name for name in names if name not in NO_CHOICES]
