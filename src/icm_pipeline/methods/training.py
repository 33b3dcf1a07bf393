"""The one training loop of methods that learn by gradients: seeded, clipped, resumed from its last checkpoint.

Update i draws everything random from a generator of its own, and a checkpoint holds what is trained and the optimiser,
so a fit that was killed comes to the same result.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole

CHECKPOINT = "training.safetensors"
UPDATE = "update"  # in the checkpoint's metadata
CLIP = 1.0  # the longest that the gradient of all parameters together may be
CHECKPOINTS = 10  # of a whole fit, and lines in the log
log = logging.getLogger(__name__)


def train(
    parameters: Mapping[str, Tensor], loss: Callable[[int, torch.Generator], Tensor], updates: int,
    rates: Mapping[str, float] | float, seed: int, folder: Path, *, decay: float = 0.0, whole: int = 1,
) -> None:  # fmt: skip
    """Train leaf tensors in place, by AdamW: loss(update, generator) -> what is to be least.

    rates: the learning rate, or that of each parameter; decay: of weights; whole: updates between which nothing is
    interrupted. The folder's checkpoint stays: `forget` removes it. Raises ConfigError for a loss that is not finite.
    """
    groups = [
        {"params": [tensor], "lr": rates if isinstance(rates, int | float) else rates[name]}
        for name, tensor in parameters.items()
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=decay)
    first = _resume(parameters, optimiser, folder)
    every = math.ceil(updates / CHECKPOINTS / whole) * whole
    shown = 0.0
    device = next(iter(parameters.values())).device.type
    with working("fit", updates, "update", done=first) as work:
        for update in range(first, updates):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + update)
            with torch.enable_grad(), _plain_attention(device):
                value = loss(update, generator)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
            found = float(value.detach())
            if not math.isfinite(found):
                raise ConfigError(
                    f"The loss of the fit is {found} at update {update} of {updates}: set a lower learning rate in "
                    "method.params, or compute.dtype=float32."
                )
            nn.utils.clip_grad_norm_(list(parameters.values()), CLIP)
            optimiser.step()
            shown = found if update == first else 0.9 * shown + 0.1 * found
            if (update + 1) % every == 0 or update + 1 == updates:
                log.info("fit: update %d of %d, loss %.5f", update + 1, updates, shown)
                _save(parameters, optimiser, folder, update + 1)
            work.advance(note=f"loss {shown:.5f}")


def forget(folder: Path, *names: str) -> None:
    """Remove the checkpoint, and other files that a finished fit needs no more."""
    for name in (CHECKPOINT, *names):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let no weight of a module get a gradient; those that it gets meanwhile are their owner's affair."""
    before = [(weight, weight.requires_grad) for weight in module.parameters()]
    try:
        for weight, _ in before:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, needed in before:
            weight.requires_grad_(needed)


def _plain_attention(device: str) -> AbstractContextManager[Any]:
    """On a CPU attend by plain products, as fused attention is several times slower backwards at small sizes."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def _save(parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, folder: Path, update: int) -> None:
    tensors = {f"parameter/{name}": tensor.detach() for name, tensor in parameters.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"state/{index}/{name}": tensor for name, tensor in state.items()}
    with written_whole(folder / CHECKPOINT) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {UPDATE: str(update)})


def _resume(parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, folder: Path) -> int:
    """Take up the checkpoint, if there is one, and return how many updates it is after."""
    if not (folder / CHECKPOINT).exists():
        return 0
    states = dict[int, dict[str, Tensor]]()
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            kind, _, name = key.partition("/")
            if kind == "parameter":
                parameters[name].data.copy_(file.get_tensor(key))
            else:
                index, _, name = name.partition("/")
                states.setdefault(int(index), {})[name] = file.get_tensor(key)
        update = int(file.metadata()[UPDATE])
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    log.info("fit: going on from update %d", update)
    return update
