"""The part of the schema that says what stage=explore opens, and what it shows first."""

from dataclasses import dataclass, field

from icm_pipeline.config.bounds import COUNT, number

LARGEST_IMAGE_SEED = 2**53 - 1  # that a browser's numbers hold


@dataclass
class ExploreConfig:
    """What is explored, and the setting that the page begins with; a configuration saved before it opens its own run.

    What is None is as the run steered.
    """

    of: str | None = None
    """An artifact, by its folder or key, or the folder of a run or a sweep; None for what this configuration made."""
    vectors: str | None = None
    """A file of steering vectors for the model, or a repository of the hub with one, in a run's place."""
    prompt: str | None = None
    image_seed: int = field(default=0, metadata=number(at_least=0, at_most=LARGEST_IMAGE_SEED))
    """The first image's; the next one's is one more."""
    num_images: int = field(default=2, metadata=COUNT)
    way: str = "published"
    option: str | None = None
    """What images are steered to."""
    alpha: float | None = field(default=None, metadata=number(at_least=0, null="what the vectors were used with"))
    balanced: bool = False
    """Whether images get equal shares of all options, in place of one option for all."""
    layers: list[str] = field(default_factory=list)
    """None listed: those that the run selected."""
    first_step: int | None = field(default=None, metadata=number(at_least=0, null="the run's"))
    last_step: int | None = field(default=None, metadata=number(at_least=0, null="the run's"))
    save: str | None = None
    """A folder to write the pictures and the vectors to, in place of opening a page."""
    host: str = "127.0.0.1"
    port: int = field(default=7860, metadata=number(at_least=1, at_most=65535))
