"""A run and a sweep made by hand, with pictures of one colour each, for what pages show of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from icm_pipeline.images.table import COLUMNS
from icm_pipeline.report.html.run_page import Run, write_run_page
from icm_pipeline.report.html.sweep_page import write_html_sweep
from icm_pipeline.report.same_seeds import same_seeds
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.sweeps import Sweep, read_sweep, write_result
from icm_pipeline.results.verdicts import Finding, Verdicts, judged
from icm_pipeline.store.artifacts import Artifact, open_artifact
from tests.helpers.results import PROMPTS, compared, evaluation, scores, steering, write_artifact

OPTIONS = ("woman", "man")
HOSTILE = "</script><script>document.title='taken'</script>\"'><img src=x onerror=\"document.title='taken'\">"
MISSED = 2  # images that disobey, the last ones
LAYERS = {
    "mid.attn1": ("self_attention", 0.8, [0.6, 1.0]), "up.attn1": ("self_attention", 0.55, [0.5, 0.6]),
    "mid.attn2": ("cross_attention", 0.5, [0.5, 0.5]),
}  # fmt: skip


def write_images(
    folder: Path, stage: str, prompts: Sequence[str] = PROMPTS, options: Sequence[str] = OPTIONS, hue: int = 0,
    number: int = 8,
) -> Path:  # fmt: skip
    """Write a set of images, two of each prompt and option in turn, every picture of another colour."""
    (folder / "images").mkdir(parents=True)
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index in range(number):
            path = f"images/{index:06d}.png"
            Image.new("HSV", (32, 32), ((hue + 12 * index) % 256, 160, 220)).convert("RGB").save(folder / path)
            option = options[index // 2 % 2] if stage == "steer" else ""
            writer.writerow([f"{index:06d}", prompts[index % 2], index % 2, 100 + index, option, path])
    return write_artifact(folder, stage)


def write_verdicts(
    folder: Path, prompts: Sequence[str] = PROMPTS, options: Sequence[str] = OPTIONS, number: int = 8
) -> None:
    """Write what the judge says of images as written above: the last ones disobey."""
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "steered_to", *(f"{side}_{option}" for side in ("original", "steered")
                                                         for option in options)])  # fmt: skip
        for index in range(number):
            wanted = index // 2 % 2
            seen = wanted if index < number - MISSED else 1 - wanted
            shown = [0.9 if option == seen else 0.1 for option in range(2)]
            writer.writerow([f"{index:06d}", prompts[index % 2], options[wanted], 0.3, 0.7, *shown])


def made_run(
    folder: Path, prompts: Sequence[str] = PROMPTS, options: Sequence[str] = OPTIONS, audited: bool = False,
    number: int = 8, others: Sequence[Compared] = (),
) -> Run:  # fmt: skip
    """Return a finished run; others: evaluations that it is compared with."""
    found = evaluation(prompts=prompts, steering=steering(layers=["mid.attn1"]), num_images=number,
                       obeyed_by_option=dict.fromkeys(options, 0.75))  # fmt: skip
    (folder / "evaluate").mkdir(parents=True)
    (folder / "probe").mkdir()
    found.write(folder / "evaluate")
    write_verdicts(folder / "evaluate", prompts, options, number)
    scores(LAYERS, steps=[0, 10]).write(folder / "probe")
    settings = {"config": {"attribute.options": {option: [f"a {option}"] for option in options}}}
    paths = [
        write_artifact(folder / "probe", "probe", settings=settings),
        write_images(folder / "originals", "originals", prompts, options, 0, number),
        write_images(folder / "steer", "steer", prompts, options, 128, number),
        write_artifact(folder / "evaluate", "evaluate", created="2026-01-31T12:00:00Z", code={"version": "1"}),
        *([_audit(folder / "audit")] if audited else []),
    ]
    artifacts = {path.name: open_artifact(path) for path in paths}
    own = compared(key="own", prompts=prompts, steering=found.steering, obeyed_by_option=found.obeyed_by_option)
    return Run(own, [own, *others], (), _there(artifacts), "python -m icm_pipeline stage=report alpha=1.5")


def written(folder: Path, run: Run) -> str:
    return write_run_page(folder / "report.html", run).read_text("utf-8")


def written_sweep(folder: Path, sweep: Sweep) -> str:
    return write_html_sweep(folder / "report.html", sweep, same_seeds(sweep)).read_text("utf-8")


def made_sweep(folder: Path, alphas: Sequence[float] = (1.0, 2.0, 4.0), prompts: Sequence[str] = PROMPTS) -> Sweep:
    """Return a sweep over alpha; the larger it is, the lower are FD and CLIP-I."""
    artifacts = folder / "outputs" / "artifacts"
    originals = write_images(artifacts / "originals" / "o", "originals", prompts)
    for number, alpha in enumerate(alphas):
        evaluated = artifacts / "evaluate" / f"e{number}"
        evaluated.mkdir(parents=True)
        found = evaluation(0.5 - 0.1 * number, prompts, clip_i=0.95 - 0.03 * number, steering=steering(alpha=alpha))
        found.write(evaluated)
        write_verdicts(evaluated, prompts)
        of_images = {"parents": {"originals": "o"}, "settings": {"config": {}}}
        steered = write_images(artifacts / "steer" / f"s{number}", "steer", prompts, hue=64 + 40 * number)
        paths = {"evaluate": write_artifact(evaluated, "evaluate", **of_images), "steer": steered}
        paths["originals"] = originals
        (folder / "sweep" / str(number)).mkdir(parents=True)
        words = [f"alpha={alpha:g}", f"+note={HOSTILE}"] if HOSTILE in prompts else [f"alpha={alpha:g}"]
        write_result(folder / "sweep" / str(number), words, {stage: str(path) for stage, path in paths.items()})
    return read_sweep(folder / "sweep", folder / "outputs")


def _audit(folder: Path) -> Path:
    folder.mkdir()
    finding = Finding(
        "causality.selected", "The selected layers move the choice", 0.6, (0.4, 0.8), "share of images", 0.0, 0.05,
        0.001, "random layers: 0.1", 8, "images",
    )  # fmt: skip
    Verdicts(judged([finding], ["python -m icm_pipeline stage=audit"]), {}).write(folder)
    return write_artifact(folder, "audit")


def _there(artifacts: dict[str, Artifact | None]) -> dict[str, Artifact]:
    return {name: artifact for name, artifact in artifacts.items() if artifact is not None}
