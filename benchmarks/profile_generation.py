"""Where the time of making images goes, part by part, one after the other: from the prompt to the hashed file.

    python benchmarks/profile_generation.py --small      # a check, seconds
    python benchmarks/profile_generation.py              # 20 steps, batches of 32, the embedded model

Each part's own time is counted, without that of the parts inside it: a projection within attention is attention, a
convolution within a feed-forward is feed-forward. On a GPU every part waits until the device is done, which a plain run
does not; the first line says how much that and the hooks cost. The pipeline packs, writes and hashes pictures in
threads beside the next batch; here they follow, so that their whole cost is seen.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import load, machine, ratios, spread, timed
from torch import nn

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job, make_jobs
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.wrapping import wrapped
from icm_pipeline.store.files import hash_file

PIPELINE, DENOISER = "the pipeline's own code", "denoiser: the rest (norms, embeddings, sums)"
CONVOLUTION, SCHEDULER = "denoiser: convolutions", "scheduler"


class Stopwatch:
    """Seconds by part; of parts within one another only the innermost runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts = [PIPELINE]
        self._since = self._now()

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _pass_to(self, change: Callable[[], Any]) -> None:
        now = self._now()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now
        change()

    def begin(self, part: str) -> None:
        """Begin a part, unless it lies within a layer, which it is then counted to."""
        around = self._parts[-1]
        self._pass_to(lambda: self._parts.append(part if around in (PIPELINE, DENOISER) else around))

    def end(self) -> None:
        self._pass_to(self._parts.pop)

    def within(self, part: str) -> Callable[..., Any]:
        """Return around(method, ...) for `wrapped`."""

        def around(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self.begin(part)
            try:
                return method(*args, **kwargs)
            finally:
                self.end()

        return around


def watch(module: nn.Module, part: str, stopwatch: Stopwatch, stack: ExitStack) -> None:
    stack.callback(module.register_forward_pre_hook(lambda *_: stopwatch.begin(part)).remove)
    stack.callback(module.register_forward_hook(lambda *_: stopwatch.end()).remove)


def profiled(backbone: Backbone, jobs: list[Job], folder: Path) -> dict[str, float]:
    """Make one batch and return the seconds of its parts."""
    pipe, stopwatch = backbone.pipe, Stopwatch()
    kinds = {site.module: f"denoiser: {site.kind.replace('_', ' ')}" for site in backbone.sites}
    with ExitStack() as stack:
        for name, module in pipe.components.items():
            if name.startswith("text_encoder") and module is not None:
                watch(module, "text encoder", stopwatch, stack)
        watch(backbone.denoiser, DENOISER, stopwatch, stack)
        for name, module in backbone.denoiser.named_modules():
            if name in kinds or isinstance(module, nn.Conv2d):
                watch(module, kinds.get(name, CONVOLUTION), stopwatch, stack)
        stack.enter_context(wrapped(pipe.scheduler, "step", stopwatch.within(SCHEDULER)))
        stack.enter_context(wrapped(pipe.vae, "decode", stopwatch.within("decoding")))
        stack.enter_context(wrapped(pipe.image_processor, "postprocess", stopwatch.within("pixels to pictures")))
        samples = decode(backbone, jobs, denoise(backbone, jobs))
    for sample in samples:
        packed, path = io.BytesIO(), folder / f"{sample.job.image_id}.png"
        stopwatch.within("packing PNG")(partial(sample.image.save, packed, format="PNG"))
        stopwatch.within("writing to disk")(partial(path.write_bytes, packed.getvalue()))
        stopwatch.within("hashing files")(partial(hash_file, path))
    stopwatch.begin(PIPELINE)
    return dict(stopwatch.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny", help="an embedded model or a local pipeline folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="2 steps, batches of 2, 2 rounds")
    args = parser.parse_args()
    if args.small:
        args.steps, args.batch, args.rounds = 2, 2, 2
    words = (f"compute.device={args.device}", f"compute.dtype={args.dtype}")
    backbone = load(args.model, args.steps, *words, guidance=args.guidance)
    jobs = make_jobs(["a portrait of a person"], args.batch, 0, "probe")
    plain, rounds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds + 1):
            seconds = timed(lambda: decode(backbone, jobs, denoise(backbone, jobs)))
            parts = profiled(backbone, jobs, Path(folder))
            if number:  # the first warms up
                plain.append(seconds)
                rounds.append(parts)
    totals = [sum(parts.values()) for parts in rounds]
    print(f"{machine()}\n{args.model} on {args.device}, {args.dtype}, batch {args.batch}, {args.steps} steps")
    print(f"plain run {spread(plain)} s, {args.batch / statistics.median(plain):.2f} images a second; ", end="")
    print(f"with all that is below / plain: {spread(ratios(totals, plain))}\n")
    print("| part | ms an image | % of the time |\n|---|---|---|")
    middle = {name: statistics.median(parts.get(name, 0.0) for parts in rounds) for name in rounds[0]}
    for name in sorted(middle, key=lambda name: -middle[name]):
        shares = [100 * parts.get(name, 0.0) / total for parts, total in zip(rounds, totals, strict=True)]
        print(f"| {name} | {1000 * middle[name] / args.batch:.2f} | {spread(shares, '.1f')} |")


if __name__ == "__main__":
    main()
