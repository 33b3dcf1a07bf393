"""The report on a bench: kinds told apart, what a method cost, what it asks for, and the fronts of all strengths."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.generation.jobs import Job
from icm_pipeline.images import table
from icm_pipeline.methods.registry import method_named
from icm_pipeline.report.bench_page import BenchRow, benches_of
from icm_pipeline.report.figures.bench import plot_fronts
from icm_pipeline.report.sweep_report import report_sweep
from icm_pipeline.results.bench import ExplicitPrompts, StrengthChoice, TriedStrength, learning_seconds
from icm_pipeline.results.evaluation import Figure
from icm_pipeline.results.steering import FitCost
from icm_pipeline.results.sweeps import read_sweep, write_result
from tests.helpers.results import discrepancy, evaluation, steering, write_artifact

TRIED = [TriedStrength(1.0, 0.4, 0.97, 0.6), TriedStrength(3.0, 0.2, 0.92, 0.8), TriedStrength(9.0, 0.1, 0.7, 0.9)]
CHOICE = StrengthChoice("alpha", 3.0, 0.9, True, 0.55, 64, 8, TRIED)
HALF = Figure(0.25, {"a face of a nurse": 0.25})


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., None]:
    """Give a function that adds one benched method to the sweep `tmp_path/sweep`; records: by stage."""
    outputs = tmp_path / "outputs" / "artifacts"

    def added(
        choice: str, records: dict[str, Any], method: str = "", words: tuple[str, ...] = (), originals: str = "o",
        **figures: Any,
    ) -> None:  # fmt: skip
        folders, name = {}, "-".join([choice, originals, *(word.split("=")[1] for word in words)])
        seconds = figures.pop("seconds", 0.0)
        how = {one: figures.pop(one, None) for one in ("params", "look")}
        how |= {one: figures.pop(one) for one in ("assignment", "tries") if one in figures}
        found = evaluation(
            figures.pop("fd", 0.2), steering=steering(method=method or choice, **how),
            fd_labels=HALF, deviation_ratio=HALF, **figures,
        )  # fmt: skip
        for stage, record in {"evaluate": found, **records}.items():
            folder = outputs / stage / name
            folder.mkdir(parents=True)
            record.write(folder)
            if stage == "fit":
                (folder / "learnt.safetensors").write_bytes(bytes(1500))
            more = {"parents": {"originals": originals}, "settings": {"config": {}}} if stage == "evaluate" else {}
            folders[stage] = str(write_artifact(folder, stage, seconds=seconds, **more))
        job = tmp_path / "sweep" / name
        job.mkdir(parents=True)
        write_result(job, [f"method={choice}", *words], folders)

    return added


def reported(tmp_path: Path) -> tuple[list[dict[str, str]], str, set[str]]:
    """Return the rows of the table, the page and the names of all files of a bench's report."""
    folder = report_sweep(read_sweep(tmp_path / "sweep", tmp_path / "outputs"))
    with (folder / "bench.csv").open(newline="") as file:
        return list(csv.DictReader(file)), (folder / "bench.md").read_text(), {path.name for path in folder.iterdir()}


def rows_of(tmp_path: Path) -> list[BenchRow]:
    """Return the rows of a bench of one subject."""
    (bench,) = benches_of(read_sweep(tmp_path / "sweep", tmp_path / "outputs"))
    return bench.rows


def test_attributes_and_models_have_a_table_and_fronts_of_their_own(tmp_path: Path, add: Callable[..., None]) -> None:
    for attribute, originals in (("gender", "o"), ("age", "p")):
        before, budget = discrepancy(0.3 if attribute == "age" else 0.6), 0.95 if attribute == "age" else 0.9
        for name in ("icm", "leace"):
            add(name, {"strength": replace(CHOICE, clip_i_budget=budget)}, originals=originals, attribute=attribute,
                fd_original=before, words=(f"attribute={attribute}",))  # fmt: skip
    rows, page, files = reported(tmp_path)
    gender, age = sorted(page.split("# Bench of 2 methods: ")[1:], key=lambda part: not part.startswith("gender"))
    assert gender.startswith("gender on tiny\n") and "FD 0.600 before" in gender and "CLIP-I 0.9 or more" in gender
    assert age.startswith("age on tiny\n") and "FD 0.300 before" in age and "CLIP-I 0.95 or more" in age
    assert all(part.count("| icm | drawn |") == 1 for part in (gender, age))
    assert {"strengths.png", "strengths_2.png"} <= files
    assert sorted((row["attribute"], row["method"]) for row in rows) == [
        ("age", "icm"), ("age", "leace"), ("gender", "icm"), ("gender", "leace"),
    ]  # fmt: skip


def test_settings_of_one_method_are_told_in_a_column_and_each_has_its_front(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    for value in (1, 2):
        add("icm", {"strength": CHOICE}, words=(f"method.params.x={value}",))
    add("leace", {"strength": CHOICE})
    (bench,) = benches_of(read_sweep(tmp_path / "sweep", tmp_path / "outputs"))
    assert set(bench.fronts) == {"icm, method.params.x = 1", "icm, method.params.x = 2", "leace"}
    rows, page, _ = reported(tmp_path)
    assert sorted(row["setting"] for row in rows) == ["", "method.params.x = 1", "method.params.x = 2"]
    assert "Bench of 2 methods: gender on tiny" in page
    assert "| method | setting | kind |" in page and "| icm | method.params.x = 2 | drawn |" in page


def test_sets_of_one_model_and_attribute_are_told_apart_by_what_was_varied(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    for seed in (0, 1):
        add("icm", {"strength": CHOICE}, originals=f"o{seed}", words=(f"seed={seed}",))
    rows, page, _ = reported(tmp_path)
    assert "gender on tiny, seed = 0" in page and "gender on tiny, seed = 1" in page
    assert {row["bench"] for row in rows} == {"seed = 0", "seed = 1"}


def test_kinds_of_methods_are_told_apart_and_obeyed_is_empty_where_nothing_is_drawn(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    explicit = ExplicitPrompts(48, 0.75, 1.0, 0.5, 0.25)
    add("uce", {"explicit": explicit, "fit": FitCost(90.0, 40, "cpu")}, obeyed=None, fd=0.1, params={"ridge": 0.5})
    add("h_distribution", {"strength": CHOICE, "explicit": explicit}, obeyed=None, fd=0.3)
    add("prompt_ethical", {"explicit": explicit}, method="prompt", obeyed=None, params={"text": "ethical"})
    add("leace", {"strength": replace(CHOICE, value=1.0, within_budget=False), "explicit": explicit}, fd=0.4)
    add("icm", {"strength": CHOICE, "explicit": explicit}, fd=0.2)
    rows, page, files = reported(tmp_path)
    assert [(row["method"], row["kind"]) for row in rows] == [
        ("icm", "drawn"), ("leace", "drawn"), ("h_distribution", "batch-coupled"), ("uce", "weights changed"),
        ("prompt_ethical", "nothing drawn"),
    ]  # fmt: skip
    assert [row["obeyed"] for row in rows] == ["0.75", "0.75", "", "", ""]
    assert [row["strength"] for row in rows] == ["3.0", "1.0", "3.0", "", ""]
    assert {"bench.md", "bench.csv", "strengths.png", "sweep.md"} <= files
    assert "| icm | drawn | alpha 3 | 0.200 | 0.100 to 0.400 | 0.250 | 0.250 | 75% | 0.900 | 50% | 75% (uns" in page
    assert "| leace | drawn | alpha 1 ! |" in page
    assert "| uce | weights changed | - | 0.100 |" in page and " - | 0.900 |" in page


def test_what_learns_and_draws_nothing_has_changed_weights_only_if_it_says_so(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    cost = FitCost(90.0, 40, "cpu")
    for name in ("leace", "uce", "time", "lora", "fair_finetuning"):
        params = {"ridge": 0.5, "rank": 4, "where": "all", "scale": 1.0}
        add(name, {"fit": cost, "strength": CHOICE}, obeyed=None, params=params)
    kinds = {row.name: row.kind for row in rows_of(tmp_path)}
    assert kinds.pop("leace") == "nothing drawn"
    assert set(kinds.values()) == {"weights changed"}


def test_what_a_method_cost_and_asks_for_is_in_the_table(tmp_path: Path, add: Callable[..., None]) -> None:
    told = ExplicitPrompts(48, 0.75, 1.0, 0.5, 0.25)
    add("uce", {"explicit": told, "fit": FitCost(90.0, 40, "cpu")}, obeyed=None, params={"ridge": 0.5})
    add("none", {"explicit": ExplicitPrompts(48, 1.0, 1.0, None, None)})
    rows, page, _ = reported(tmp_path)
    none, uce = rows
    assert (uce["learning_minutes"], uce["bytes"], uce["asks_for"]) == ("1.5", "1500", method_named("uce").asks_for)
    assert (none["learning_minutes"], none["bytes"]) == ("0.0", "0")
    assert (none["learning_images"], uce["learning_images"]) == ("0", "40")
    assert "| 1.5 min, 40 images | +0.25 s | 1.5 kB | images of each concept in every round" in page
    assert "| 0.0 min |  | nothing | nothing |" in page
    assert "No strength was chosen" in page


def test_what_an_image_takes_more_is_the_median_of_batches_with_its_spread(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    told = ExplicitPrompts(48, 0.75, 1.0, 0.5, 0.25, [0.1, 0.3, 0.5, 0.9])
    add("icm", {"explicit": told})
    add("leace", {"explicit": replace(told, more=[0.2])}, fd=0.3)
    add("none", {"explicit": replace(told, more=None)}, fd=0.4)
    rows, page, _ = reported(tmp_path)
    assert [(row["more_seconds"], row["timed_batches"]) for row in rows] == [("0.4", "4"), ("0.2", "1"), ("0.25", "0")]
    assert (rows[0]["more_seconds_low"], rows[1]["more_seconds_low"]) == (str(told.more_quartiles[0]), "")  # type: ignore[index]
    assert "| +0.40 s (+0.25 to +0.60, 4 batches) |" in page
    assert "| +0.20 s (1 batch) |" in page and "| +0.25 s |" in page


def test_steering_by_what_images_show_says_which_words_and_images_that_takes(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    spared = {"method": "icm", "assignment": "least_change"}
    add("least_change", {"steer": CHOICE}, tries=3, **spared)
    add("look", {"steer": CHOICE}, look="auto", fd=0.3, **spared)
    add("icm", {"steer": CHOICE, "strength": CHOICE}, fd=0.4)
    jobs = [Job(f"{number}", "a face of a nurse", 0, number) for number in range(4)]
    shown = ["woman", "woman", "woman", "man"]
    for choice, tried in (("least_change", ["man", "", "man", ""]), ("look", None)):
        folder = tmp_path / "outputs/artifacts/steer" / f"{choice}-o"
        more = {table.SHOWN: shown} | ({table.TRIED: tried, table.TURNED: [""] * 4} if tried else {})
        table.write_table(folder, jobs, ["man", "woman", "woman", "man"], more)
        (folder / "images").mkdir()
        for job in jobs:
            (folder / "images" / f"{job.image_id}.png").touch()
        write_artifact(folder, "steer")
    rows, page, _ = reported(tmp_path)
    tried, look, icm = rows
    asked = method_named("icm").asks_for
    assert tried["asks_for"] == (
        f"{asked}; a labeler's word on every unsteered image; the labeler's word on up to 3 tries for each image that "
        "changes"
    )
    assert look["asks_for"] == f"{asked}; readers of early steps, fitted" and icm["asks_for"] == asked
    assert [row["steered_images"] for row in rows] == ["2", "1", ""]
    num_images = int(icm["num_images"])
    assert f"| {2 / num_images:.2f} steered images |" in page
    assert f"| its first steps; {1 / num_images:.0%} are steered |" in page


def test_only_what_was_smaller_than_published_is_said_to_be(tmp_path: Path, add: Callable[..., None]) -> None:
    add("uce", {}, obeyed=None, params={"ridge": 0.5, "rounds": 10})
    add("lora", {"strength": CHOICE}, obeyed=None, params={"rank": 50, "where": "selected", "scale": 1.0})
    add("midsteer", {}, params={"beta": 1.0})
    add("difflens", {}, params={"features": 384, "edit": "add"})
    add("linear_act", {}, params={"map": "linear", "strength": 1.0})
    add("latent_direction", {}, params={"images": 1000, "updates": 300, "scale": 1.0})
    add("fair_finetuning", {}, obeyed=None, params={"rank": 50, "steps": 5, "where": "attention", "scale": 1.0})
    rows, _, _ = reported(tmp_path)
    assert {row["method"]: row["scaled_down"] for row in rows} == {
        "uce": "rounds 10 instead of 30", "lora": "own images, whose published number is not known",
        "midsteer": "mean and covariance of probe images instead of 50,000 captions",
        "difflens": "maps of the probe dataset instead of 50,000 images; features 384 instead of 5,120",
        "linear_act": "probe images that show an option instead of 2,048 samples a side",
        "latent_direction": "updates 300 instead of 5,000",  # of both options together
        "fair_finetuning": "no DINOv2 and no face in the loss; steps 5 instead of all",
    }  # fmt: skip
    few = {"rank": 50, "images": 60, "updates": 200, "batch": 32}
    assert method_named("lora").what_is_smaller(few, 2).endswith("known; epochs 53 instead of 100")
    assert method_named("lora").what_is_smaller(few | {"images": 30}, 2).endswith("known")
    assert "updates" not in method_named("latent_direction").what_is_smaller({"updates": 5000}, 2)
    assert method_named("latent_direction").what_is_smaller({"updates": 5000}, 4) == "updates 5,000 instead of 10,000"
    both = replace(method_named("midsteer"), published={"beta": 2})
    assert both.what_is_smaller({"beta": 1}).endswith("captions; beta 1 instead of 2")


def test_what_probes_took_is_part_of_learning_where_they_choose_the_layers(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    cost = FitCost(30.0, 40, "cpu")
    add("leace", {"strength": CHOICE, "fit": cost, "probe": cost}, seconds=12.0)
    (row,) = rows_of(tmp_path)
    assert learning_seconds(row.method, row.job) == 42.0
    assert learning_seconds(method_named("uce"), row.job) == 30.0


def test_maps_that_are_made_for_a_fit_alone_are_part_of_learning_and_the_shared_images_are_not(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    cost = FitCost(30.0, 40, "cpu")
    add("latent_editing", {"fit": cost, "maps": cost, "probe": cost, "generate": cost}, seconds=12.0)
    (row,) = rows_of(tmp_path)
    assert learning_seconds(row.method, row.job) == 42.0
    assert learning_seconds(method_named("uce"), row.job) == 30.0


@pytest.mark.parametrize(("where", "seconds"), [("selected", 42.0), ("self_attention", 30.0)])
def test_a_lora_learns_by_probes_only_where_they_choose_its_layers(
    tmp_path: Path, add: Callable[..., None], where: str, seconds: float
) -> None:
    cost = FitCost(30.0, 40, "cpu")
    add("lora", {"fit": cost, "probe": cost}, params={"rank": 8, "where": where, "scale": 1.0}, seconds=12.0)
    (row,) = rows_of(tmp_path)
    assert learning_seconds(row.method, row.job) == seconds


def test_what_foretells_is_part_of_learning_where_images_are_read_early(
    tmp_path: Path, add: Callable[..., None]
) -> None:
    add("look", {"probe": CHOICE, "foretell": CHOICE}, method="icm", look="auto", seconds=12.0)
    add("icm", {"probe": CHOICE, "foretell": CHOICE}, seconds=12.0)
    add("latent_editing", {"fit": FitCost(30.0, 40, "cpu")})  # its maps were removed
    assert {row.name: learning_seconds(row.method, row.job) for row in rows_of(tmp_path)} == {
        "look": 24.0, "icm": 12.0, "latent_editing": None,
    }  # fmt: skip


def test_a_method_that_failed_is_listed_and_the_others_are_reported(tmp_path: Path, add: Callable[..., None]) -> None:
    add("icm", {"strength": CHOICE})
    write_result_of_failure = tmp_path / "sweep" / "uce"
    write_result_of_failure.mkdir()
    write_result(write_result_of_failure, ["method=uce"], {}, "it has no cross-attention")
    rows, page, _ = reported(tmp_path)
    assert [row["method"] for row in rows] == ["icm"]
    assert "- job uce: failed: it has no cross-attention" in page
    shared = (tmp_path / "sweep" / "report" / "report.html").read_text("utf-8")
    assert "job uce: failed: it has no cross-attention" in shared
    assert "Bench of 1 method: gender on tiny" in shared and "What it costs and asks for" in shared


def test_a_sweep_that_is_no_bench_has_no_bench_page(tmp_path: Path, add: Callable[..., None]) -> None:
    add("icm", {})
    folder = report_sweep(read_sweep(tmp_path / "sweep", tmp_path / "outputs"))
    assert not [path.name for path in folder.iterdir() if "bench" in path.name]
    assert "Bench of" not in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("names", [["icm"], ["icm", "latent_direction"], [f"a_long_name_{n}" for n in range(15)]])
def test_fronts_of_one_or_many_methods_can_be_read(
    tmp_path: Path, check_texts: Callable[[], None], names: list[str]
) -> None:
    unseen = replace(CHOICE, fd_unsteered=None, tried=[*TRIED, TriedStrength(20.0, None, 0.5, None)])
    plot_fronts(tmp_path / "fronts.png", {name: unseen if n == 1 else CHOICE for n, name in enumerate(names)})
    check_texts()


@pytest.mark.parametrize("others", [[], ["leace"]])
def test_a_strength_that_clip_i_alone_chose_is_told_and_has_no_front(
    tmp_path: Path, add: Callable[..., None], others: list[str]
) -> None:
    blind = replace(CHOICE, fd_unsteered=None, tried=[replace(each, fd=None) for each in TRIED])
    add("icm", {"strength": blind})
    for name in others:
        add(name, {"strength": CHOICE})
    rows, page, files = reported(tmp_path)
    assert {row["method"]: (row["tuning_fd"], row["within_budget"]) for row in rows}["icm"] == ("", "True")
    assert "| icm | drawn | alpha 3 ? |" in page and "? where the labeler saw too little" in page
    assert ("strengths.png" in files) == bool(others)


def test_no_page_explains_a_mark_that_it_does_not_have(tmp_path: Path, add: Callable[..., None]) -> None:
    add("icm", {"strength": CHOICE})
    assert "saw too little" not in reported(tmp_path)[1]
