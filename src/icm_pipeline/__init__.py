"""icm_pipeline: find the layers where a diffusion model decides what a prompt leaves open, and change the decision.

The method is ICM of "Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models"
(CVPR 2026, arXiv 2604.06052).
"""

__version__ = "0.1.0"
