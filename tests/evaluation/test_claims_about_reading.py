"""An audit of planted activations: what is there is supported, what is not is refuted, in nine of ten repetitions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from icm_pipeline.arrays import Floats32
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims import implicit, kinds, readings, separability, stability
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.fits import num_fits
from icm_pipeline.evaluation.claims.readings import Readings, share_right
from icm_pipeline.generation.jobs import audited_steps, probe_jobs
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.localization.many_probes import Problem, Solving
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.repeated import repeated_folds, standardised, told_right
from icm_pipeline.metrics.resampling import Estimate, clustered
from icm_pipeline.results.verdicts import Found, verdict_of

NUM, WIDTH, REPETITIONS = 200, 6, 10
LAYERS = [f"s.{number}" for number in range(6)]
WORDS = (
    "audit.size=quick", "audit.sizes.quick.num_splits=5", "audit.sizes.quick.num_shuffles=20", "probe.C=0.1",
    "audit.sizes.quick.num_resamples=200", "layers.k=2", "layers.kind=self_attention", "seed=0",
)  # fmt: skip


class Planted:
    """Activations in which a layer tells labels by so many standard deviations."""

    def __init__(self, labels: np.ndarray, signals: dict[str, float], rng: np.random.Generator) -> None:
        self._values = {}
        for layer, signal in signals.items():
            noise = rng.standard_normal((1, len(labels), WIDTH))
            noise[..., 0] += signal * labels
            self._values[layer] = torch.from_numpy(noise).float()

    def rows(self, layer: str) -> torch.Tensor:
        return self._values[layer]

    def width(self, layer: str) -> int:
        return WIDTH


def kind_of(layer: str) -> str:
    return {"s": "self_attention", "c": "cross_attention", "f": "feed_forward"}[layer[0]]


def planted(seed: int, signals: dict[str, float], num: int = NUM) -> Readings:
    rng = np.random.default_rng([seed, num])
    labels, prompts = rng.integers(2, size=num), np.arange(num) // 5
    return Readings(labels, prompts, {layer: kind_of(layer) for layer in signals}, [Planted(labels, signals, rng)])


@pytest.fixture
def audit(
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AuditInputs]]:
    """Give a function that audits planted activations, with a seed of its own."""

    def inputs(seed: int, found: Readings) -> AuditInputs:
        for module in (readings, implicit):
            monkeypatch.setattr(module, "probe_readings", lambda inputs: found)
        return AuditInputs(settings_with(*WORDS[:-1], f"seed={seed}"), {}, None)  # type: ignore[arg-type]

    yield inputs
    readings.of_new_prompts.cache_clear()


def verdicts(found: Found) -> dict[str, str]:
    return {finding.claim: verdict_of(finding, finding.p) for finding in found.findings}


def share(found: list[dict[str, str]], claim: str, verdict: str) -> float:
    return float(np.mean([each[claim] == verdict for each in found]))


def test_what_is_told_is_separable_and_selective_and_what_is_not_is_refuted(audit: Callable[..., AuditInputs]) -> None:
    there, nothing = {"s.0": 2.0, "c.0": 0.0}, {"s.0": 0.0, "c.0": 0.0}
    real = [verdicts(separability.found(audit(seed, planted(seed, there)))) for seed in range(REPETITIONS)]
    null = [verdicts(separability.found(audit(seed, planted(seed, nothing, num=500)))) for seed in range(REPETITIONS)]
    for claim in ("separability.ungrouped", "separability.grouped", "separability.selective"):
        assert share(real, claim, "supported") >= 0.9
        assert share(null, claim, "supported") <= 0.1
    assert share(null, "separability.grouped", "refuted") >= 0.9


def test_what_is_only_told_of_prompts_seen_before_is_told_of_no_new_prompt(audit: Callable[..., AuditInputs]) -> None:
    """Each prompt has activations and an option of its own: probes learn prompts by heart."""
    found = planted(0, {"s.0": 0.0})
    labels, rng = found.prompts % 2, np.random.default_rng(0)
    rows = torch.from_numpy(3 * rng.standard_normal((1, 40, 30))[:, found.prompts]).float()
    source = Planted(labels, {}, rng)
    source._values["s.0"] = rows + torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    learnt = verdicts(separability.found(audit(0, replace(found, labels=labels, sources=[source]))))
    assert learnt["separability.ungrouped"] == "supported"
    assert learnt["separability.grouped"] != "supported"
    assert learnt["separability.selective"] != "supported"


def test_luck_reaches_further_where_images_of_a_prompt_are_alike(audit: Callable[..., AuditInputs]) -> None:
    found = planted(0, {"s.0": 0.0})
    labels, rng = found.prompts % 2, np.random.default_rng(0)
    source = Planted(labels, {}, rng)
    source._values["s.0"] = torch.from_numpy(rng.standard_normal((1, 40, WIDTH))[:, found.prompts]).float()
    alike = replace(found, labels=labels, sources=[source])
    inputs = audit(0, alike)
    images, prompts = (separability._null_maxima(inputs, alike, each) for each in (alike.images, alike.prompts))
    assert prompts.std() > 1.5 * images.std()


def test_a_kind_that_tells_more_leads_and_one_that_tells_less_or_as_much_does_not(
    audit: Callable[..., AuditInputs],
) -> None:
    signals = {"s.0": 2.0, "s.1": 1.0, "c.0": 0.5, "c.1": 0.0, "f.0": 5.0, "f.1": 4.0}
    found = [verdicts(kinds.found(audit(seed, planted(seed, signals)))) for seed in range(REPETITIONS)]
    for which in ("mean", "best"):
        assert share(found, f"kinds.{which}_over_cross_attention", "supported") >= 0.9
        assert share(found, f"kinds.{which}_over_feed_forward", "refuted") >= 0.9


def test_kinds_that_tell_the_same_are_seldom_told_apart(audit: Callable[..., AuditInputs]) -> None:
    signals = {"s.0": 1.0, "s.1": 1.0, "c.0": 1.0, "c.1": 1.0}
    found = [verdicts(kinds.found(audit(seed, planted(seed, signals)))) for seed in range(2 * REPETITIONS)]
    assert share(found, "kinds.mean_over_cross_attention", "supported") <= 0.1


def test_what_a_model_has_no_layers_for_is_left_out_with_a_word(audit: Callable[..., AuditInputs]) -> None:
    found = kinds.found(audit(0, planted(0, {"s.0": 1.0, "f.0": 1.0})))
    assert {*found.left_out} == {"kinds.mean_over_cross_attention", "kinds.best_over_cross_attention"}
    assert "no cross-attention layers" in found.left_out["kinds.best_over_cross_attention"]
    assert {*verdicts(found)} == {"kinds.mean_over_feed_forward", "kinds.best_over_feed_forward"}


@pytest.mark.parametrize(
    ("of_control", "verdict"), [({"s.0": 0.3, "c.0": 2.0}, "supported"), ({"s.0": 4.0, "c.0": 0.0}, "refuted")]
)
def test_a_lead_for_the_choice_is_held_against_that_for_what_is_named(
    audit: Callable[..., AuditInputs], monkeypatch: pytest.MonkeyPatch, of_control: dict[str, float], verdict: str
) -> None:
    """Where self-attention leads for both, it is no sign of the choice."""
    found = []
    for seed in range(REPETITIONS):
        control = planted(100 + seed, of_control, num=160)
        monkeypatch.setattr(implicit, "_controls", lambda *parts, control=control: {"option_named": control})
        found.append(verdicts(implicit.found(audit(seed, planted(seed, {"s.0": 1.0, "c.0": 0.5})))))
    assert share(found, "implicit.more_than_option_named", verdict) >= 0.9


def test_controls_that_cannot_be_asked_are_left_out_with_a_word(
    audit: Callable[..., AuditInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implicit, "_controls", lambda *parts: {})
    named = implicit.found(audit(0, planted(0, {"s.0": 1.0, "c.0": 1.0}))).left_out
    assert all("attribute.named" in why for why in named.values())
    crossless = implicit.found(audit(0, planted(0, {"s.0": 1.0}))).left_out
    claims = {"implicit.more_than_option_named", "implicit.more_than_occupation", "implicit.more_than_wording"}
    assert {*named} == {*crossless} == {*claims, "implicit.mechanisms_differ"}
    assert "cross-attention" in crossless["implicit.more_than_wording"]


def test_a_ranking_that_is_there_is_stable_and_one_of_equal_layers_is_not(
    audit: Callable[..., AuditInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "PARTS", ())
    apart = dict(zip(LAYERS, (0.0, 0.5, 1.0, 1.5, 3.0, 4.0), strict=True))
    real = [verdicts(stability.found(audit(seed, planted(seed, apart)))) for seed in range(REPETITIONS)]
    null = [
        verdicts(stability.found(audit(seed, planted(seed, dict.fromkeys(LAYERS, 1.0))))) for seed in range(REPETITIONS)
    ]
    for claim in ("stability.top_k", "stability.ranking"):
        assert share(real, claim, "supported") >= 0.9
        assert share(null, claim, "supported") <= 0.1


def test_more_images_choose_more_alike(audit: Callable[..., AuditInputs]) -> None:
    signals = dict(zip(LAYERS, (0.0, 0.3, 0.6, 0.9, 1.2, 1.5), strict=True))
    found = stability.found(audit(0, planted(0, signals, num=480)))
    curve = found.tables["curve"]
    taus = [row[curve.columns.index("tau")] for row in curve.rows]
    assert [row[0] for row in curve.rows] == [60, 120, 240]
    assert taus[0] < taus[2]
    often = np.array([row[2:] for row in found.tables["chosen"].rows])
    assert often.sum(0) == pytest.approx([2, 2, 2])
    assert (often[-1] > 0.8).all()


def test_a_ranking_of_no_more_layers_than_are_chosen_is_left_out(audit: Callable[..., AuditInputs]) -> None:
    found = stability.found(audit(0, planted(0, {"s.0": 1.0, "s.1": 1.0})))
    assert not found.findings
    assert {*found.left_out} == {"stability.top_k", "stability.ranking"}


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_intervals_cover_how_well_such_probes_tell_images_of_other_prompts(signal: float) -> None:
    """The estimand: the accuracy, on all images there could be, of probes fitted to so many."""
    how, rng, num = Solving(0.1, 100, "cpu", "batched"), np.random.default_rng(0), 150
    estimates, truths = list[Estimate](), list[float]()
    for seed in range(200):
        large = planted(seed, {"s.0": signal}, num=num + 400)
        labels, rows = large.labels, standardised(large.rows("s.0"))
        splits = repeated_folds(labels, large.prompts, 5, 0.2, rng, np.arange(num))
        right = told_right(rows, [Problem(labels, split) for split in splits], how)
        values = share_right(right)[None, :num]
        estimates += clustered(values, labels[:num], large.prompts[:num], 200, rng)
        others = replace(splits[0], test=np.arange(num, num + 400))
        truths.append(float(np.nanmean(told_right(rows, [Problem(labels, others)], how))))
    truth = float(np.mean(truths))
    covered = np.mean([low <= truth <= high for low, high in (each.interval_95 for each in estimates)])
    assert 0.9 <= covered <= 0.995


def rare(seed: int) -> Readings:
    """Images of which an option is shown by eight of 240, in 40 prompts."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1, 2, 3], [100, 80, 52, 8]))
    signals = dict.fromkeys(LAYERS[:3], 1.0) | {"c.0": 1.0}
    kinds = {layer: kind_of(layer) for layer in signals}
    return Readings(labels, np.arange(240) // 6, kinds, [Planted(labels, signals, rng)])


def test_parts_with_too_few_images_of_a_rare_option_leave_the_curve_and_not_the_claims(
    audit: Callable[..., AuditInputs],
) -> None:
    found = stability.found(audit(0, rare(0)))
    assert {*verdicts(found)} == {"stability.top_k", "stability.ranking"}
    assert 30 not in [row[0] for row in found.tables["curve"].rows]


def test_halves_that_cannot_be_split_leave_the_claims_out(audit: Callable[..., AuditInputs]) -> None:
    few = rare(0)
    labels = np.where(few.labels == 3, 0, few.labels)
    labels[[0, 239]] = 3  # one image in each half
    found = stability.found(audit(0, replace(few, labels=labels)))
    assert not found.findings
    assert "cannot be dealt" in found.left_out["stability.top_k"]


def test_draws_of_few_images_keep_every_option_in_its_share() -> None:
    labels = rare(0).labels
    for seed in range(50):
        rows = implicit.drawn_evenly(labels, 60, np.random.default_rng(seed))
        assert len(np.unique(rows)) == 60
        assert np.bincount(labels[rows]) == pytest.approx([25, 20, 13, 2], abs=1)


@pytest.mark.parametrize("num", [100, 400])
def test_both_sides_of_a_lead_have_equally_many_images(
    audit: Callable[..., AuditInputs], monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    signals = {"s.0": 1.0, "c.0": 1.0}
    monkeypatch.setattr(implicit, "_controls", lambda *parts: {"option_named": planted(1, signals, num=num)})
    found = implicit.found(audit(0, planted(0, signals)))
    assert {row[-1] for row in found.tables["leads"].rows} == {min(num, NUM)}


def test_a_control_that_cannot_be_split_is_left_out_with_the_reason(
    audit: Callable[..., AuditInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = {"s.0": 1.0, "c.0": 1.0}
    control = planted(1, signals)
    monkeypatch.setattr(implicit, "_controls", lambda *parts: {"wording": replace(control, labels=control.prompts)})
    found = implicit.found(audit(0, planted(0, signals)))
    assert "cannot be dealt" in found.left_out["implicit.more_than_wording"]


@pytest.mark.parametrize(
    ("words", "subjects"), [((), "trial_subjects"), (("attribute.trial_subjects=[]",), "probe_subjects")]
)
def test_occupations_are_those_of_trials_and_where_none_are_given_those_of_probes(
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], subjects: str
) -> None:
    settings = settings_with(*WORDS, *words)
    monkeypatch.setattr(implicit, "_of_named", lambda inputs, named, rows, labels: [named[row].subject for row in rows])
    images = np.arange(len(settings.attribute.probe_templates) * len(settings.attribute.probe_subjects))
    found = Readings(images % 2, images, {}, [])
    inputs = AuditInputs(settings, {}, None)  # type: ignore[arg-type]
    told = implicit._controls(inputs, found, named_prompts(settings.attribute))["occupation"]
    assert {*told} == {*getattr(settings.attribute, subjects)}  # type: ignore[misc]


@pytest.mark.parametrize("claims", [["separability"], ["kinds", "stability"], ["stability", "implicit"]])
def test_a_plan_says_how_many_probes_an_audit_fits(
    claims: list[str],
    audit: Callable[..., AuditInputs],
    settings_with: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_with(*WORDS, f"audit.claims=[{','.join(claims)}]")
    settings = replace(settings, attribute=replace(settings.attribute, named={}))
    steps, fitted = len(audited_steps(settings)), list[int]()

    def counted(pooled: Pooled, problems: Sequence[Problem], how: Solving) -> Floats32:
        fitted.append(len(problems) * steps)
        right: Floats32 = told_right(pooled, problems, how)
        return right

    for module in (readings, separability):
        monkeypatch.setattr(module, "told_right", counted)
    signals = {**dict.fromkeys(LAYERS, 1.0), "c.0": 0.5, "f.0": 0.5}
    found = planted(0, signals, len(probe_jobs(settings)))
    monkeypatch.setattr(implicit, "_controls", lambda *parts: {"wording": replace(found, labels=found.prompts % 2)})
    inputs = replace(audit(0, found), settings=settings)
    for group in claims:
        import_module(f"icm_pipeline.evaluation.claims.{group}").found(inputs)
    widths = {"self_attention": [[WIDTH, len(LAYERS)]], "cross_attention": [[WIDTH, 1]], "feed_forward": [[WIDTH, 1]]}
    assert num_fits(settings, OutlineConfig(widths, 64, 4, 8, 1, 1.0)) == sum(fitted)
