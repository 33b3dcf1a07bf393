"""The part of the schema that says how methods are held against one another."""

from dataclasses import dataclass, field

from icm_pipeline.config.bounds import COUNT, number, one_of

SIZES = ("full", "quick")


@dataclass
class BenchSizeConfig:
    """How much a bench of one size makes of each method."""

    images_per_prompt: int = field(metadata=COUNT)
    """Of each evaluation prompt; experiment=bench takes it for evaluate.images_per_prompt."""
    tuning_prompts: int = field(metadata=COUNT)
    tuning_images: int = field(metadata=COUNT)
    """Of each tuning prompt, at each strength."""
    named_prompts: int = field(metadata=COUNT)
    """Prompts that name an option."""
    named_images: int = field(metadata=COUNT)
    """Of each of them, with the method and without."""


@dataclass
class BenchConfig:
    """Whether methods are benched, and how; a configuration that was saved before it was there is not."""

    included: bool = False
    """Whether stage=all tries the method's strengths, steers by the best, and looks at prompts that name an option."""
    size: str = field(default="full", metadata=one_of(*SIZES))
    sizes: dict[str, BenchSizeConfig] = field(default_factory=dict)
    clip_i: float = field(default=0.9, metadata=number(at_least=0, at_most=1))
    """The least CLIP-I that a strength may have to be chosen."""

    @property
    def chosen(self) -> BenchSizeConfig:
        """The size that was asked for."""
        return self.sizes[self.size]
