"""A k-sparse autoencoder of whole maps: codes of few features, each with a direction of unit length.

x = (h - mean) / scale; z = the k largest of relu(E (x - b) + e), the others 0; x ~ b + sum over j of z_j D_j. Trained
to leave little of the variance of a batch unexplained.

References:
    Scaling and Evaluating Sparse Autoencoders (TopK), 2024, https://arxiv.org/abs/2406.04093, section 2.3
    Dissecting and Mitigating Diffusion Bias via Mechanistic Interpretability (DiffLens), 2025,
    https://arxiv.org/abs/2503.20483
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, normalize

from icm_pipeline.methods.training import train
from icm_pipeline.store.files import written_whole

FILE = "sparse_codes.safetensors"
Draw = Callable[[torch.Generator], Tensor]
"""generator -> a batch of maps [n, D]."""


@dataclass(frozen=True)
class SparseCodes:
    """A fitted autoencoder of maps [n, D] with F features."""

    mean: Tensor
    """[D]"""
    scale: Tensor
    """[], what one unit of the scaled maps is."""
    encoder: Tensor
    """[F, D]"""
    encoder_bias: Tensor
    """[F]"""
    decoder: Tensor
    """[F, D], rows of unit length."""
    bias: Tensor
    """[D]"""
    num_active: Tensor
    """[], k."""

    def to(self, device: str | torch.device) -> "SparseCodes":
        return SparseCodes(*(each.to(device) for each in vars(self).values()))

    def codes(self, h: Tensor) -> Tensor:
        """Return the codes [n, F] of maps [n, D]."""
        x = (h - self.mean) / self.scale
        return top(linear(x - self.bias, self.encoder, self.encoder_bias), int(self.num_active))

    def decoded(self, change: Tensor) -> Tensor:
        """Return what a change of codes [n, F] changes in maps [n, D]."""
        return self.scale * change @ self.decoder

    def unexplained(self, h: Tensor) -> float:
        """Return the share of the variance of maps [n, D] that their codes leave unexplained."""
        x = (h - self.mean) / self.scale
        return float(_unexplained(x, self.bias + self.codes(h) @ self.decoder))

    def save(self, folder: Path) -> None:
        with written_whole(folder / FILE) as partial:
            save_file({name: each.detach().cpu().contiguous() for name, each in vars(self).items()}, partial)


def load_codes(path: Path) -> SparseCodes:
    return SparseCodes(**load_file(path))


def top(values: Tensor, num_active: int) -> Tensor:
    """Return rows [n, F] with their largest so many values where these are positive, and 0 elsewhere."""
    largest = values.relu().topk(num_active, dim=1)
    return torch.zeros_like(values).scatter(1, largest.indices, largest.values)


def _unexplained(x: Tensor, found: Tensor) -> Tensor:
    return (x - found).square().sum() / (x - x.mean(0)).square().sum().clamp_min(1e-12)


def fit_codes(
    draw: Draw, mean: Tensor, scale: Tensor, num_features: int, num_active: int, updates: int, rate: float, seed: int,
    folder: Path,
) -> SparseCodes:  # fmt: skip
    """Train an autoencoder of so many features, of which so many are active in a map; see `training.train`.

    mean: [D], scale: [], of all maps. Raises ValueError for more active features than there are.
    """
    if not 0 < num_active <= num_features:
        raise ValueError(f"method.params.active={num_active} of {num_features} features: give 1 to {num_features}.")
    start = torch.randn(num_features, len(mean), generator=torch.Generator().manual_seed(seed))
    start = normalize(start, dim=1).to(mean.device)
    trained = {
        "encoder": start.clone(), "encoder_bias": start.new_zeros(num_features), "decoder": start.clone(),
        "bias": torch.zeros_like(mean),
    }  # fmt: skip
    for tensor in trained.values():
        tensor.requires_grad_()

    def loss(update: int, generator: torch.Generator) -> Tensor:
        x = (draw(generator).to(mean.device) - mean) / scale
        codes = top(linear(x - trained["bias"], trained["encoder"], trained["encoder_bias"]), num_active)
        return _unexplained(x, trained["bias"] + codes @ normalize(trained["decoder"], dim=1))

    train(trained, loss, updates, rate, seed, folder)
    found = {name: tensor.detach() for name, tensor in trained.items()}
    found["decoder"] = normalize(found["decoder"], dim=1)
    return SparseCodes(mean=mean, scale=scale, num_active=torch.tensor(num_active, device=mean.device), **found)
