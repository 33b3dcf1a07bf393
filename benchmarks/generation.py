"""What makes generation faster or slower: decoding in parts, writing beside it, the batch's size.

    python benchmarks/generation.py --small      # a check, seconds
    python benchmarks/generation.py              # 10 steps, batches of 16, the embedded model, under 3 minutes

Every way denoises and decodes the same batch, in every round one after the other in one process; each ratio is to the
default of the same round. Pictures are written at --pixels, as a full-size model's would be. Images a
second by batch size say what a fuller batch gains.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from timing import in_turns, load, machine, print_ratios, spread

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job, make_jobs
from icm_pipeline.generation.sampling import Sample, decode, denoise
from icm_pipeline.images.making import MOST_PICTURES_WAITING, PICTURE_THREADS
from icm_pipeline.machine.threads import Background

DEFAULT = "default"


def make(backbone: Backbone, jobs: list[Job]) -> list[Sample]:
    return decode(backbone, jobs, denoise(backbone, jobs))


def write(folder: Path, pixels: int, sample: Sample) -> None:
    sample.image.resize((pixels, pixels)).save(folder / f"{sample.job.image_id}.png")


def write_in_line(backbone: Backbone, batches: list[list[Job]], save: Callable[[Sample], None]) -> None:
    for jobs in batches:
        for sample in make(backbone, jobs):
            save(sample)


def write_beside(backbone: Backbone, batches: list[list[Job]], save: Callable[[Sample], None]) -> None:
    with Background(PICTURE_THREADS, most=MOST_PICTURES_WAITING) as pictures:
        for jobs in batches:
            for sample in make(backbone, jobs):
                pictures.do(save, sample)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny", help="an embedded model or a local pipeline folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 64], help="of batches to compare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="1 step, batches of 2, 1 round")
    args = parser.parse_args()
    if args.small:
        args.steps, args.batch, args.pixels, args.sizes, args.rounds = 1, 2, 64, [1, 2], 1
    words = (f"compute.device={args.device}", f"compute.dtype={args.dtype}")
    backbones = {
        DEFAULT: load(args.model, args.steps, *words, guidance=args.guidance),
        "decoded one at a time": load(
            args.model, args.steps, *words, "compute.decode_batch_size=1", guidance=args.guidance
        ),
    }
    plain = backbones[DEFAULT]
    jobs = make_jobs(["a portrait of a person"], max(3 * args.batch, *args.sizes), 0, "probe")
    ways = {name: partial(make, backbone, jobs[: args.batch]) for name, backbone in backbones.items()}
    for way in ways.values():
        way()  # warms up
    print(f"{machine()}\n{args.model} on {args.device}, {args.dtype}, batch {args.batch}, {args.steps} steps")
    print_ratios(in_turns(ways, args.rounds), DEFAULT, "way")

    batches = [jobs[start : start + args.batch] for start in range(0, 3 * args.batch, args.batch)]
    with tempfile.TemporaryDirectory() as folder:
        save = partial(write, Path(folder), args.pixels)
        in_line = f"{args.pixels} px pictures written between batches"
        print_ratios(
            in_turns(
                {
                    in_line: partial(write_in_line, plain, batches, save),
                    "written beside the next batch": partial(write_beside, plain, batches, save),
                },
                args.rounds,
            ),
            in_line,
            "way",
        )

    by_size = in_turns({str(size): partial(make, plain, jobs[:size]) for size in args.sizes}, args.rounds)
    print("\n| batch | images a second |\n|---|---|")
    for size, values in by_size.items():
        print(f"| {size} | {spread([int(size) / value for value in values], '.2f')} |")


if __name__ == "__main__":
    main()
