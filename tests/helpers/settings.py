"""Settings that tests pin, and those of a run that takes seconds."""

# Names no folder and no embedded model has, so that a key never depends on weights that lie about.
NO_WEIGHTS = [
    "model.path=nobody/nothing",
    "labeler.path=no-tag",
    "judge.path=no-tag",
    "evaluate.clip.path=no-tag",
]
# Values that tests change and compare with; pinned, so that tuning a shipped default breaks no test.
PINNED = [
    "alpha=1",
    "layers.k=4",
    "method.first_step=0",
    "method.last_step=null",
    "method.direction=probe",
    "method.assignment=quota",
    "compute.batch_size=32",
    "model.num_steps=20",
    "generate.images_per_prompt=8",
    "evaluate.images_per_prompt=24",
]
# A run of all stages on the embedded models, of as few and small images as every stage needs.
TINY = (
    "model.path=embedded:tiny", "labeler.path=embedded:tiny-clip", "judge.path=embedded:tiny-classifier",
    "evaluate.clip.path=embedded:tiny-clip", "attribute.probe_subjects=[person]", "generate.images_per_prompt=1",
    "generate.shard_size=3", "compute.batch_size=3", "model.num_steps=4", "model.height=32", "model.width=32",
    "evaluate.images_per_prompt=2", "evaluate.bootstrap=5", "probe.min_per_option=2", "alpha=3", "layers.k=2",
    "labeler.batch_size=8", "method.first_step=1",
)  # fmt: skip
