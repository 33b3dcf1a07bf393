"""One resumable training loop for every part: AdamW, warm-up and cosine decay, an exponential average of the weights.

Step `i` draws everything random from a generator seeded with (seed, i), and a checkpoint holds weights, average and
optimizer, so a killed training resumes from its last checkpoint.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole

log = logging.getLogger(__name__)

Loss = tuple[Tensor, dict[str, Tensor]]  # the scalar to minimise, and figures to show


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how hard to train."""

    num_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str = "cpu"
    warmup_steps: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    """The most that the averaged weights keep of themselves at a step."""
    checkpoint_every: int = 500  # steps
    bf16: bool = True
    compile: bool = False

    def rate(self, step: int) -> float:
        """Return the learning rate factor of a step: linear warm-up, then cosine to 1 % of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class TrainingRun:
    """Where a training keeps its checkpoint, what it learns from, and who hears of its figures."""

    folder: Path
    data: str
    """Names the training data and the weights it began with; a checkpoint of other data is refused."""
    report: Callable[[dict[str, float]], None]


# What a checkpoint must share with the plan that goes on from it; a plan may be made longer or shorter.
FIXED = ("batch_size", "learning_rate", "seed", "warmup_steps", "weight_decay", "ema_decay")


def _check_origin(checkpoint: Path, found: dict[str, object], wanted: dict[str, object]) -> None:
    differing = [
        f"{key} {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{checkpoint} belongs to another training ({'; '.join(differing)}). Delete it to start over, or set "
            "pretrain.folder to another folder."
        )


def has_quick_bf16(device: str) -> bool:
    """Say whether bfloat16 makes training quicker there: on a CPU that multiplies it in hardware.

    On a GPU models as small as these wait for launches, of which casts make more.
    """
    if torch.device(device).type != "cpu":
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _save(path: Path, state: dict[str, object]) -> None:
    try:
        with written_whole(path) as partial:
            torch.save(state, partial)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(f"The checkpoint {path} could not be written ({error}). The one before it is kept.") from error


@contextmanager
def _quick_mathematics(device_type: str) -> Iterator[None]:
    """On a CPU attend with plain products, as fused attention is several times slower backwards at these sizes.

    On a GPU multiply in TF32 and attend memory-efficiently: with torch's own choice, in bfloat16, FLUX's loss was NaN.
    """
    before = torch.get_float32_matmul_precision()
    if device_type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        with sdpa_kernel(
            [SDPBackend.MATH] if device_type == "cpu" else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.no_grad()
def _average(average: dict[str, Tensor], live: dict[str, Tensor], weight: float) -> None:
    """Move the averaged weights towards the live ones in place; counters are copied."""
    floating = [key for key, mean in average.items() if mean.is_floating_point()]
    torch._foreach_lerp_([average[key] for key in floating], [live[key] for key in floating], weight)
    for key in average.keys() - set(floating):
        average[key].copy_(live[key])


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[nn.Module, torch.Generator], Loss],
    plan: TrainingPlan,
    run: TrainingRun,
) -> nn.Module:
    """Train `model` in place and return it holding the averaged weights.

    `loss(model, generator)` draws a batch. The checkpoint `<name>.checkpoint.pt` in the run's folder is resumed if it
    is there (tensors only) and stays after the last step. Raises ValueError if it belongs to another training.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run.folder / f"{name}.checkpoint.pt"
    origin = {**{field: getattr(plan, field) for field in FIXED}, "data": run.data}
    model.to(plan.device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=plan.device, weights_only=True)
        _check_origin(checkpoint, state["origin"], origin)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first, seconds = state["average"], state["step"], state["seconds"]
        log.info("%s: going on from step %d of %d", name, first, plan.num_steps)
    device_type = torch.device(plan.device).type
    runner: nn.Module = torch.compile(model) if plan.compile else model  # type: ignore[assignment]
    shown, figures_text, started = dict[str, float](), "", time.monotonic()
    with working(name, plan.num_steps, "step", done=first) as work:
        for step in range(first, plan.num_steps):
            generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * plan.rate(step)
            with _quick_mathematics(device_type):
                with torch.autocast(device_type, torch.bfloat16, enabled=plan.bf16):
                    value, figures = loss(runner, generator)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
            loss_now = float(value.detach())
            if not math.isfinite(loss_now):
                raise FloatingPointError(
                    f"The loss of {name} is {loss_now} at step {step}; the checkpoint before it is kept. Set a smaller "
                    "pretrain.learning_rates or another pretrain.device."
                )
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            live = model.state_dict()
            _average(average, live, 1 - min(plan.ema_decay, (step + 1) / (step + 10)))
            for key, tensor in {"loss": value, **figures}.items():
                figure = float(tensor.detach())
                shown[key] = figure if key not in shown else 0.98 * shown[key] + 0.02 * figure
            if step % 50 == 0:
                figures_text = ", ".join(f"{key} {figure:.4f}" for key, figure in shown.items())
                run.report({f"pretrain/{name}/step": step, **{f"pretrain/{name}/{key}": v for key, v in shown.items()}})
            if (step + 1) % plan.checkpoint_every == 0 or step + 1 == plan.num_steps:
                spent = seconds + time.monotonic() - started
                state = {"origin": origin, "model": live, "average": average, "optimizer": optimizer.state_dict()}
                _save(checkpoint, {**state, "step": step + 1, "seconds": spent})
                log.info("%s: step %d of %d, %s, %.0f s", name, step + 1, plan.num_steps, figures_text, spent)
            work.advance(note=figures_text)
    model.load_state_dict(average)
    return model.eval()
