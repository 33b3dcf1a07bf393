"""From the explorer's slider to the picture, beside a plain generation: what kept originals and their steps save.

    python benchmarks/explore.py [--images 2] [--rounds 5] [--steps 0,2,6,10] [icm words, as model=tiny_sana vectors=x]

Each round makes, one after the other, the images as the model makes them, then for each first steered step what the
page does when the slider moves to where it never was: steering from that step on, judging, the difference picture, the
map and the chart as HTML. Printed are medians over rounds in seconds of this process's CPU time, which other processes
hardly change, and in wall-clock seconds, with the ratio to a plain generation of those images, and to that of the
originals and the steered images, which is what a page that keeps nothing makes. The last row is a place that was made
ahead, as the slider's next ones are while nobody asks; making it is not timed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from hydra import compose, initialize_config_dir

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.cli.exploring import job_words
from icm_pipeline.config.compose import register_resolvers, to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.explore.chart import chart_html
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.rendering import map_html, shown_html
from icm_pipeline.explore.setting import Setting, first_setting
from icm_pipeline.explore.sources import opened
from icm_pipeline.explore.studio import Studio
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU and the wall-clock time that some work takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def page(studio: Studio, material: Material, setting: Setting) -> None:
    """Do what the page does for a setting."""
    for shown in studio.show(material, setting):
        shown_html(shown, material)
        chart_html(shown, material)
        map_html(material, setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", default="0,2,6,10", help="first steered steps")
    given, words = parser.parse_known_args()
    register_schema()
    register_resolvers()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", overrides=job_words(words)))
    models, material = ModelCache(), opened(settings)[0]
    studio, backbone = Studio([material], models), models.load(material.settings.model, material.settings.compute)
    first = replace(first_setting(material), num_images=given.images)
    jobs = [Job(f"{seed}", first.prompt, 0, seed) for seed in first.seeds]
    plain: list[tuple[float, float]] = []
    ahead: list[tuple[float, float]] = []
    steered: dict[int, list[tuple[float, float]]] = {int(step): [] for step in given.steps.split(",")}
    page(studio, material, first)  # makes the originals, loads the judge
    for number in range(given.rounds):
        plain.append(seconds(lambda: decode(backbone, jobs, denoise(backbone, jobs))))
        for step, found in steered.items():
            new = replace(first, alpha=first.alpha * (1 + (number + 1) / 100), first_step=step)
            found.append(seconds(lambda new=new: page(studio, material, new)))
        near = replace(first, alpha=first.alpha * (1 - (number + 1) / 100))
        studio.make_ahead(material, near)
        ahead.append(seconds(lambda near=near: page(studio, material, near)))
    cpu, wall = (statistics.median(times) for times in zip(*plain, strict=True))
    print(f"{given.images} image(s) of {material.num_steps} steps, medians of {given.rounds} rounds")
    print("| | CPU s | wall s | CPU / plain | wall / plain | CPU / original and steered |")
    print("|---|---|---|---|---|---|")
    print(f"| plain generation | {cpu:.2f} | {wall:.2f} | 1 | 1 | 0.50 |")
    rows = {f"steered from step {step}": found for step, found in steered.items()} | {"made ahead": ahead}
    for name, found in rows.items():
        own_cpu, own_wall = (statistics.median(times) for times in zip(*found, strict=True))
        ratios = f"{own_cpu / cpu:.2f} | {own_wall / wall:.2f} | {own_cpu / cpu / 2:.2f}"
        print(f"| slider to picture, {name} | {own_cpu:.2f} | {own_wall:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
