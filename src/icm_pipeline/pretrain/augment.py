"""Blur, noise, shifts and tint for the judges' training, so that they read generated pictures as well as renders."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a disturbed copy of images [b, 3, h, w] in -1..1; each image draws its own disturbance."""
    b, _, h, w = images.shape
    shift = torch.randint(-2, 3, (b, 2), generator=generator)
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    moved = torch.stack([padded[i, :, 2 + y : 2 + y + h, 2 + x : 2 + x + w] for i, (y, x) in enumerate(shift.tolist())])
    blurred = functional.avg_pool2d(functional.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = torch.rand(b, 1, 1, 1, generator=generator).to(images.device)
    mixed = torch.lerp(moved, blurred, blur * (blur > 0.3))
    strength = 0.12 * torch.rand(b, 1, 1, 1, generator=generator)
    noise = strength * torch.randn(images.shape, generator=generator)
    tint = 0.06 * torch.randn(b, 3, 1, 1, generator=generator)
    return (mixed + (noise + tint).to(images.device)).clamp(-1, 1)
