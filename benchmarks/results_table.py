"""Print the README's table of results from the evaluations on disk: `make results`.

python benchmarks/results_table.py [outputs]
"""

import json
import sys
from pathlib import Path
from typing import Any

from icm_pipeline.plots.comparison import describe

COLUMNS = ("attribute", "steered", "FD before", "FD after (95 %)", "obeyed", "CLIP-I", "kept")
ORDER = ("gender", "age", "skin_tone")


def row(metrics: dict[str, Any]) -> tuple[str, ...]:
    """Return one evaluation as table cells."""
    low, high = metrics["fd"]["interval_95"]
    shown = [name for name in ORDER if name in metrics["kept"]]
    kept = ", ".join(f"{name.replace('_', ' ')} {metrics['kept'][name]:.0%}" for name in shown)
    return (
        metrics["attribute"].replace("_", " "),
        describe(metrics["steering"]),
        f"{metrics['fd_original']['mean']:.3f}",
        f"{metrics['fd']['mean']:.3f} ({low:.3f} to {high:.3f})",
        f"{metrics['obeyed']:.0%}",
        f"{metrics['clip_i']:.3f}",
        kept,
    )


def main() -> None:
    outputs = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    found = [json.loads(path.read_text()) for path in outputs.glob("artifacts/evaluate/*/metrics.json")]
    if not found:
        sys.exit(f"No evaluation lies in {outputs}/artifacts/evaluate: run `make results`.")
    known = [metrics for metrics in found if metrics["attribute"] in ORDER]
    known.sort(key=lambda m: (ORDER.index(m["attribute"]), m["steering"]["rule"] != "top", describe(m["steering"])))
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for metrics in known:
        print(f"| {' | '.join(row(metrics))} |")


if __name__ == "__main__":
    main()
