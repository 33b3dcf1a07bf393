"""Claims about pushes and their controls: planted effects are supported, planted nulls are not, by the same code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims import causality, changes, confirmation, judge
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.generation.jobs import Job, evaluation_jobs, make_jobs, tuning_jobs
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.images.table import IMAGES, SHOWN, TABLE, ImageRow, write_table
from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.report.audit_page import FIGURES
from icm_pipeline.results.effects import UNSTEERED, PushedArm, Pushes, Sort
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.verdicts import Finding, Found, verdict_of
from icm_pipeline.stages.audit import with_figures
from icm_pipeline.stages.push import trial_options
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest
from tests.helpers.results import scores

Compose = Callable[..., Settings]
Arm = tuple[list[Job], list[str], list[int], float]  # jobs, options, gender shown, distance of the twin
OPTIONS, NUM_LAYERS, SETS, REPETITIONS = ["woman", "man"], 12, 20, 20
WORDS = (
    "evaluate.images_per_prompt=24", "audit.sizes.full.trial_images=48", "audit.sizes.full.num_resamples=200",
    "audit.sizes.full.layer_images=24", "audit.other_subjects=[a photo of a dog]", "labeler.kind=tiny",
)  # fmt: skip


class PlantedJudging:
    """Answers what was planted for each picture's name; embeddings lie as far from their twins' as was planted."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, Floats]] = {}
        self.embedded: dict[str, Floats] = {}

    def label(self, judge: Any, setting: str, rows: Sequence[ImageRow], questions: Any) -> dict[str, Floats]:
        uniform = {name: np.full(len(options), 1 / len(options)) for name, options in questions.items()}
        return {
            name: np.array([self.seen[str(row.path)].get(name, uniform[name]) for row in rows]) for name in questions
        }

    def embed(self, rows: Sequence[ImageRow]) -> Floats:
        return np.array([self.embedded[str(row.path)] for row in rows])


@dataclass
class World:
    """Artifacts of planted images."""

    folder: Path
    rng: np.random.Generator
    judging: PlantedJudging

    def artifact(self, name: str, arms: dict[str, Arm], sorts: Any = None) -> Artifact:
        """Write a set of images; arms: {name: jobs, options, the gender that each shows, how far from its twin}."""
        folder = self.folder / name
        folder.mkdir()
        jobs, options = list[Job](), list[str]()
        for arm, (own, steered, shown, moved) in arms.items():
            for job, option, gender in zip(own, steered, shown, strict=True):
                image_id = f"{arm}-{job.image_id}" if arm else job.image_id
                path = str(folder / IMAGES / f"{image_id}.png")
                twin = np.random.default_rng(job.seed % 2**32).normal(size=16)
                other = self.rng.normal(size=16)
                self.judging.seen[path] = {"gender": np.eye(2)[gender] * 0.96 + 0.02}
                self.judging.embedded[path] = twin + moved * other
                jobs.append(replace(job, image_id=image_id))
                options.append(option)
        write_table(folder, jobs, options)
        files = [TABLE, Pushes.FILE, *(f"{IMAGES}/{job.image_id}.png" for job in jobs)]
        if sorts:
            Pushes({arm: PushedArm(*sorts[arm], len(arms[arm][0])) for arm in arms}).write(folder)
        return Artifact(folder, Manifest(name, "0", files=dict.fromkeys(files, FileEntry(0, ""))))


@pytest.fixture
def planted(settings_with: Compose, tmp_path: Path) -> Callable[..., AuditInputs]:
    """Give a function that plants what share obeys at the selected layers, at random sets, and when named otherwise."""
    settings, counter = settings_with(*WORDS), iter(range(1000))

    def plant(
        seed: int, obeyed: float = 0.95, at_random: float = 0.1,  kept: float = 1.0,
        moved: float = 0.3, causal: float = 1.0,
    ) -> AuditInputs:  # fmt: skip
        folder = tmp_path / str(next(counter))
        folder.mkdir()
        world = World(folder, np.random.default_rng(seed), PlantedJudging())
        rng, jobs = world.rng, evaluation_jobs(settings)
        trial, wanted = jobs[:48], trial_options(settings)
        everyone = [int(option) for option in rng.permutation(np.arange(len(jobs)) % 2)]
        everyone[:48] = wanted

        def shown(options: Sequence[int], share: float, otherwise: Sequence[int]) -> list[int]:
            """A share of the images shows what it is pushed to, the others what they show unsteered."""
            pairs = zip(options, otherwise, strict=True)
            return [option if rng.random() < share else as_ever for option, as_ever in pairs]

        def told(options: Sequence[int]) -> list[str]:
            return [OPTIONS[option] for option in options]

        nobody = [""] * len(jobs)
        before = [0 if rng.random() < 0.85 else 1 for _ in jobs]
        originals = world.artifact("originals", {"": (jobs, nobody, before, 0.0)})
        selected_share = float(np.clip(obeyed + (rng.normal(0, 0.1) if obeyed == at_random else 0), 0, 1))
        steer = world.artifact("steer", {"": (jobs, told(everyone), shown(everyone, selected_share, before), moved)})
        arms: dict[str, Any] = {}
        sorts: dict[str, tuple[Sort, list[str]]] = {}
        for number in range(SETS):
            share = float(np.clip(at_random + rng.normal(0, 0.1), 0, 1))
            arms[f"layers_{number:03d}"] = (trial, told(wanted), shown(wanted, share, before[:48]), moved)
            sorts[f"layers_{number:03d}"] = ("random_layers", ["a"])
            arms[f"direction_{number:03d}"] = (trial, told(wanted), shown(wanted, at_random, before[:48]), moved)
            sorts[f"direction_{number:03d}"] = ("random_direction", ["a"])
        arms["worst"], sorts["worst"] = (
            (trial, told(wanted), shown(wanted, at_random, before[:48]), moved),
            ("worst_layers", ["a"]),
        )
        again = make_jobs(settings.attribute.evaluation_prompts, 24, 5, "push")
        arms["other_seeds"] = (again, [""] * 96, [0] * 96, 0.0)
        sorts["other_seeds"] = ("other_seeds", [])
        prompts = named_prompts(settings.attribute)[:48]
        named = make_jobs([prompt.text for prompt in prompts], 1, 6, "push")
        says = [OPTIONS.index(prompt.option) for prompt in prompts]
        away = [1 - option for option in says]
        arms["named"], sorts["named"] = (named, [""] * 48, says, 0.0), ("named", [])
        arms["named_steered"], sorts["named_steered"] = (
            (named, told(away), shown(away, 1 - kept, says), moved),
            ("named", ["a"]),
        )
        dogs = make_jobs(["a photo of a dog"], 24, 7, "push")
        arms["other_subjects"] = (dogs, [""] * 24, [0] * 24, 0.0)
        arms["other_subjects_steered"] = (dogs, told([0, 1] * 12), [0] * 24, 0.02)
        sorts |= {"other_subjects": ("other_subjects", []), "other_subjects_steered": ("other_subjects", ["a"])}
        push = world.artifact("push", arms, sorts)
        accuracy = {f"layer {number}": 0.95 - number / 40 for number in range(NUM_LAYERS)}
        tried, to = tuning_jobs(settings, 24), [0, 1] * 12
        as_ever = [0, 0, 1, 1] * 6
        layers: dict[str, Any] = {UNSTEERED: (tried, [""] * 24, as_ever, 0.0)}
        for number in range(NUM_LAYERS):
            share = causal * (1 - number / NUM_LAYERS) if causal else 0.5
            layers[f"layer_{number:03d}"] = (tried, told(to), shown(to, share, as_ever), moved)
        of_layer = {f"layer_{number:03d}": ("layer", [layer]) for number, layer in enumerate(accuracy)}
        effects = world.artifact("causal", layers, {UNSTEERED: ("layer", []), **of_layer})
        known = folder / "known"
        known.mkdir()
        scores({layer: ("self_attention", value, []) for layer, value in accuracy.items()}).write(known)
        ranking = [LayerScore(layer, "self_attention", value) for layer, value in accuracy.items()]
        Selection([row.layer for row in ranking[:3]], "top", "self_attention", ranking).write(known)
        files = dict.fromkeys(["scores.json", "selection.json"], FileEntry(0, ""))
        both = Artifact(known, Manifest("", "0", files=files))
        artifacts = {"originals": originals, "steer": steer, "push": push, "causal": effects}
        return AuditInputs(settings, {**artifacts, "probe": both, "select": both}, world.judging)  # type: ignore[arg-type]

    return plant


def finding(found: Found, claim: str) -> Finding:
    return next(each for each in found.findings if each.claim == claim)


def verdicts(found: Found) -> dict[str, str]:
    return {each.claim: verdict_of(each, each.p) for each in found.findings}


def shares(
    plant: Callable[..., AuditInputs], ask: Any, claims: Sequence[str], verdict: str, **how: Any
) -> dict[str, float]:
    """Return how often each claim gets a verdict over repetitions."""
    given = [verdicts(ask(plant(seed, **how))) for seed in range(REPETITIONS)]
    return {claim: float(np.mean([each[claim] == verdict for each in given])) for claim in claims}


PUSHED = [f"causality.{name}" for name in ("random_layers", "random_layers_fd", "rank", "local", "worst_layers",
                                           "random_directions", "accuracy")]  # fmt: skip


def test_a_planted_lead_of_the_selected_layers_is_supported(planted: Any) -> None:
    found = shares(planted, causality.found, PUSHED, "supported")
    assert min(found.values()) >= 0.9, found


def test_selected_layers_that_are_like_any_others_are_not_supported_and_mostly_refuted(planted: Any) -> None:
    supported = shares(planted, causality.found, PUSHED, "supported", obeyed=0.4, at_random=0.4, causal=0.0)
    assert max(supported.values()) <= 0.15, supported


def test_layers_that_do_much_less_than_random_ones_are_refuted(planted: Any) -> None:
    claims = [claim for claim in PUSHED if claim != "causality.accuracy"]
    refuted = shares(planted, causality.found, claims, "refuted", obeyed=0.0, at_random=0.8)
    assert min(refuted.values()) >= 0.9, refuted


def test_the_tables_hold_every_arm_and_layer_and_their_figures_are_drawn(planted: Any, tmp_path: Path) -> None:
    found = causality.found(planted(0))
    sets, layers = found.tables["sets"], found.tables["layers"]
    assert [row[1] for row in sets.rows].count("random_layers") == SETS
    assert {"unsteered", "selected", "worst_layers", "random_direction"} <= {row[1] for row in sets.rows}
    assert len(layers.rows) == NUM_LAYERS
    assert sum(float(row[-1]) for row in layers.rows) == 3
    for name in found.tables:
        assert FIGURES["causality", name][1](tmp_path / f"{name}.png", found.tables[name]).stat().st_size > 1000


def test_sets_that_there_are_not_are_told(planted: Any) -> None:
    inputs = planted(0)
    path = inputs.artifacts["push"].folder / Pushes.FILE
    path.write_text(path.read_text().replace("random_layers", "other_seeds").replace("worst_layers", "other_seeds"))
    found = causality.found(inputs)
    names = ("random_layers", "random_layers_fd", "rank", "local", "worst_layers")
    assert set(found.left_out) == {f"causality.{name}" for name in names}
    assert "causality.random_directions" in verdicts(found)


def test_attributes_that_stay_are_supported_and_one_that_moves_is_refuted(planted: Any) -> None:
    inputs = planted(1)
    for path, seen in inputs.judging.seen.items():
        old = "/steer/" in path
        rng = np.random.default_rng(crc32(path.rpartition("/")[2].encode()))
        seen["glasses"] = np.array([0.6, 0.4])
        seen["age"] = np.array([0.1, 0.9]) if old and rng.random() < 0.8 else np.array([0.8, 0.2])
    found = changes.found(inputs)
    given = verdicts(found)
    assert given["changes.glasses"] == "supported"
    assert given["changes.age"] == "refuted"
    assert set(given) >= {"changes.named_prompts", "changes.other_subjects"}


@pytest.mark.parametrize(("kept", "expected"), [(0.5, "refuted"), (0.0, "refuted"), (1.0, "undecided")])
def test_named_prompts_that_are_not_kept_are_refuted(planted: Any, kept: float, expected: str) -> None:
    """48 images that are all kept do not yet show that 95 of 100 are."""
    found = changes.found(planted(2, kept=kept))
    assert verdicts(found)["changes.named_prompts"] == expected
    assert finding(found, "changes.named_prompts").effect == pytest.approx(kept, abs=0.2)


def test_other_subjects_that_stay_like_their_twins_are_supported(planted: Any) -> None:
    assert verdicts(changes.found(planted(3)))["changes.other_subjects"] == "supported"
    assert verdicts(changes.found(planted(3, moved=0.02)))["changes.other_subjects"] != "supported"


def test_what_cannot_be_asked_is_told(planted: Any, settings_with: Compose) -> None:
    inputs = planted(4)
    asked = replace(inputs, settings=settings_with(*WORDS, "method.assignment=least_change"))
    assert "does not steer images whose prompts name" in changes.found(asked).left_out["changes.named_prompts"]
    left_out = judge.found(replace(inputs, labelled_from="no folder")).left_out
    assert left_out["judge.recall"] == left_out["judge.corrected_fd"] == "no folder"


def test_a_judge_who_errs_is_refuted_and_fd_is_corrected(planted: Any) -> None:
    inputs = planted(5)
    rng, rows = np.random.default_rng(0), list[ImageRow]()
    for number in range(300):
        path = Path(f"/known/{number}.png")
        truth = number % 2
        said = truth if truth == 0 or rng.random() < 0.7 else 0
        inputs.judging.seen[str(path)] = {"gender": np.eye(2)[said]}
        rows.append(ImageRow(str(number), "", 0, None, OPTIONS[truth], path))
    found = judge.found(replace(inputs, labelled=rows, labelled_from="planted"))
    given = verdicts(found)
    assert given["judge.recall"] == "refuted"
    assert given["judge.agreement"] == "supported"
    recall = finding(found, "judge.recall")
    assert recall.effect == pytest.approx(0.7, abs=0.07)
    assert "man" in recall.control
    assert [row[0] for row in found.tables["confusion"].rows] == OPTIONS
    assert finding(found, "judge.corrected_fd").effect != pytest.approx(
        finding(confirmation.found(inputs), "confirmation.fd").effect, abs=0.01
    )


def test_what_steering_does_on_fresh_prompts_is_supported_and_nothing_where_it_does_nothing(planted: Any) -> None:
    names = [f"confirmation.{name}" for name in ("apart", "fd", "obeyed", "clip_i")]
    assert set(shares(planted, confirmation.found, names, "supported").values()) == {1.0}
    inputs = planted(6)
    same = replace(inputs, artifacts={**inputs.artifacts, "originals": inputs.artifacts["steer"]})
    given = verdicts(confirmation.found(same))
    assert given["confirmation.fd"] == given["confirmation.obeyed"] == "refuted"


def test_evaluation_prompts_that_probes_or_tuning_had_are_refuted(planted: Any, settings_with: Compose) -> None:
    settings = settings_with(*WORDS, "attribute.evaluation_prompts=[a photo of a person,a face of a doctor]")
    found = confirmation._nothing_tuned(replace(planted(7), settings=settings))
    assert (found.effect, verdict_of(found, found.p)) == (0.5, "refuted")
    assert "a photo of a person" in found.control


def blind(inputs: AuditInputs, is_unseen: Callable[[str], bool]) -> AuditInputs:
    """Let the judge see no attribute in some pictures."""
    for path, seen in inputs.judging.seen.items():  # type: ignore[attr-defined]
        if is_unseen(path):
            seen |= {"gender": np.full(2, np.nan), "age": np.full(2, np.nan), "glasses": np.full(2, np.nan)}
    return inputs


def test_a_prompt_of_which_the_judge_sees_nothing_does_not_count_as_a_change(planted: Any) -> None:
    first = [f"{index:06d}" for index in range(0, 96, 4)]
    found = changes.found(blind(planted(8), lambda path: "other_seeds" in path and path[-10:-4] in first))
    assert np.isfinite(finding(found, "changes.age").effect)


def test_claims_of_which_the_judge_sees_nothing_are_left_out_and_their_rows_with_them(planted: Any) -> None:
    inputs = blind(planted(9), lambda path: "/steer/" in path)
    found = changes.found(inputs)
    kept = with_figures(found)
    assert kept.left_out["changes.age"].startswith("It has no figure of 96 images")
    assert "changes.other_subjects" in verdicts(kept)
    names = [[row[0] for row in each.tables["drift"].rows] for each in (found, kept)]
    assert set(names[0]) - set(names[1]) == {"age", "glasses"}
    assert with_figures(kept) == kept


def test_named_options_that_no_image_shows_leave_the_claim_out(planted: Any) -> None:
    found = changes.found(blind(planted(10), lambda path: "named-" in path))
    assert "No image showed what its prompt names" in found.left_out["changes.named_prompts"]


def test_a_judge_whose_errors_or_agreement_cannot_be_told_leaves_those_claims_out(planted: Any) -> None:
    inputs = blind(planted(11), lambda path: False)
    rows = [
        ImageRow(str(number), "", 0, None, OPTIONS[number % 2], Path(f"/known/{number}.png")) for number in range(8)
    ]
    for number, row in enumerate(rows):
        inputs.judging.seen[str(row.path)] = {"gender": np.eye(2)[0] if number % 2 == 0 else np.full(2, np.nan)}
    for path, seen in inputs.judging.seen.items():
        if "/steer/" in path:
            seen["gender"] = np.array([0.9, 0.1])
    found = judge.found(replace(inputs, labelled=rows, labelled_from="planted"))
    assert "No labelled image of option 1 was judged" in found.left_out["judge.corrected_fd"]
    assert "call all steered images the same" in found.left_out["judge.agreement"]
    assert finding(found, "judge.recall").effect == 0


def test_no_other_attribute_is_told_and_the_rest_is_asked(planted: Any, settings_with: Compose) -> None:
    inputs = planted(12)
    inputs.settings.evaluate.drift.clear()
    found = changes.found(inputs)
    assert "evaluate.drift" in found.left_out["changes.other_attributes"]
    assert {each.claim for each in found.findings} == {"changes.named_prompts", "changes.other_subjects"}


def test_images_that_were_left_alone_do_not_make_the_steered_look_like_their_twins(planted: Any) -> None:
    inputs = planted(13)
    table = inputs.artifacts["steer"].folder / TABLE
    head, *lines = table.read_text().splitlines()
    for line in lines[48:]:  # left alone: an original, which is its twin
        path = str(inputs.artifacts["steer"].folder / IMAGES / f"{line.split(',')[0]}.png")
        inputs.judging.embedded[path] = inputs.judging.embedded[path.replace("/steer/", "/originals/")]
    was = finding(changes.found(inputs), "changes.other_subjects").effect
    shown = [next(name for name in OPTIONS if f",{name}," in f",{line},") for line in lines]
    others = [OPTIONS[1 - OPTIONS.index(name)] if number < 48 else name for number, name in enumerate(shown)]
    rows = [f"{line},{name}" for line, name in zip(lines, others, strict=True)]
    table.write_text("\n".join([f"{head},{SHOWN}", *rows]) + "\n")
    assert finding(changes.found(inputs), "changes.other_subjects").effect > 1.5 * was


def test_fd_of_trials_that_all_obey_is_none_though_their_options_are_uneven_within_prompts(planted: Any) -> None:
    found = causality.found(planted(14, obeyed=1.0))
    assert finding(found, "causality.random_layers_fd").control.partition(". ")[0].endswith("0.00 at these")


def test_a_prompt_with_another_article_is_the_same_and_subjects_of_tuning_are_named(
    planted: Any, settings_with: Compose
) -> None:
    settings = settings_with(*WORDS, "attribute.evaluation_prompts=[a face of an engineer,a drawing of a teacher]")
    found = confirmation._nothing_tuned(replace(planted(15), settings=settings))
    assert (found.effect, verdict_of(found, found.p)) == (0.5, "refuted")
    assert "shared prompts: a face of an engineer" in found.control
    assert "in other templates they had teacher, engineer" in found.control
