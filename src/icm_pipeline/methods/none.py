"""No intervention: the steered set equals the originals."""

from contextlib import nullcontext

from icm_pipeline.methods.base import Method

METHOD = Method(
    name="none",
    applied=lambda backbone, inputs, jobs: nullcontext(),
    words=lambda steering: ["no steering"],
    needs=("probe", "select"),
    reads=("method.name", "method.assignment", "method.draw_size", "method.target_shares"),  # who would be steered
    from_first_step=True,
)
