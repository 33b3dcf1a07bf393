"""The pipeline: which setting changes which key, what is missing is made in order, what is there is not made again."""

import logging
import shlex
from collections.abc import Callable
from copy import deepcopy
from dataclasses import is_dataclass
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from PIL import Image

from icm_pipeline.config.auditing import CLAIMS
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import Stage, StageContext
from icm_pipeline.pipeline.table import AUDITED, BENCHED, LOCALIZING, STAGES, stages_of
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.manifest import Manifest
from icm_pipeline.tracking.base import NoTracker

Compose = Callable[..., Settings]
ORDER = ["generate", "label", "probe", "select", "originals", "steer", "evaluate", "report"]
# icm has no `maps` and `fit`, tests/methods/test_rivals.py has; `assign` is of least change, `tune` of alpha=auto.
OTHER_PARTS = (*AUDITED, *BENCHED, *LOCALIZING)
STAGES_OF_ICM = [name for name in STAGES if name not in ("maps", "fit", "assign", "tune", *OTHER_PARTS)]
LATE = {"evaluate", "report"}
STEERED = {"steer", *LATE}
CHOSEN = {"select", *STEERED}
PROBED = {"probe", *CHOSEN}
LABELLED = {"label", "foretell", *PROBED}
RECORDED = {"generate", "extract", *LABELLED}


def keys(settings: Settings) -> dict[str, str]:
    found = Pipeline(settings, [], NoTracker())
    return {name: found.keys.key(name) for name in STAGES_OF_ICM}


def all_settings(schema: type = Settings, place: str = "") -> list[str]:
    """Return the dotted name of every setting that there is."""
    found: list[str] = []
    for name, kind in get_type_hints(schema).items():
        found += all_settings(kind, f"{place}{name}.") if is_dataclass(kind) else [place + name]
    return found


def under(group: str, *names: str) -> list[str]:
    return [f"{group}.{name}" for name in names]


def each(names: list[str], stages: set[str]) -> dict[str, set[str]]:
    return {name: stages for name in names}


JUDGE = ("kind", "model", "path", "faces", "detector", "groups", "preprocess")
CHANGED_BY: dict[str, set[str]] = {
    "seed": set(STAGES_OF_ICM),
    **each(
        [*under("model", "path", "revision", "variant", "num_steps", "guidance_scale", "scheduler", "height", "width",
                "call"),
         *under("compute", "dtype", "vae_tiling")],  # tiling blends tiles
        set(STAGES_OF_ICM),
    ),
    **each(
        ["model.sites", "timesteps.start", "timesteps.count", "generate.images_per_prompt",
         *under("attribute", "probe_templates", "probe_subjects")],
        RECORDED,
    ),
    "generate.record": RECORDED - {"extract"}, "generate.store": RECORDED,
    **each([*under("labeler", *JUDGE), *under("attribute", "name", "options")], LABELLED),
    **each(under("probe", "C", "max_iter", "solver", "test_share"), PROBED),
    **each(under("probe", "group_by_prompt", "shuffle_labels"), {"foretell", *PROBED}),
    **each(under("layers", "kind", "rule", "k", "names", "seed"), CHOSEN),
    **each(under("evaluate", "images_per_prompt", "seeds_before"), {"originals", *STEERED}),
    "attribute.evaluation_prompts": {"originals", *STEERED},
    "attribute.words": STEERED,
    **each(
        ["alpha", *under("method", "name", "direction", "alpha_unit", "assignment", "draw_size", "params", "first_step",
                         "last_step", "vector", "norm_preserving", "target_shares", "shares_by_prompt",
                         "look", "tries")],
        STEERED,
    ),
    "bench.included": STEERED,  # by the strength that is chosen
    **each(
        [*under("judge", *JUDGE), *under("evaluate.clip", "model", "path", "preprocess"),
         *under("evaluate", "drift", "bootstrap", "fd", "reference", "inception")],
        LATE,
    ),
}  # fmt: skip
# Where and how fast things run, how they are named and told, and what only other stages or commands read.
CHANGES_NOTHING = [
    *under("attribute", "trial_subjects", "named", "said"),
    *under("audit", "included", "size", "sizes", "claims", "labelled", "other_subjects"),
    *under("localizers", "injection", "contribution", "intervention", "causal", "images", "windows"),
    *under("bench", "size", "sizes", "clip_i"), *under("method", "strength", "strengths", "shares_table"),
    "stage", "sweep", "force", "shards", "shard", "devices", "paths.outputs", "plan.seconds_per_image",
    *under("folders", "table", "names"),
    *under("model", "name", "outline"),
    *under("model.compute", "device", "dtype", "batch_size"),
    *under("compute", "device", "offload", "vae_slicing", "compile", "batch_size", "grow_batch", "decode_batch_size",
           "num_threads"),
    *under("model.steering", "alpha", "alpha_unit", "k", "C", "first_step", "last_step"),
    "timesteps.name", "method.wanted_share",
    *under("labeler", "batch_size", "device"), *under("judge", "batch_size", "device"),
    *under("generate", "shard_size", "reuse_prefix"),
    *under("probe", "device", "min_per_option"),
    *under("evaluate.clip", "kind", "batch_size", "device", "faces", "detector", "groups"),
    *under("tracker", "name", "mode", "project", "entity", "group"),
    *under("explore", "of", "vectors", "prompt", "image_seed", "num_images", "way", "option", "alpha", "balanced",
           "layers", "first_step", "last_step", "save", "host", "port"),
    *under("pretrain", "part", "folder", "install", "device", "num_portraits", "num_held_out", "num_quality_images",
           "steps", "batch_sizes", "learning_rates", "compile", "from_shipped"),
]  # fmt: skip
OTHER_STAGES = ["images", "reference"]  # with these the pipeline is another: label and evaluate, of a folder
# What a setting is read beside, and another value of one that is a choice or begins as null.
BESIDE = {
    "layers.seed": "layers.rule=random",
    "layers.names": "layers.rule=named",
    "method.draw_size": "method.assignment=batch",
    "attribute.words": "method.assignment=least_change",
}
VALUES: dict[str, Any] = {
    "layers.rule": "worst", "layers.kind": "cross_attention", "method.name": "none", "method.assignment": "image",
    "method.last_step": 9, "method.look": 3, "method.target_shares": [0.3, 0.7], "timesteps.count": 5,
    "model.height": 64, "model.width": 64, "shard": 0, "compute.decode_batch_size": 2, "compute.num_threads": 2,
    "generate.store": "float32", "model.steering.last_step": 3, "plan.seconds_per_image": 1.0,
    "audit.size": "quick", "bench.size": "quick", "bench.clip_i": 0.5,
    "method.shares_by_prompt": {"a face of a nurse": [0.3, 0.7]}, "audit.claims": ["kinds"],
}  # fmt: skip


def another(value: Any) -> Any:
    """Return a value that differs from a setting's."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, dict):
        return {**value, "another": next(iter(value.values()), "another")}
    return f"{value}-another"


def with_another(settings: Settings, dotted: str, folder: Path) -> Settings:
    """Return settings of which one has another value."""
    changed = deepcopy(settings)
    group, _, name = dotted.rpartition(".")
    owner = attrgetter(group)(changed) if group else changed
    value = str(folder) if dotted == "evaluate.reference" else VALUES.get(dotted, another(getattr(owner, name)))
    assert value != getattr(owner, name)
    setattr(owner, name, value)
    return changed


def test_every_setting_there_is_has_its_place_in_the_tables_of_what_changes_which_key() -> None:
    assert sorted([*CHANGED_BY, *CHANGES_NOTHING, *OTHER_STAGES]) == sorted(all_settings())


@pytest.mark.parametrize("dotted", [*CHANGED_BY, *CHANGES_NOTHING])
def test_a_setting_changes_exactly_the_keys_of_what_depends_on_it(
    settings_with: Compose, tmp_path: Path, dotted: str
) -> None:
    settings = settings_with(BESIDE.get(dotted, "seed=0"))
    before, after = keys(settings), keys(with_another(settings, dotted, tmp_path))
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == CHANGED_BY.get(dotted, set())


WITH_AUDIT = {
    "seed": set(AUDITED), "model.path": set(AUDITED), "attribute.named": {"named", "push", "audit"},
    "attribute.trial_subjects": set(AUDITED), "timesteps.count": {"named", "causal", "push", "audit"},
    "alpha": {"causal", "push", "audit"}, "layers.k": {"push", "audit"}, "judge.path": {"audit"},
    "method.assignment": {"push", "audit"}, "evaluate.seeds_before": {"push", "audit"},
    "evaluate.images_per_prompt": {"push", "audit"},
    "audit.other_subjects": {"push", "audit"}, "audit.claims": {"audit"}, "audit.size": set(AUDITED),
    "probe.C": {"causal", "push", "audit"}, "evaluate.drift": {"audit"}, "evaluate.fd": {"audit"},
    **each([*under("probe", "device", "min_per_option"), *under("evaluate", "bootstrap", "reference")], set()),
    "compute.batch_size": set(), "tracker.name": set(), "generate.shard_size": set(), "audit.included": set(),
}  # fmt: skip
OF_SIZE = {
    "num_sets": {"push", "audit"}, "images_per_set": {"push", "audit"}, "layer_images": {"causal", "audit"},
    "named_images": {"named", "audit"}, "num_steps": {"named", "audit"}, "num_resamples": {"audit"},
}  # fmt: skip


@pytest.mark.parametrize("dotted", [*WITH_AUDIT, *OF_SIZE])
def test_a_setting_changes_exactly_the_keys_of_the_audits_stages_that_read_it(
    settings_with: Compose, tmp_path: Path, dotted: str
) -> None:
    settings = settings_with()
    before = {name: Pipeline(settings, [], NoTracker()).keys.key(name) for name in AUDITED}
    changed = with_another(settings, dotted, tmp_path) if dotted in WITH_AUDIT else deepcopy(settings)
    if dotted in OF_SIZE:
        setattr(changed.audit.chosen, dotted, 60)
    after = {name: Pipeline(changed, [], NoTracker()).keys.key(name) for name in AUDITED}
    assert {name for name in AUDITED if before[name] != after[name]} == {**WITH_AUDIT, **OF_SIZE}[dotted]


@pytest.mark.parametrize(
    ("beside", "word", "claims"),
    [
        ("layers.rule=all", "layers.k=3", "stability"),
        ("layers.rule=named", "layers.k=3", "stability"),
        ("layers.rule=named", "layers.kind=cross_attention", "stability"),
        ("alpha=3", "attribute.trial_subjects=[judge]", "confirmation"),
    ],
)
def test_what_a_claim_reads_itself_changes_the_audits_key_where_no_stage_before_it_reads_it(
    settings_with: Compose, beside: str, word: str, claims: str
) -> None:
    def key(*words: str) -> str:
        return Pipeline(settings_with(beside, f"audit.claims=[{claims}]", *words), [], NoTracker()).keys.key("audit")

    assert key() != key(word)
    assert key() == key("audit.sizes.quick.num_sets=3", "layers.names=[]", "probe.min_per_option=3")


@pytest.mark.parametrize(("assignment", "is_read"), [("quota", True), ("least_change", False)])
def test_how_prompts_name_an_option_is_read_only_where_these_are_pushed(
    settings_with: Compose, tmp_path: Path, assignment: str, is_read: bool
) -> None:
    settings = settings_with(f"method.assignment={assignment}")
    found = Pipeline(settings, [], NoTracker()).keys
    other = Pipeline(with_another(settings, "attribute.named", tmp_path), [], NoTracker()).keys
    assert (found.key("push") != other.key("push")) == is_read
    assert found.key("named") != other.key("named")


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["audit.included=true"], {*AUDITED}),
        (["stage=audit"], {*AUDITED}),
        (["audit.included=true", "audit.claims=[separability,judge]"], {"audit"}),
        (["stage=audit", "audit.claims=[implicit]"], {"named", "audit"}),
        (["audit.included=true", "audit.claims=[changes]"], {"push", "audit"}),
        (["audit.included=true", "audit.claims=[kinds]", "layers.rule=causal"], {"causal", "audit"}),
        (["audit.claims=[causality]"], set()),
        (["stage=push"], {"push"}),
    ],
)
def test_an_audit_makes_what_its_claims_need_and_nothing_else(
    settings_with: Compose, words: list[str], stages: set[str]
) -> None:
    assert set(stages_of(settings_with(*words))) & {*AUDITED} == stages


def test_the_order_in_which_claims_are_asked_changes_no_key(settings_with: Compose) -> None:
    def key(*claims: str) -> str:
        settings = settings_with(f"audit.claims=[{','.join(claims)}]")
        return Pipeline(settings, [], NoTracker()).keys.key("audit")

    assert key("kinds", "judge") == key("judge", "kinds") != key("kinds")
    assert key() == key(*CLAIMS)


def test_another_text_of_an_option_of_a_drifting_attribute_changes_the_evaluation(settings_with: Compose) -> None:
    settings = settings_with()
    before = keys(settings)
    settings.evaluate.drift["age"].options["old"] = ["an old man"]
    after = keys(settings)
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == LATE


JUDGED_BY = [*under("labeler", *JUDGE), *under("attribute", "name", "options")]
IN_FOLDERS = {
    **each(JUDGED_BY, {"label", "evaluate"}),
    **each([name for name, changed in CHANGED_BY.items() if changed == LATE], {"evaluate"}),
    **each(["seed", "method.target_shares", "method.shares_by_prompt"], {"evaluate"}),
}


def test_of_folders_of_images_a_setting_changes_exactly_the_keys_of_what_reads_it(
    settings_with: Compose, tmp_path: Path
) -> None:
    for name in ("images", "pictures"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    settings = settings_with(f"images={tmp_path / 'images'}", "stage=evaluate")
    before = folder_keys(settings)
    for dotted, changed in IN_FOLDERS.items():
        after = folder_keys(with_another(settings, dotted, tmp_path / "pictures"))
        assert {name for name in before if before[name] != after[name]} == changed, dotted
    unread = [name for name in (*CHANGED_BY, *CHANGES_NOTHING) if name not in IN_FOLDERS]
    for dotted in unread:
        if not dotted.startswith("folders."):  # how a folder is read: counts by what is read
            settings = with_another(settings, dotted, tmp_path)
    assert folder_keys(settings) == before


def folder_keys(settings: Settings) -> dict[str, str]:
    found = Pipeline(settings, [], NoTracker())
    return {name: found.keys.key(name) for name in stages_of(settings)}


@pytest.mark.parametrize(
    ("beside", "word"),
    [
        ("layers.rule=top", "layers.seed=1"),
        ("layers.rule=all", "layers.k=3"),
        ("layers.rule=all", "layers.seed=1"),
        ("layers.rule=named", "layers.kind=cross_attention"),
        ("method.assignment=quota", "method.draw_size=8"),
        ("method.assignment=image", "method.draw_size=8"),
        ("method.assignment=quota", "attribute.words.woman=[girl]"),
        ("method.name=none", "alpha=3"),
        ("method.name=none", "method.direction=pattern"),
        ("probe.C=1", "probe.min_per_option=3"),
        ("evaluate.fd=labels", "evaluate.drift.age.probe_subjects=[person]"),
    ],
)
def test_what_nothing_reads_beside_the_other_settings_changes_no_key(
    settings_with: Compose, beside: str, word: str
) -> None:
    assert keys(settings_with(beside, word)) == keys(settings_with(beside))


@pytest.mark.parametrize(
    ("beside", "word", "changed"),
    [
        ("layers.rule=random", "layers.seed=1", CHOSEN),
        ("layers.rule=worst", "layers.k=3", CHOSEN),
        ("layers.rule=named", "layers.names=[mid]", CHOSEN),
        ("method.assignment=batch", "method.draw_size=8", STEERED),
        ("method.name=none", "method.assignment=image", STEERED),
    ],
)
def test_what_is_read_beside_the_other_settings_changes_the_keys_below_it(
    settings_with: Compose, beside: str, word: str, changed: set[str]
) -> None:
    before, after = keys(settings_with(beside)), keys(settings_with(beside, word))
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == changed


@pytest.mark.parametrize(
    ("look", "word", "changed"),
    [
        ("null", "labeler.model=another", {"assign", *LABELLED}),
        ("null", "method.target_shares=[0.3,0.7]", {"assign", *STEERED}),
        ("null", "probe.group_by_prompt=true", {"foretell", *PROBED}),
        ("auto", "probe.group_by_prompt=true", {"assign", "foretell", *PROBED}),
        ("auto", "probe.C=3", PROBED),
        ("auto", "method.look=3", {"assign", *STEERED}),
        ("auto", "layers.k=3", CHOSEN),
    ],
)
def test_who_is_changed_depends_on_what_is_seen_or_foretold_alone(
    settings_with: Compose, look: str, word: str, changed: set[str]
) -> None:
    def found(*words: str) -> dict[str, str]:
        settings = settings_with("method.assignment=least_change", f"method.look={look}", *words)
        pipeline = Pipeline(settings, [], NoTracker())
        return {name: pipeline.keys.key(name) for name in (*STAGES_OF_ICM, "assign")}

    before, after = found(), found(word)
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("words", [[], ["method.name=none"]])
def test_an_alpha_is_the_number_that_it_is_however_it_is_written(settings_with: Compose, words: list[str]) -> None:
    found = [keys(settings_with(*words, f"alpha={alpha}")) for alpha in ("7", "7.0", "7e0", "'7'")]
    assert found == [found[0]] * 4
    content = Pipeline(settings_with("alpha=7"), [], NoTracker()).keys.content("steer")
    assert repr(content["config"]["alpha"]) == "7.0"


TUNED_BY = {
    *under("method", "name", "params", "direction", "alpha_unit", "first_step", "last_step", "vector",
           "norm_preserving", "wanted_share"),
    "model.steering.alpha", "attribute.trial_subjects",
}  # fmt: skip


def test_a_searched_alpha_is_an_artifact_of_its_own_before_the_steered_images(
    settings_with: Compose, tmp_path: Path
) -> None:
    settings = settings_with("alpha=auto")
    assert [name for name in stages_of(settings) if name not in ORDER] == ["tune"]
    assert "tune" not in stages_of(settings_with("alpha=auto", "method.name=none"))
    found = Pipeline(settings, [], NoTracker()).keys
    assert found.parents("steer").keys() == {"probe", "select", "tune"}
    for dotted, changed in CHANGED_BY.items():
        if dotted not in ("alpha", "method.name") and "assign" not in changed:
            other = Pipeline(with_another(settings, dotted, tmp_path), [], NoTracker()).keys
            assert (other.key("tune") != found.key("tune")) == (
                dotted in TUNED_BY
                or "probe" in changed
                or ("select" in changed and dotted in ("layers.kind", "layers.k", "layers.rule"))
            ), dotted
    for dotted in ("method.wanted_share", "model.steering.alpha"):
        changed = deepcopy(settings)
        owner, _, name = dotted.rpartition(".")
        setattr(attrgetter(owner)(changed), name, 0.5)
        other = Pipeline(changed, [], NoTracker()).keys
        assert other.key("tune") != found.key("tune")
        assert other.key("steer") != found.key("steer")


def test_a_search_depends_on_evaluation_prompts_only_where_it_leaves_some_out(settings_with: Compose) -> None:
    def key(*prompts: str) -> str:
        words = ("alpha=auto", "attribute.probe_templates=['a {}']", "attribute.trial_subjects=[judge,chef]")
        settings = settings_with(*words, f"attribute.evaluation_prompts=[{','.join(prompts)}]")
        return Pipeline(settings, [], NoTracker()).keys.key("tune")

    assert key("a nurse") == key("a doctor", "a nurse")
    assert key("a nurse") != key("a judge")


def test_two_stages_never_share_a_key(settings_with: Compose) -> None:
    assert len(set(keys(settings_with()).values())) == len(STAGES_OF_ICM)


@pytest.mark.parametrize(
    ("dotted", "changed"),
    [
        ("model.path", set(STAGES_OF_ICM)),
        ("labeler.path", LABELLED),
        ("judge.path", LATE),
        ("evaluate.clip.path", LATE),
    ],
)
def test_other_weights_at_the_same_path_are_another_key(
    settings_with: Compose, tmp_path: Path, dotted: str, changed: set[str]
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"0123")
    before = keys(settings_with(f"{dotted}={tmp_path}"))
    assert keys(settings_with(f"{dotted}={tmp_path}")) == before
    (tmp_path / "weights.bin").write_bytes(b"0124")
    after = keys(settings_with(f"{dotted}={tmp_path}"))
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == changed


def test_how_a_clips_file_is_read_is_part_of_its_key(
    settings_with: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged with other pixels or another activation is not taken for the same."""
    (tmp_path / "weights.bin").write_bytes(b"0123")
    of_file, embedded = settings_with(f"labeler.path={tmp_path}"), settings_with()
    before = keys(of_file), keys(embedded)
    monkeypatch.setattr("icm_pipeline.pipeline.keys.CLIP_FILES_READ", 99)
    assert {name for name in STAGES_OF_ICM if keys(of_file)[name] != before[0][name]} == LABELLED
    assert keys(embedded) == before[1]


def test_how_a_judge_prepares_pictures_is_part_of_a_key_only_where_it_is_set(settings_with: Compose) -> None:
    for name in ("label", "evaluate"):
        read = Pipeline(settings_with(), [], NoTracker()).keys.content(name)["config"]
        assert not [dotted for dotted in read if dotted.endswith("preprocess")]


@pytest.mark.parametrize(("method", "counts"), [("uce", True), ("time", True), ("sega", False)])
def test_how_the_labeler_prepares_pictures_is_in_the_key_of_a_fit_that_counts_by_it(
    settings_with: Compose, method: str, counts: bool
) -> None:
    before, after = (
        Keys(settings_with(f"method.name={method}", *words)) for words in ([], ["labeler.preprocess=openai"])
    )
    assert "labeler.preprocess" not in before.content("fit")["config"]
    assert (before.key("fit") != after.key("fit")) == counts


def test_other_pictures_in_the_reference_are_another_evaluation(settings_with: Compose, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"0123")
    before = keys(settings_with(f"evaluate.reference={tmp_path}"))
    assert keys(settings_with(f"evaluate.reference={tmp_path}")) == before
    (tmp_path / "b.png").write_bytes(b"0123")
    after = keys(settings_with(f"evaluate.reference={tmp_path}"))
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == LATE


def test_a_reference_that_is_no_folder_is_refused_before_anything_runs(settings_with: Compose) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.reference=/nowhere is no folder"):
        keys(settings_with("evaluate.reference=/nowhere"))


def test_recording_apart_takes_the_probes_from_extract(settings_with: Compose) -> None:
    apart = settings_with("generate.record=false", "method.assignment=least_change", "method.look=auto")
    assert STAGES["probe"].needs(apart) == ("extract", "generate", "label")
    assert stages_of(apart) == tuple(name for name in STAGES if name not in ("maps", "fit", "tune", *OTHER_PARTS))


def test_recording_in_the_same_pass_leaves_extract_out(settings_with: Compose) -> None:
    assert list(stages_of(settings_with())) == ORDER


def test_every_stage_comes_after_what_it_needs(settings_with: Compose) -> None:
    for record in ("true", "false"):
        settings = settings_with(f"generate.record={record}", "method.assignment=least_change", "method.look=auto")
        order = stages_of(settings)
        for position, name in enumerate(order):
            assert set(STAGES[name].needs(settings)) <= set(order[:position])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the stages by ones that write one file; return the list of those that ran."""
    ran: list[str] = []

    def fake(module: str) -> SimpleNamespace:
        name = module.split(".")[-1]

        def run(context: StageContext) -> None:
            ran.append(name)
            parents = {parent: artifact.read_json("out.json") for parent, artifact in context.parents.items()}
            (context.folder / "out.json").write_text(f'"{name} of {sorted(parents)}"')

        return SimpleNamespace(run=run)

    monkeypatch.setattr("icm_pipeline.pipeline.stage.import_module", fake)
    return ran


@pytest.fixture
def pipeline_of(settings_with: Compose, tmp_path: Path) -> Callable[..., Pipeline]:
    def made_from(*words: str) -> Pipeline:
        words = (*words, f"paths.outputs={tmp_path}")
        return Pipeline(settings_with(*words), list(words), NoTracker())

    return made_from


def test_all_runs_every_stage_in_order(pipeline_of: Callable[..., Pipeline], made: list[str]) -> None:
    artifact = pipeline_of().run("all")
    assert made == ORDER
    assert artifact.stage == "report"


def test_all_ends_at_what_serves_no_later_stage_and_keeps_it(
    pipeline_of: Callable[..., Pipeline], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stage: Stage, settings: Settings, artifact: Artifact) -> None:
        if stage.name == "foretell":
            raise ValueError("none is good enough")

    monkeypatch.setattr(Stage, "check", refuse)
    pipeline = pipeline_of("method.assignment=least_change", "method.look=auto")
    for _ in range(2):
        with pytest.raises(ValueError, match="none is good enough"):
            pipeline.run("all")
    assert made == ["generate", "label", "probe", "foretell"]
    assert pipeline.run("foretell") == pipeline.find("foretell") is not None


def test_what_an_earlier_format_made_is_made_again_and_the_log_says_so_once(
    pipeline_of: Callable[..., Pipeline], made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of()
    folder = pipeline.keys.folder("originals")
    old = folder.with_name(folder.name.replace(pipeline.keys.key("originals"), "0" * 16))
    old.mkdir(parents=True)
    Manifest("originals", "0" * 16, format=5).write(old)
    with caplog.at_level(logging.INFO):
        pipeline.run("all")
        pipeline_of("seed=1").run("all")
    assert made == 2 * ORDER
    assert caplog.text.count("is of an earlier format, 5") == 1


def test_a_second_run_makes_nothing(pipeline_of: Callable[..., Pipeline], made: list[str]) -> None:
    first = pipeline_of().run("all")
    made.clear()
    assert pipeline_of().run("all").folder == first.folder
    assert made == []


@pytest.mark.parametrize(("word", "expected"), [("alpha=3", STEERED), ("layers.k=2", CHOSEN)])
def test_a_sweep_makes_only_what_the_swept_setting_changes(
    pipeline_of: Callable[..., Pipeline], made: list[str], word: str, expected: set[str]
) -> None:
    pipeline_of().run("all")
    made.clear()
    pipeline_of(word).run("all")
    assert made == [name for name in ORDER if name in expected]


def test_force_makes_a_stage_again(pipeline_of: Callable[..., Pipeline], made: list[str]) -> None:
    pipeline_of().run("all")
    made.clear()
    pipeline_of("force=true").run("probe")
    assert made == ["probe"]


def test_images_from_elsewhere_have_no_first_steps_to_keep(settings_with: Compose, tmp_path: Path) -> None:
    settings = settings_with("method.first_step=5", f"images={tmp_path}", "stage=evaluate")
    assert Pipeline(settings, [], NoTracker()).keys.prefix_folder() is None


def test_other_weights_in_the_folder_of_a_local_model_are_another_key(settings_with: Compose, tmp_path: Path) -> None:
    found = []
    for weights in ("one", "two"):
        (tmp_path / "open_clip_model.safetensors").write_text(weights)
        words = (f"labeler.model='local-dir:{tmp_path}'", "labeler.kind=clip")
        found.append(keys(settings_with(*words)))
    assert {name for name in STAGES_OF_ICM if found[0][name] != found[1][name]} == LABELLED - {"extract"}


def test_force_computes_the_first_steps_again(pipeline_of: Callable[..., Pipeline]) -> None:
    assert pipeline_of("method.first_step=5").keys.prefix_folder() is not None
    assert pipeline_of("method.first_step=5", "force=true").keys.prefix_folder() is None


def test_without_reuse_there_are_no_first_steps_to_keep(settings_with: Compose) -> None:
    late = "method.first_step=5"
    assert Pipeline(settings_with(late), [], NoTracker()).keys.prefix_folder() is not None
    assert Pipeline(settings_with(late, "generate.reuse_prefix=false"), [], NoTracker()).keys.prefix_folder() is None
    assert Pipeline(settings_with("method.first_step=0"), [], NoTracker()).keys.prefix_folder() is None


def test_a_share_of_one_stage_ends_without_an_artifact_until_the_last_is_made(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    for index in (2, 0):
        assert pipeline_of("shards=3", f"shard={index}").run("generate") is None
    artifact = pipeline_of("shards=3", "shard=1").run("generate")
    assert artifact is not None
    assert made == ["generate"] * 4  # three shares, and what the last one puts together
    assert [share.share for share in artifact.manifest.shares] == ["0-of-3", "1-of-3", "2-of-3"]


@pytest.mark.parametrize("words", [["shards=3"], ["shards=3", "shard=1"]])
def test_a_job_for_all_stages_makes_the_shares_that_nobody_else_makes(
    pipeline_of: Callable[..., Pipeline], made: list[str], words: list[str]
) -> None:
    artifact = pipeline_of(*words).run("all")
    assert artifact is not None
    assert artifact.stage == "report"
    counts = {name: 4 if STAGES[name].shared else 1 for name in ORDER}
    assert {name: made.count(name) for name in ORDER} == counts


def test_without_a_shard_of_its_own_a_job_makes_all_that_is_missing(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    pipeline_of("shards=3", "shard=1").run("generate")
    assert pipeline_of("shards=3").run("generate") is not None
    assert len(made) == 4


def test_a_stage_that_fails_leaves_no_artifact_and_runs_again(
    pipeline_of: Callable[..., Pipeline], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(context: StageContext) -> None:
        raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr("icm_pipeline.pipeline.stage.import_module", lambda module: SimpleNamespace(run=failing))
        with pytest.raises(RuntimeError, match="stop"):
            pipeline_of().run("generate")
    assert pipeline_of().find("generate") is None
    pipeline_of().run("generate")
    assert made == ["generate"]


def test_a_missing_parent_is_refused_with_the_exact_command_that_makes_it(
    pipeline_of: Callable[..., Pipeline], tmp_path: Path
) -> None:
    words = ["alpha=2", "attribute.options.man=[a man, a gentleman]"]
    with pytest.raises(ArtifactError) as caught:
        pipeline_of(*words, "stage=probe", "force=true").run("probe")
    command = str(caught.value).split("begin with: ")[1]
    assert shlex.split(command) == [
        "python", "-m", "icm_pipeline", "stage=generate", *words, f"paths.outputs={tmp_path}",
    ]  # fmt: skip
    assert "stage=probe needs the artifact of stage=generate" in str(caught.value)


def test_the_command_named_has_the_options_of_hydra_before_its_other_words(settings_with: Compose) -> None:
    pipeline = Pipeline(settings_with(), ["--config-dir=/mine", "attribute=hat", "stage=probe"], NoTracker())
    assert pipeline.command("generate") == "python -m icm_pipeline --config-dir=/mine stage=generate attribute=hat"


def test_a_manifest_tells_what_changes_images_by_rounding(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    pipeline = pipeline_of("compute.compile=true")
    pipeline.run("all")
    told = {name: artifact.manifest.rounding for name in ORDER if (artifact := pipeline.find(name))}
    assert told["steer"]["compute.compile"] is True
    assert told["label"] == {}


@pytest.mark.parametrize(("look", "runs"), [("null", False), ("3", True)])
def test_images_are_assigned_by_the_model_only_where_it_reads_its_first_steps(
    settings_with: Compose, look: str, runs: bool
) -> None:
    settings = settings_with("method.assignment=least_change", f"method.look={look}")
    assert STAGES["assign"].runs_model(settings) == runs


def test_the_command_named_is_one_that_runs(pipeline_of: Callable[..., Pipeline], made: list[str]) -> None:
    with pytest.raises(ArtifactError, match="stage=steer needs the artifact of stage=probe") as caught:
        pipeline_of().run("steer")
    assert "stage=generate" in str(caught.value).split("begin with: ")[1]
    pipeline_of().run("generate")
    with pytest.raises(ArtifactError) as caught:
        pipeline_of().run("steer")
    assert "stage=label" in str(caught.value).split("begin with: ")[1]


def test_the_missing_parent_that_comes_last_is_named_when_the_others_are_there(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    pipeline_of().run("generate")
    with pytest.raises(ArtifactError, match="needs the artifact of stage=label"):
        pipeline_of().run("probe")


def test_a_damaged_artifact_is_refused_and_the_file_named(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    artifact = pipeline_of().run("generate")
    (artifact.folder / "out.json").write_text("")
    with pytest.raises(ArtifactError, match=r"out\.json has 0 bytes"):
        pipeline_of().run("generate")


def test_a_parent_edited_without_a_change_of_size_is_refused_and_the_file_named(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    artifact = pipeline_of().run("generate")
    path = artifact.folder / "out.json"
    path.write_text(path.read_text().replace("of", "fo"))
    with pytest.raises(ArtifactError, match=r"out\.json was changed"):
        pipeline_of().run("label")


def test_a_finished_artifact_that_was_edited_is_refused(pipeline_of: Callable[..., Pipeline], made: list[str]) -> None:
    artifact = pipeline_of().run("all")
    path = artifact.folder / "out.json"
    path.write_text(path.read_text().replace("of", "fo"))
    with pytest.raises(ArtifactError, match=r"out\.json was changed"):
        pipeline_of().run("all")


def test_an_artifact_moved_to_another_keys_place_is_refused(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    artifact = pipeline_of().run("generate")
    other = pipeline_of("seed=1")
    artifact.folder.rename(other.keys.folder("generate"))
    with pytest.raises(ArtifactError, match="another key"):
        other.run("generate")


def test_the_order_of_the_options_is_part_of_the_key(settings_with: Compose) -> None:
    settings = settings_with()
    before = keys(settings)
    settings.attribute.options = dict(reversed(settings.attribute.options.items()))
    after = keys(settings)
    assert {name for name in STAGES_OF_ICM if before[name] != after[name]} == LABELLED


def test_a_manifest_tells_the_stage_its_parents_and_its_settings(
    pipeline_of: Callable[..., Pipeline], made: list[str]
) -> None:
    pipeline = pipeline_of("alpha=3")
    pipeline.run("all")
    artifact = pipeline.find("steer")
    assert artifact is not None
    assert artifact.manifest.parents == {name: pipeline.keys.key(name) for name in ("probe", "select")}
    assert artifact.manifest.config["alpha"] == 3
    assert artifact.key == pipeline.keys.key("steer")
    assert artifact.folder.name == f"tiny-gender-{artifact.key}"
