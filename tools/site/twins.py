"""Make docs/twins.png of the report of a plain run, smaller: python -m tools.site.twins [outputs]."""

import sys
from pathlib import Path

from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.shelf import read_shelf
from tools.site.gallery import newest, with_fewer_colours
from tools.site.pages import DOCS

COLOURS, SCALE = 256, 0.8  # smooth hair at a fifth of the bytes


def main() -> int:
    shelf = read_shelf(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"), kinds_of_stages())
    evaluation = newest(shelf, "tiny")
    reports = [each for each in shelf.artifacts.values() if each.stage == "report"]
    own = [each for each in reports if evaluation and each.manifest.parents.get("evaluate") == evaluation.key]
    if not own:
        print("There is no report of ICM's quotas of gender on tiny: run make demo.", file=sys.stderr)
        return 1
    path = with_fewer_colours(own[0].path("twins.png"), DOCS / "twins.png", COLOURS, SCALE)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB, from {own[0].folder.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
