"""What the arms of stage=push and stage=causal come to, by the judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.metrics.outcomes import hard_labels, one_hot_labels
from icm_pipeline.metrics.similarity import mapped_cosine, pair_by_id
from icm_pipeline.results.effects import Pushes, Sort, arm_of
from icm_pipeline.store.artifacts import Artifact


@dataclass(frozen=True, eq=False)
class Trials:
    """Evaluation images unsteered and in the arms that push them; NaN where an arm does not have an image."""

    prompts: Ints
    """[n]."""
    wanted: Ints
    """[n], the index of the option."""
    num_options: int
    arms: Pushes
    before: Floats
    """[n, K], what the judge sees unsteered."""
    after: dict[str, Floats]
    """{arm: [n, K]}; `selected`, which has all images, is the run's own steering."""
    pushed: dict[str, Bools]
    """{arm: which images it has [n]}."""
    moved: dict[str, Floats]
    """{arm: 1 - CLIP-I [n]}."""

    def named(self, sort: Sort) -> list[str]:
        """Return the arms of a sort."""
        return [name for name, arm in self.arms.arms.items() if arm.sort == sort]

    def obeyed(self, arm: str) -> Floats:
        """Return which images [n] show what they were pushed to, 1 or 0; those that the judge could not see do not."""
        obeyed: Floats = np.where(self.pushed[arm], hard_labels(self.after[arm]) == self.wanted, np.nan)
        return obeyed

    @property
    def obeyed_unsteered(self) -> Floats:
        return np.equal(hard_labels(self.before), self.wanted).astype(float)

    @property
    def strata(self) -> Ints:
        """Prompt and option of each image [n], which the design fixes."""
        return self.prompts * self.num_options + self.wanted


def trials_of(inputs: AuditInputs) -> Trials:
    """Return the trials of an audit; where the run left images alone, the arm that pushes all is its own steering."""
    settings, push = inputs.settings, inputs.artifacts["push"]
    pushes, rows = Pushes.read(push), by_arm(push)
    arms = {name: rows[name] for name, arm in pushes.arms.items() if arm.sort in TRIED}
    ids = sorted({arm_of(row.image_id)[1] for own in arms.values() for row in own})
    if "selected" not in arms:
        arms["selected"] = rows_named(inputs.artifacts["steer"], ids)
    twins, numbers = rows_named(inputs.artifacts["originals"], ids), {each: number for number, each in enumerate(ids)}
    places = {name: [numbers[arm_of(row.image_id)[1]] for row in own] for name, own in arms.items()}
    seen = shown_of(inputs, {"": twins, **arms})
    every = [*twins, *(row for own in arms.values() for row in own)]
    ends = np.cumsum([len(twins), *(len(own) for own in arms.values())])[:-1]
    unsteered, *embedded = np.split(inputs.judging.embed(every), ends)
    moved = {name: 1 - mapped_cosine(part, unsteered[places[name]]) for name, part in zip(arms, embedded, strict=True)}
    wanted = spread(wanted_of(settings, arms["selected"]), places["selected"], len(ids)).astype(np.int64)
    return Trials(
        prompts_of(twins), wanted, len(settings.attribute.options), pushes, seen.pop(""),
        {name: spread(shown, places[name], len(ids)) for name, shown in seen.items()},
        {name: np.isin(np.arange(len(ids)), own) for name, own in places.items()},
        {name: spread(values, places[name], len(ids)) for name, values in moved.items()},
    )  # fmt: skip


def spread(values: Floats | Ints, places: Sequence[int], num: int) -> Floats:
    """Return the values of some of so many images [num, ...] at their places; NaN elsewhere."""
    found = np.full((num, *values.shape[1:]), np.nan)
    found[places] = values
    return found


TRIED = ("selected", "random_layers", "worst_layers", "random_direction")


def rows_named(artifact: Artifact, ids: Sequence[str]) -> list[ImageRow]:
    """Return the images of these names, in their order; raises ValueError for one that there is not."""
    rows = [row for row in read_table(artifact) if row.image_id in ids]
    return [rows[index] for index in pair_by_id(list(ids), [row.image_id for row in rows])]


def steered_twins(inputs: AuditInputs) -> tuple[list[ImageRow], list[ImageRow]]:
    """Return the run's steered images and their unsteered twins."""
    steered = read_table(inputs.artifacts["steer"])
    return steered, rows_named(inputs.artifacts["originals"], [row.image_id for row in steered])


def prompts_of(rows: Sequence[ImageRow]) -> Ints:
    """Return the number of each image's prompt [n]."""
    return np.array([row.prompt_index for row in rows])


def wanted_of(settings: Settings, rows: Sequence[ImageRow]) -> Ints:
    """Return the index of the option that each image was steered to [n], -1 for none."""
    names = list(settings.attribute.options)
    return np.array([names.index(row.option) if row.option else -1 for row in rows])


def strata_of(settings: Settings, rows: Sequence[ImageRow]) -> Ints:
    """Return a number for the prompt and the option of each image [n], which the design fixes."""
    return prompts_of(rows) * (1 + len(settings.attribute.options)) + wanted_of(settings, rows) + 1


def by_arm(artifact: Artifact) -> dict[str, list[ImageRow]]:
    """Return the images of each arm, in order."""
    found: dict[str, list[ImageRow]] = {}
    for row in read_table(artifact):
        found.setdefault(arm_of(row.image_id)[0], []).append(row)
    return found


def shown_of(inputs: AuditInputs, groups: dict[str, list[ImageRow]]) -> dict[str, Floats]:
    """Return what the judge sees of the attribute in each group of images {name: [n, K]}, asked at once."""
    settings, attribute = inputs.settings, inputs.settings.attribute
    rows = [row for own in groups.values() for row in own]
    seen = inputs.judging.label(settings.judge, "judge", rows, {attribute.name: attribute.options})[attribute.name]
    ends = np.cumsum([len(own) for own in groups.values()])
    return dict(zip(groups, np.split(seen, ends[:-1]), strict=True))


def as_fd_counts(settings: Settings, shown: Floats) -> Floats:
    """Return probabilities [..., n, K] as FD counts them: themselves, or hard labels."""
    if settings.evaluate.fd == "probabilities":
        return shown
    flat = one_hot_labels(shown.reshape(-1, shown.shape[-1]))
    return flat.reshape(shown.shape)


def stacked(values: Sequence[Floats | Bools]) -> Floats:
    """Return the figures of several arms as one array [arms, ...]."""
    return np.stack([np.asarray(each, float) for each in values])
