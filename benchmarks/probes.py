"""Probes: the stage's solver, reading included, against loops over scikit-learn on the same synthetic activations.

    python benchmarks/probes.py --small                 # a check, seconds
    python benchmarks/probes.py --width 640 1280        # 70 layers x 50 steps, 500 images; needs 9 GB of disk

Three ways: this package from files, all layers; scikit-learn at its best, with the data in memory, a process on every
core and one BLAS thread in each; scikit-learn as a loop that reads every file again for each probe. The second is timed
on --oracle-layers whole layers and the third on --naive-probes probes, and both are given per probe. Activations are
random with a power law of variances and turn a little from step to step, like those of real models.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timing import in_turns, machine, note, peak_mib, ratios, spread, timed

from icm_pipeline.images.activations import read_activations
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import LayerProbes, Split, fit_layers, split_samples
from icm_pipeline.machine.threads import num_cores
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest

Activations = NDArray[np.float32]
Labels = NDArray[np.int64]
TURN = 0.05  # radians from step to step


def draw_layer(rng: np.random.Generator, tastes: NDArray, steps: int, width: int) -> Activations:
    """Return activations [n, T, d] in which the directions of `tastes` [n, 8] are among the strongest."""
    n = len(tastes)
    scales = np.arange(1, width + 1) ** -1.0
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    first, last = (rng.normal(size=(n, width)) for _ in range(2))
    first[:, 4 : 4 + tastes.shape[1]] += tastes
    pooled = np.empty((n, steps, width), np.float32)
    for step in range(steps):
        turned = np.cos(step * TURN) * first + np.sin(step * TURN) * last
        pooled[:, step] = (turned * scales).astype(np.float32) @ basis * 3 + 1
    return pooled


def make_files(folder: Path, args: argparse.Namespace, width: int) -> tuple[list[str], Labels]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(args.images) % args.options)
    tastes = rng.normal(size=(args.options, 8))[labels] + rng.normal(size=(args.images, 8))
    names = [f"{layer:04d}.safetensors" for layer in range(args.layers)]
    jobs = [(folder / name, layer, tastes, args.steps, width, args.store) for layer, name in enumerate(names)]
    with multiprocessing.get_context("fork").Pool(num_cores()) as pool:
        pool.starmap(_make_file, jobs, chunksize=1)
    return names, labels


def _make_file(path: Path, layer: int, tastes: NDArray, steps: int, width: int, store: str) -> None:
    torch.set_num_threads(1)
    drawn = draw_layer(np.random.default_rng([1, layer]), tastes, steps, width)
    save_file({"pooled": drawn}, path)
    if store == "float16":
        halved = Pooled.halved(torch.from_numpy(drawn)).tensors()
        save_file({"pooled": halved.pop("values").numpy(), **{n: t.numpy() for n, t in halved.items()}}, in_half(path))


def in_half(path: Path) -> Path:
    """Return where a layer is kept in float16, beside the file in float32 that scikit-learn reads."""
    return path.with_suffix(".half.safetensors")


def fit_here(
    folder: Path, names: list[str], labels: Labels, split: Split, args: argparse.Namespace
) -> list[LayerProbes]:
    """Do what stage=probe does between its inputs and its files."""
    if args.store == "float16":
        names = [in_half(Path(name)).name for name in names]
    artifact = Artifact(folder, Manifest("generate", "", files=dict.fromkeys(names, FileEntry(0, ""))))

    def read(name: str) -> Pooled:
        return read_activations(artifact, name, args.device.startswith("cuda"))

    return list(fit_layers(read, names, labels, split, args.C, 1000, args.device))


def fit_one(x: Activations, labels: Labels, split: Split, C: float, **options: Any) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=options.pop("max_iter", 1000), **options))
    model.fit(x[split.train], labels[split.train])
    model.score(x[split.test], labels[split.test])
    return model


IN_MEMORY: dict[str, Any] = {}  # what forked workers inherit instead of receiving it


def _fit_number(number: int) -> None:
    layer, step = divmod(number, IN_MEMORY["layers"][0].shape[1])
    fit_one(IN_MEMORY["layers"][layer][:, step], IN_MEMORY["labels"], IN_MEMORY["split"], IN_MEMORY["C"])


def fit_naively(folder: Path, names: list[str], labels: Labels, split: Split, args: argparse.Namespace) -> None:
    """Fit some probes, every file read again for each."""
    for number in range(args.naive_probes):
        layers = [load_file(folder / name)["pooled"] for name in names]
        fit_one(layers[number % len(layers)][:, number % args.steps], labels, split, args.C)


def agreement(layer: Activations, fitted: LayerProbes, labels: Labels, split: Split, C: float) -> tuple[float, float]:
    """Return the share of equal held-out predictions and the least cosine against a tight scikit-learn, at 3 steps."""
    same, cosines = [], []
    for step in np.linspace(0, layer.shape[1] - 1, 3).astype(int):
        x = layer[:, step].astype(np.float64)
        model = fit_one(x, labels, split, C, tol=1e-10, max_iter=100_000)
        expected = model[1].coef_ / model[0].scale_
        found = fitted.weights[step].astype(np.float64)
        logits = x[split.test] @ found.T + fitted.bias[step]
        predicted = logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(int)
        same += (predicted == model.predict(x[split.test])).tolist()
        cosines += (
            (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        ).tolist()
    return float(np.mean(same)), min(cosines)


def measure(width: int, args: argparse.Namespace, folder: Path) -> None:
    names, labels = make_files(folder, args, width)
    split = split_samples(labels, 0.2, np.random.default_rng(0))
    num_probes, num_oracle = args.layers * args.steps, min(args.oracle_layers, args.layers) * args.steps
    kept: list[LayerProbes] = []
    peak = peak_mib(lambda: kept.extend(fit_here(folder, names, labels, split, args)))
    loaded = [load_file(folder / name)["pooled"] for name in names[: args.oracle_layers]]
    IN_MEMORY.update(layers=loaded, labels=labels, split=split, C=args.C)
    with multiprocessing.get_context("fork").Pool(num_cores()) as pool:
        seconds = in_turns(
            {
                "here": lambda: fit_here(folder, names, labels, split, args),
                "scikit-learn": lambda: pool.map(_fit_number, range(num_oracle), chunksize=4),
            },
            args.rounds,
        )
    here = [1000 * value / num_probes for value in seconds["here"]]
    best = [1000 * value / num_oracle for value in seconds["scikit-learn"]]
    naive = 1000 * timed(lambda: fit_naively(folder, names, labels, split, args)) / args.naive_probes
    same, cosine = agreement(loaded[0], kept[0], labels, split, args.C)
    size = f"{args.layers} layers x {args.steps} steps, {args.images} images"
    print(f"\nwidth {width}, {size}, {args.options} options, C={args.C:g}")
    print(f"the whole stage here, reading included   {spread(seconds['here'], '.2f')} s, peak memory +{peak:.0f} MiB")
    print(f"ms a probe here                          {spread(here)}")
    print(f"ms a probe, scikit-learn in memory       {spread(best)}")
    print(f"ms a probe, scikit-learn reading again   {naive:.1f}")
    print(f"scikit-learn in memory / here            {spread(ratios(best, here), '.2f')}")
    print(f"scikit-learn reading again / here        {spread([naive / h for h in here], '.0f')}")
    note(
        args.figures, part="probes", width=width, layers=args.layers, steps=args.steps, images=args.images,
        store=args.store, device=args.device, seconds=seconds["here"], a_probe_ms=here, scikit_learn_ms=best,
        scikit_learn_again_ms=naive, same=same, cosine=cosine,
    )  # fmt: skip
    print(f"equal held-out predictions {same:.4f}, least cosine {cosine:.6f} (scikit-learn at tol 1e-10)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[640, 1280])
    parser.add_argument("--layers", type=int, default=70)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--options", type=int, default=2)
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--oracle-layers", type=int, default=4)
    parser.add_argument("--naive-probes", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--folder", type=Path, help="where the files are made; the system's temporary folder by default"
    )
    parser.add_argument("--store", choices=["float16", "float32"], default="float16", help="as generate.store")
    parser.add_argument("--figures", type=Path, help="a file that the figures are appended to, as JSON")
    parser.add_argument("--small", action="store_true", help="4 layers x 6 steps, 200 images, width 96 and 320")
    args = parser.parse_args()
    if args.small:
        args.width, args.layers, args.steps, args.images, args.oracle_layers = [96, 320], 4, 6, 200, 2
    print(machine())
    for width in args.width:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            measure(width, args, Path(folder))


if __name__ == "__main__":
    main()
