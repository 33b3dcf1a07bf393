"""Draw docs/gallery_<model>.png, from the evaluations that experiment=architectures left.

python -m tools.site.gallery [outputs]
"""

import sys
from pathlib import Path

from PIL import Image

from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.report.figures.twins import plot_twins
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.shelf import Shelf, read_shelf
from tools.site.pages import DOCS

MODELS = ("tiny", "tiny_sdxl", "tiny_sana", "tiny_flux")
COLUMNS = 10  # images of each prompt
COLOURS = 128  # enough for drawn portraits, at a third of the bytes


def main() -> int:
    shelf = read_shelf(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"), kinds_of_stages())
    for model in MODELS:
        evaluation = newest(shelf, model)
        if evaluation is None:
            print(
                f"There is no evaluation of ICM's quotas of gender on {model}: run experiment=architectures.",
                file=sys.stderr,
            )
            return 1
        parents = evaluation.manifest.parents
        path = draw(model, shelf.artifacts[parents["steer"]], shelf.artifacts[parents["originals"]])
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB, from {evaluation.folder.name}")
    return 0


def newest(shelf: Shelf, model: str) -> Artifact | None:
    """Return the newest evaluation of gender, steered to quotas at the best self-attention layers."""
    found = []
    for artifact in shelf.artifacts.values():
        if artifact.stage != "evaluate" or (artifact.manifest.model, artifact.manifest.attribute) != (model, "gender"):
            continue
        how = Evaluation.read(artifact).steering
        if how is not None and (how.method, how.assignment, how.kind, how.rule) == (
            "icm",
            "quota",
            "self_attention",
            "top",
        ):
            found.append(artifact)
    return max(found, key=lambda artifact: artifact.manifest.made_at or 0, default=None)


def draw(model: str, steered: Artifact, originals: Artifact) -> Path:
    path = DOCS / f"gallery_{model}.png"
    before = {row.image_id: row for row in read_table(originals)}
    shown = _first(read_table(steered))
    plot_twins(path, shown, [before[row.image_id] for row in shown], f"{model}: above as drawn, below steered")
    return with_fewer_colours(path, path)


def with_fewer_colours(drawn: Path, path: Path, colours: int = COLOURS, scale: float = 1.0) -> Path:
    """Write a drawn figure with a palette, and with fewer pixels; return the path."""
    with Image.open(drawn) as figure:
        size = round(scale * figure.width), round(scale * figure.height)
        resized = figure.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    reduced = resized.quantize(colours, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    return path


def _first(rows: list[ImageRow]) -> list[ImageRow]:
    by_prompt: dict[str, list[ImageRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, []).append(row)
    return [row for prompt in by_prompt.values() for row in prompt[:COLUMNS]]


if __name__ == "__main__":
    sys.exit(main())
