"""Is it the selected layers and directions, or would any push of that length do?

The run's own steering is held against the same push, of the same images, at random sets of as many layers of the kind,
at the worst of them, and along random directions at the selected ones. What each layer does alone is held against the
accuracy of its probes.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.pushed import Trials, as_fd_counts, by_arm, shown_of, stacked, trials_of, wanted_of
from icm_pipeline.metrics.crossed import discrepancies, drawn_again, estimated, rank_correlation, share_of
from icm_pipeline.metrics.ranking import p_of_place
from icm_pipeline.metrics.resampling import Estimate
from icm_pipeline.results.effects import UNSTEERED, Pushes
from icm_pipeline.results.scores import Scores, Selection
from icm_pipeline.results.verdicts import Finding, Found, Table

LEAST = 0.1  # of the images: what fewer obey more than after any other push is not worth ranking layers for
LEAST_FD = 0.05  # the floor of FD with options drawn by batches is twice that
LEAST_BEATEN = 0.9  # of the sets: a ranking that is not among the best tenth could be replaced by ten guesses
LEAST_RHO = 0.5  # less than a quarter of the ranks' variance is shared below that
HALF = "About half of all sets do more than the average one"
SETS = ["arm", "sort", "layers", "obeyed", "fall of FD", "1 - CLIP-I"]
LAYERS = ["layer", "kind", "accuracy", "effect", "low", "high", "selected"]
Resampled = Callable[[Floats], tuple[Floats, Floats]]  # from weights of images [R, n] to figures [R] and [arms, R]


def found(inputs: AuditInputs) -> Found:
    trials = trials_of(inputs)
    findings, left_out = list[Finding](), dict[str, str]()
    sets, worst = trials.named("random_layers"), trials.named("worst_layers")
    compared = _Compared(inputs, trials)
    if len(sets) > 1:
        findings += [compared.random_layers(sets), compared.random_layers_fd(sets), compared.rank(sets)]
        findings.append(compared.local(sets))
    else:
        why = "There are not two other sets of as many layers of the kind."
        left_out = {f"causality.{name}": why for name in ("random_layers", "random_layers_fd", "rank", "local")}
    if worst:
        findings.append(compared.worst(worst))
    else:
        left_out["causality.worst_layers"] = "The worst layers of the kind are the selected ones."
    findings.append(compared.random_directions(trials.named("random_direction")))
    rows, accuracy, effects = _layers(inputs)
    kinds = np.array([row[1] for row in rows])
    kind = Selection.read(inputs.artifacts["select"]).kind
    everywhere = np.ones(len(kinds), bool)
    of_kind = everywhere if kind == "mixed" else kinds == kind
    for name, of, inside in (
        ("accuracy", f"{KIND_NAMES[kind]} layers", of_kind), ("accuracy_all_kinds", "layers of all kinds", everywhere),
    ):  # fmt: skip
        try:
            findings.append(_correlated(name, of, accuracy[inside], effects[inside]))
        except ValueError as error:
            left_out[f"causality.{name}"] = str(error)
    return Found(findings, {"sets": compared.table(), "layers": Table(LAYERS, rows)}, left_out)


class _Compared:
    """The run's own steering beside other arms, all of the same resampled images."""

    def __init__(self, inputs: AuditInputs, trials: Trials) -> None:
        self._trials, self._rng = trials, inputs.rng("causality")
        self._num, self._resamples = len(trials.wanted), inputs.size.num_resamples
        self._weights = drawn_again(trials.strata, self._resamples, self._rng)
        self._own = np.ones((1, self._num))
        self._settings = inputs.settings

    def random_layers(self, sets: list[str]) -> Finding:
        ours, theirs = self._obeyed(["selected"]), self._obeyed(sets)
        gain = self._difference(lambda weights: (share_of(ours[0], weights), share_of(theirs, weights)), len(sets))
        each = theirs.mean(1)
        reached = int((each >= ours.mean()).sum())
        control = (
            f"{len(sets)} random sets: {each.mean():.2f} of images on average, {each.min():.2f} to {each.max():.2f}; "
            f"these layers {ours.mean():.2f}, reached by {reached}. {HALF}"
        )
        says = "More images obey a push at these selected layers than at the average set of layers of the kind."
        return self._finding("random_layers", says, gain, "share of images", LEAST, control, len(sets))

    def random_layers_fd(self, sets: list[str]) -> Finding:
        ours, theirs = self._fd(["selected"]), self._fd(sets)
        gain = self._difference(lambda weights: (-ours(weights)[0], -theirs(weights)), len(sets))
        fds = theirs(self._own)[:, 0]
        before = discrepancies(
            self._counted(self._trials.before), self._trials.prompts, self._trials.assigned, self._own
        )
        control = (
            f"FD {before[0]:.2f} unsteered, {fds.mean():.2f} at {len(sets)} random sets ({fds.min():.2f} to "
            f"{fds.max():.2f}), {ours(self._own)[0, 0]:.2f} at these. {HALF}"
        )
        says = "FD falls further by a push at these selected layers than at the average set of layers of the kind."
        return self._finding("random_layers_fd", says, gain, "FD", LEAST_FD, control, len(sets))

    def rank(self, sets: list[str]) -> Finding:
        """Ties count as sets that are not beaten. A random ranking's set has every place with the same probability."""
        ours, theirs = self._obeyed(["selected"]).mean(), self._obeyed(sets).mean(1)
        beaten = int((theirs < ours).sum())
        p = p_of_place(beaten, len(sets))
        limits = stats.binomtest(beaten, len(sets)).proportion_ci(0.95)
        return Finding(
            "causality.rank", "The ranking's layers are among the best tenth of all sets of as many of the kind.",
            beaten / len(sets), (float(limits.low), float(limits.high)), "share of sets beaten", 0.5, LEAST_BEATEN,
            p, f"{beaten} of {len(sets)} random sets are obeyed less; a random ranking beats as many or more with "
            f"probability {p:.3f}", len(sets), "sets",
        )  # fmt: skip

    def local(self, sets: list[str]) -> Finding:
        """What is gained beyond what random sets would gain by changing the picture as much."""
        trials = self._trials
        before, ours, theirs = trials.obeyed_unsteered.astype(float), self._obeyed(["selected"])[0], self._obeyed(sets)
        moved, moved_there = trials.moved["selected"], stacked([trials.moved[name] for name in sets])

        def beyond(weights: Floats, drawn: Floats) -> Floats:
            gains, drifts = share_of(theirs - before, weights), share_of(moved_there, weights)  # [S, R]
            rate = (drawn * gains.T).sum(1) / (drawn * drifts.T).sum(1)
            result: Floats = share_of(ours - before, weights) - rate * share_of(moved, weights)
            return result

        value = float(beyond(self._own, np.ones((1, len(sets))))[0])
        resampled = beyond(self._weights, self._sets(len(sets)))
        gain = estimated(value, resampled, min(self._num, len(sets)), 1 / self._num)
        control = (
            f"per unit of 1 - CLIP-I {(ours - before).mean() / moved.mean():.1f} obey at the selected layers, "
            f"{(theirs - before).mean() / moved_there.mean():.1f} at random sets; 1 - CLIP-I {moved.mean():.3f} and "
            f"{moved_there.mean():.3f}. {HALF}"
        )
        says = "These selected layers turn more images than the average set would for the same change of the picture."
        return self._finding("local", says, gain, "share of images", LEAST, control, len(sets))

    def worst(self, arms: list[str]) -> Finding:
        ours, theirs = self._obeyed(["selected"])[0], self._obeyed(arms)[0]
        error = share_of(ours - theirs, self._weights)
        gain = estimated(float((ours - theirs).mean()), error, self._num, 1 / self._num)
        says = "More images obey a push at these selected layers than at those that the ranking calls the worst."
        worst = f"the worst {len(self._trials.arms.arms[arms[0]].layers)}: {theirs.mean():.2f} of images"
        control = f"{worst}. A random ranking's best do more than its worst every other time"
        return self._finding("worst_layers", says, gain, "share of images", LEAST, control)

    def random_directions(self, arms: list[str]) -> Finding:
        ours, theirs = self._obeyed(["selected"]), self._obeyed(arms)
        gain = self._difference(lambda weights: (share_of(ours[0], weights), share_of(theirs, weights)), len(arms))
        each = theirs.mean(1)
        control = f"{len(arms)} random directions: {each.mean():.2f} of images, {each.min():.2f} to {each.max():.2f}"
        says = "More images obey a push along the probes' directions than along random ones at the same layers."
        return self._finding(
            "random_directions", says, gain, "share of images", LEAST, control, len(arms), "directions"
        )

    def table(self) -> Table:
        """Return a row an arm, the unsteered images first."""
        trials = self._trials
        fall = self._fd_of(trials.before)
        unsteered = float(trials.obeyed_unsteered.mean())
        rows: list[list[str | float]] = [["unsteered", "unsteered", "", unsteered, 0.0, 0.0]]
        for name, shown in trials.after.items():
            arm = trials.arms.arms.get(name)
            sort, layers = (arm.sort, " ".join(arm.layers)) if arm else ("selected", "")
            moved, obeyed = float(np.nanmean(trials.moved[name])), float(trials.obeyed(name).mean())
            rows.append([name, sort, layers, obeyed, fall - self._fd_of(shown), moved])
        return Table(SETS, rows)

    def _obeyed(self, arms: list[str]) -> Floats:
        return stacked([self._trials.obeyed(name) for name in arms])

    def _counted(self, shown: Floats) -> Floats:
        return as_fd_counts(self._settings, shown)

    def _fd_of(self, shown: Floats) -> float:
        return float(discrepancies(self._counted(shown), self._trials.prompts, self._trials.assigned, self._own)[0])

    def _fd(self, arms: list[str]) -> Callable[[Floats], Floats]:
        shown = self._counted(stacked([self._trials.after[name] for name in arms]))
        return lambda weights: discrepancies(shown, self._trials.prompts, self._trials.assigned, weights)

    def _sets(self, count: int) -> Floats:
        return drawn_again(np.zeros(count, np.int64), self._resamples, self._rng)

    def _difference(self, both: Resampled, count: int) -> Estimate:
        """Return a figure of the selected layers less the mean of other arms', images and arms drawn again."""
        ours, theirs = both(self._own)
        again, others = both(self._weights)
        resampled = again - (self._sets(count) * others.T).mean(1)
        return estimated(float(ours[0] - theirs.mean()), resampled, min(self._num, count), 1 / self._num)

    def _finding(
        self, name: str, says: str, gain: Estimate, unit: str, least: float, control: str, count: int = 0,
        what: str = "sets",
    ) -> Finding:  # fmt: skip
        of = f"images and {count} {what}" if count else "images"
        p = gain.p_above(0.0)
        return Finding(
            f"causality.{name}", says, gain.value, gain.interval_95, unit, 0.0, least, p, control, self._num, of
        )


def _layers(inputs: AuditInputs) -> tuple[list[list[str | float]], Floats, Floats]:
    """Return a row a layer, and of each its probes' accuracy [L] and the effect of pushing it alone [L]."""
    causal, scores = inputs.artifacts["causal"], Scores.read(inputs.artifacts["probe"]).layers
    rows = by_arm(causal)
    seen = shown_of(inputs, rows)
    selected, table = Selection.read(inputs.artifacts["select"]).layers, list[list[str | float]]()
    for arm, about in Pushes.read(causal).arms.items():
        if arm == UNSTEERED:
            continue
        wanted = wanted_of(inputs.settings, rows[arm])
        change = (seen[arm] - seen[UNSTEERED])[np.arange(len(wanted)), wanted]
        change = change[np.isfinite(change)]
        effect = Estimate(float(change.mean()), float(stats.sem(change)), len(change))
        (layer,) = about.layers
        known, is_selected = scores[layer], float(layer in selected)
        table.append([layer, known.kind, known.score, effect.value, *effect.interval_95, is_selected])
    return table, np.array([row[2] for row in table], float), np.array([row[3] for row in table], float)


def _correlated(name: str, of: str, accuracy: Floats, effects: Floats) -> Finding:
    rho, fisher = rank_correlation(accuracy, effects)
    low, high = (float(np.tanh(limit)) for limit in fisher.interval_95)
    p = float(stats.spearmanr(accuracy, effects, alternative="greater").pvalue)
    says = f"Of {of}, those whose probes are more accurate do more when each is pushed alone."
    place = int((effects > effects[accuracy.argmax()]).sum()) + 1
    control = (
        f"an accuracy that says nothing: rho 0; the most accurate layer has effect number {place} of {len(effects)}"
    )
    return Finding(
        f"causality.{name}",
        says,
        rho,
        (low, high),
        "Spearman's rho",
        0.0,
        LEAST_RHO,
        p,
        control,
        len(effects),
        "layers",
    )
