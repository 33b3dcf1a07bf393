"""What a scheduler and random generators remember at one pass of a run, so that they can be set back to it.

Schedulers keep a history (multistep, Heun), count their steps and draw noise; all of it lies in their attributes and in
the generators. Objects of other kinds, as a sampler that gives the same noise for the same step, stay as they are.
Torch's own generators belong to all threads: they are set back only where this thread's scheduler drew from them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLAIN = (type(None), bool, int, float, str, np.generic, torch.device, torch.dtype)


@dataclass(frozen=True)
class Snapshot:
    """A scheduler and generators as they were before it stepped."""

    sample: Tensor
    """The latents that it was given."""
    state: dict[str, Any]
    generators: list[tuple[torch.Generator, Tensor]]
    default_states: list[tuple[torch.device, Tensor]]
    """Of the generators that are torch's own."""

    def put_back(self, scheduler: Any, has_drawn: bool) -> None:
        """Set all back; has_drawn: whether the scheduler drew from torch's own generators since."""
        own = vars(scheduler)
        for name in [name for name, value in own.items() if _is_data(value) and name not in self.state]:
            del own[name]
        own.update({name: value for name, value in self.state.items() if _is_data(own.get(name))})
        for generator, state in self.generators:
            generator.set_state(state)
        for device, state in self.default_states if has_drawn else ():
            _random(device).set_rng_state(state, *_argument(device))


class Draws(TorchDispatchMode):
    """Notes whether its thread draws from torch's own generators while it is entered."""

    has_drawn = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            self.has_drawn = True
        return func(*args, **kwargs)


def snapshot(scheduler: Any, sample: Tensor, generator: Any) -> Snapshot:
    """Note a scheduler's state before a step; generator: what the step is given, one, a list of them or None."""
    given = generator if isinstance(generator, (list, tuple)) else [generator]
    drawn_from = {id(each): each for each in given if isinstance(each, torch.Generator)}.values()
    return Snapshot(
        sample.detach().clone(),
        {name: _copied(value) for name, value in vars(scheduler).items() if _is_data(value)},
        [(each, each.get_state()) for each in drawn_from],
        [
            (device, _random(device).get_rng_state(*_argument(device)))
            for device in {torch.device("cpu"), sample.device}
        ],
    )


def _is_data(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return all(map(_is_data, value))
    if type(value) is dict:
        return all(map(_is_data, value.values()))
    return isinstance(value, (*PLAIN, Tensor, np.ndarray))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple, set):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {name: _copied(inside) for name, inside in value.items()}
    return value


def _random(device: torch.device) -> Any:
    """Return the module that knows the state of a device's own generator."""
    return torch if device.type == "cpu" else torch.get_device_module(device)


def _argument(device: torch.device) -> tuple[torch.device, ...]:
    return (device,) if device.type in ("cuda", "xpu") else ()
