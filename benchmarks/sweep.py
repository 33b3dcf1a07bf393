"""A sweep over alpha that computes the steps before the first steered one once, against one that repeats them.

    python benchmarks/sweep.py --small      # a check, seconds
    python benchmarks/sweep.py              # 8 alphas from step 15 of 50, as in the paper, on the embedded model

Both ways make the unsteered images and then each alpha's, denoising and decoding; the reusing way keeps the first steps
on disk while it makes the unsteered images. Rounds alternate in one process; the ratio is of the steered images alone,
which is what a sweep adds, and of everything. The images of both ways are compared.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from recording import constant_vectors
from timing import load, machine, ratios, spread, timed
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job, make_jobs
from icm_pipeline.generation.prefixes import PrefixStore, shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors


class Sweep:
    """One set of images, unsteered and at several alphas; store: where the first steps are kept, None to recompute."""

    def __init__(self, backbone: Backbone, jobs: list[Job], vectors: SteeringVectors, first_step: int) -> None:
        self._backbone = backbone
        self.jobs = jobs
        self.vectors = vectors
        self._first_step = first_step

    def originals(self, store: PrefixStore | None) -> Tensor:
        return self._make(self.jobs, [], None, store)

    def steered(self, alphas: list[float], store: PrefixStore | None) -> list[Tensor]:
        return [self._make(self.jobs, list(self.vectors.layers), self._shift(alpha), store) for alpha in alphas]

    def _shift(self, alpha: float) -> Shift:
        return Shift(self.vectors, 0, Strength(alpha, first_step=self._first_step))

    def _make(self, jobs: list[Job], layers: list[str], hook: Shift | None, store: PrefixStore | None) -> Tensor:
        backbone = self._backbone
        ids = [job.image_id for job in jobs]
        with (
            hooked(backbone, layers, hook, len(jobs)) as clock,
            shared_prefix(backbone, clock, store, ids, self._first_step),
        ):
            latents = denoise(backbone, jobs)
        decode(backbone, jobs, latents)
        return latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny", help="an embedded model or a local pipeline folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--first-step", type=int, default=15)
    parser.add_argument("--alphas", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="6 steps from the second on, 2 alphas, batches of 2")
    args = parser.parse_args()
    if args.small:
        args.steps, args.first_step, args.alphas, args.batch, args.rounds = 6, 2, 2, 2, 1
    backbone = load(args.model, args.steps, f"compute.device={args.device}")
    jobs = make_jobs(["a portrait of a person"], args.batch, 0, "evaluation")
    recorder = Recorder(list(range(args.steps)))
    with hooked(backbone, backbone.layers, recorder, args.batch):
        denoise(backbone, jobs)
    attention = [site.layer for site in backbone.sites if site.kind == "self_attention"][:4]
    sweep = Sweep(backbone, jobs, constant_vectors(recorder.recording(), attention), args.first_step)
    alphas = [float(number + 1) for number in range(args.alphas)]
    folder = Path(tempfile.mkdtemp(prefix="icm-sweep-"))
    seconds: dict[str, list[float]] = {"plain originals": [], "plain": [], "reusing originals": [], "reusing": []}
    images: dict[str, list[Tensor]] = {}
    for number in range(args.rounds):
        for way, store in (("plain", None), ("reusing", PrefixStore(folder / str(number)))):
            seconds[f"{way} originals"].append(timed(lambda s=store: sweep.originals(s)))
            seconds[way].append(timed(lambda s=store, w=way: images.update({w: sweep.steered(alphas, s)})))
    size = sum(path.stat().st_size for path in (folder / "0").iterdir()) / args.batch
    shutil.rmtree(folder)
    same = all(torch.equal(a, b) for a, b in zip(images["plain"], images["reusing"], strict=True))
    print(
        f"{machine()}\n{args.model}, batch {args.batch}, "
        f"{args.alphas} alphas from step {args.first_step} of {args.steps}"
    )
    for name, values in seconds.items():
        print(f"{name}: {spread(values)} s")
    alone = ratios(seconds["reusing"], seconds["plain"])
    whole = [
        (a + c) / (b + d)
        for a, b, c, d in zip(
            seconds["reusing"], seconds["plain"], seconds["reusing originals"], seconds["plain originals"], strict=True
        )
    ]
    print(f"steered images, reusing / plain: {spread(alone)}; with the originals: {spread(whole)}")
    print(f"latents equal to the bit: {same}; kept on disk: {size / 1024:.0f} KiB an image")


if __name__ == "__main__":
    main()
