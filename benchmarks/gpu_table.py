"""Print the figures that benchmarks/gpu.sh left as the tables of docs/benchmarks.md.

python benchmarks/gpu_table.py FIGURES.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from timing import spread

TITLES = {
    "sd15": "SD 1.5, 512 px",
    "sdxl": "SDXL, 1024 px",
    "sana": "SANA 1.6B, 1024 px",
    "flux": "FLUX.1-dev, 1024 px",
}


def full_size(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print(f"{first['machine']}; {first['dtype']}, {first['steps']} steps, {first['date']}\n")
    print("| model, batch | way | images a second | time, plain = 1 | peak GiB |\n|---|---|---|---|---|")
    for row in rows:
        name = f"{TITLES[row['model']]}, {row['batch']}" if row["way"] == "plain" else ""
        ratio = "1" if row["way"] == "plain" else spread(row["ratios"])
        print(f"| {name} | {row['way']} | {row['images_a_second']:.3g} | {ratio} | {row['peak_gib']:.1f} |")


def probes(rows: list[dict[str, Any]]) -> None:
    print("\n| probes | whole stage, s | a probe, ms | scikit-learn, ms | reading again, ms | same predictions |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        what = f"{row['layers']} x {row['steps']}, {row['images']} images, width {row['width']}, {row['store']}"
        times = [spread(row["seconds"], ".2f"), spread(row["a_probe_ms"]), spread(row["scikit_learn_ms"])]
        print(f"| {what} | {' | '.join(times)} | {row['scikit_learn_again_ms']:.0f} | {row['same']:.4f} |")


def look(rows: list[dict[str, Any]]) -> None:
    print("\n| looking first | time, plain = 1 | by rows of the denoiser alone | images changed | reader right in |")
    print("|---|---|---|---|---|")
    for row in rows:
        what = f"{row['model']}, {row['attribute']}, {row['images']} images, {row['steps']} steps, {row['way']}"
        told = [f"{row[name]:.0%}" if name in row else "" for name in ("steered", "accuracy")]
        print(f"| {what} | {spread(row['ratios'])} | {row['expected']:.3f} | {' | '.join(told)} |")


def demo(rows: list[dict[str, Any]]) -> None:
    print("\n| the demo | seconds |\n|---|---|")
    for row in rows:
        print(f"| {' '.join(row['words'])} | {row['seconds']:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    rows = [json.loads(line) for line in parser.parse_args().figures.read_text("utf-8").splitlines()]
    for part in (full_size, probes, look, demo):
        of_part = [row for row in rows if row["part"] == part.__name__]
        if of_part:
            part(of_part)


if __name__ == "__main__":
    main()
