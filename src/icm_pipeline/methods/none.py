"""No intervention: the steered set equals the originals.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

from contextlib import nullcontext

from icm_pipeline.methods.base import Method

METHOD = Method(
    name="none",
    applied=lambda backbone, inputs, jobs: nullcontext(),
    words=lambda steering: ["no steering"],
    needs=("probe", "select"),
    reads=("method.name", "method.assignment", "method.draw_size", "method.target_shares"),  # who would be steered
    from_first_step=True,
    asks_for="nothing",
)
