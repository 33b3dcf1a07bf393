"""The part of the schema that says how thoroughly an audit looks."""

from dataclasses import dataclass, field

from icm_pipeline.config.bounds import COUNT, number, one_of

CLAIMS = ("separability", "kinds", "implicit", "stability", "causality", "changes", "judge", "confirmation")
SIZES = ("full", "half", "quick")


@dataclass
class AuditSizeConfig:
    """How much an audit of one size makes and repeats."""

    num_splits: int = field(metadata=number(at_least=2))
    """Of the probe dataset, into training and held-out images."""
    num_shuffles: int = field(metadata=number(at_least=20))
    """Of the labels, behind the null of the maximum."""
    num_resamples: int = field(metadata=number(at_least=20))
    """Of images, behind each interval."""
    num_steps: int = field(metadata=COUNT)
    """Recorded steps that are probed again."""
    named_images: int = field(metadata=COUNT)
    """Of probe prompts that name an option."""
    num_sets: int = field(metadata=number(at_least=2))
    """Random sets of layers, and random directions, that are pushed."""
    images_per_set: int = field(metadata=COUNT)
    """Of the evaluation images, for each set; other pushes have so many times as much (stages/push.py)."""
    layer_images: int = field(metadata=COUNT)
    """For each layer that is pushed alone, over all tuning prompts."""


@dataclass
class AuditConfig:
    """What stage=audit checks, and how thoroughly."""

    included: bool
    """Whether stage=all audits as well."""
    size: str = field(metadata=one_of(*SIZES))
    sizes: dict[str, AuditSizeConfig]
    claims: list[str]
    """Those to check; empty for all."""
    labelled: str | None
    """A folder of images with a CSV table of what they truly show, for the judge's errors."""
    other_subjects: list[str]
    """Prompts without what the attribute is about, which steering must leave as they are."""

    @property
    def chosen(self) -> AuditSizeConfig:
        """The size that was asked for."""
        return self.sizes[self.size]

    @property
    def asked(self) -> tuple[str, ...]:
        """The claims to check, in the order of CLAIMS."""
        return tuple(name for name in CLAIMS if not self.claims or name in self.claims)
