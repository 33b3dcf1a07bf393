"""Is it the selected layers and directions, or would any push of that length do?

The run's own steering is held against the same push, of the same images, at random sets of as many layers of the kind,
at the worst of them, and along random directions at the selected ones. Each has other images, and each image is held
against itself. What each layer does alone is held against the accuracy of its probes.
"""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.evaluation.claims.base import LEAST_FALL, AuditInputs
from icm_pipeline.evaluation.claims.pushed import Trials, as_fd_counts, by_arm, shown_of, stacked, trials_of, wanted_of
from icm_pipeline.metrics.arms import ArmsMean, arms_mean, discrepancy_parts, place_among, post_stratified
from icm_pipeline.metrics.redrawn import rank_correlation
from icm_pipeline.metrics.resampling import Estimate
from icm_pipeline.results.effects import UNSTEERED, Pushes
from icm_pipeline.results.scores import Scores, Selection
from icm_pipeline.results.verdicts import Finding, Found, Table

LEAST = 0.1  # of the images: what fewer obey more than after any other push is not worth ranking layers for
LEAST_PLACE = 0.9  # of the sets: a ranking that is not among the best tenth could be replaced by ten guesses
DRAWS = 20_000  # of what the sets could be, behind the interval of a place
LEAST_MOVED = 1e-6  # of 1 - CLIP-I: less than that is what embeddings are rounded by
LEAST_RHO = 0.5  # less than a quarter of the ranks' variance is shared below that
HALF = "About half of all sets do more than the average one"
SETS = ["arm", "sort", "layers", "obeyed", "fall of FD", "1 - CLIP-I"]
LAYERS = ["layer", "kind", "accuracy", "effect", "low", "high", "selected"]


def found(inputs: AuditInputs) -> Found:
    trials = trials_of(inputs)
    findings, left_out = list[Finding](), dict[str, str]()
    sets, worst = trials.named("random_layers"), trials.named("worst_layers")
    compared = _Compared(inputs, trials)
    if len(sets) > 1:
        for ask in (compared.random_layers, compared.random_layers_fd, compared.rank, compared.local):
            try:
                findings.append(ask(sets))
            except ValueError as error:
                left_out[f"causality.{ask.__name__}"] = str(error)
    else:
        why = "There are not two other sets of as many layers of the kind."
        left_out = {f"causality.{name}": why for name in ("random_layers", "random_layers_fd", "rank", "local")}
    if worst:
        findings.append(compared.worst(worst))
    else:
        left_out["causality.worst_layers"] = "The worst layers of the kind are the selected ones."
    findings.append(compared.random_directions(trials.named("random_direction")))
    rows, accuracy, effects = _layers(inputs)
    kinds = np.array([row[1] for row in rows], str)
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
    """The run's own steering beside other arms, each on the images that this arm has."""

    def __init__(self, inputs: AuditInputs, trials: Trials) -> None:
        self._trials, self._settings, self._rng = trials, inputs.settings, inputs.rng("causality")
        self._ours, self._before = trials.obeyed("selected"), trials.obeyed_unsteered

    def random_layers(self, sets: list[str]) -> Finding:
        lead, each = self._lead(sets), np.nanmean(self._obeyed(sets), axis=1)
        control = (
            f"{len(sets)} random sets: {each.mean():.2f} of images on average, {each.min():.2f} to {each.max():.2f}; "
            f"{each.mean() + lead.value:.2f} at these layers. {HALF}"
        )
        says = "More images obey a push at these selected layers than at the average set of layers of the kind."
        return self._finding("random_layers", says, lead, "share of images", LEAST, control, "sets")

    def random_layers_fd(self, sets: list[str]) -> Finding:
        trials = self._trials
        theirs, ours = (stacked([self._fd(trials.after[of or name], name) for name in sets]) for of in ("", "selected"))
        seen = np.isfinite(theirs - ours).any(1)
        if not seen.any():
            raise ValueError("The judge saw no image both at a random set of layers and at the selected ones.")
        fall, fds = arms_mean(theirs - ours, trials.strata), np.nanmean(theirs[seen], axis=1)
        before = np.mean([_mean_of(self._fd(trials.before, name)) for name in np.array(sets)[seen]])
        of = f"{len(sets)} random sets" if seen.all() else f"{len(fds)} of {len(sets)} random sets, the others not seen"
        control = (
            f"FD {before:.2f} unsteered, {fds.mean():.2f} at {of} ({fds.min():.2f} to {fds.max():.2f}), "
            f"{fds.mean() - fall.value:.2f} at these. {HALF}"
        )
        says = "FD falls further by a push at these selected layers than at the average set of layers of the kind."
        return self._finding("random_layers_fd", says, fall, "FD", LEAST_FALL, control, "sets")

    def rank(self, sets: list[str]) -> Finding:
        """A ranking that is worth nothing gives every place with the same probability."""
        lead, apart = self._lead(sets), self._mean(self._obeyed(sets))
        place = place_among(lead, apart, 0.5, DRAWS, self._rng)
        control = (
            f"{int((lead.arms > 0).sum())} of {len(sets)} random sets are obeyed less; they differ by "
            f"{apart.deviation:.3f} beyond their images; a random ranking does as well with probability "
            f"{1 - place.value:.3f}"
        )
        return Finding(
            "causality.rank", "The ranking's layers are among the best tenth of all sets of as many of the kind.",
            place.value, place.interval_95, "share of sets", 0.5, LEAST_PLACE, place.p, control, len(sets), "sets",
        )  # fmt: skip

    def local(self, sets: list[str]) -> Finding:
        """What is gained beyond what random sets would gain by changing the picture as much.

        Raises ValueError where one of both changes no picture.
        """
        trials, moved = self._trials, self._trials.moved["selected"]
        gains, drifts = self._obeyed(sets) - self._before, stacked([trials.moved[name] for name in sets])
        there = np.isfinite(gains) & np.isfinite(drifts) & np.isfinite(moved)
        ours, ours_moved, theirs, theirs_moved = (
            arms_mean(np.where(there, values, np.nan), trials.strata).value
            for values in (self._ours - self._before, moved, gains, drifts)
        )
        for what, change in (("the selected layers", ours_moved), ("random sets of layers", theirs_moved)):
            if change < LEAST_MOVED:
                raise ValueError(f"Pushes at {what} change no picture (1 - CLIP-I {change:.0e}): nothing to divide by.")
        rate, share = theirs / theirs_moved, ours_moved / theirs_moved
        # The mean of these is the gain beyond, and their spread that of the ratio to first order.
        beyond = self._ours - self._before - rate * moved - share * (gains - rate * drifts)
        control = (
            f"per unit of 1 - CLIP-I {ours / ours_moved:.1f} obey at the selected layers, {rate:.1f} at random sets; "
            f"1 - CLIP-I {ours_moved:.3f} and {theirs_moved:.3f}. {HALF}"
        )
        says = "These selected layers turn more images than the average set would for the same change of the picture."
        gain = arms_mean(np.where(there, beyond, np.nan), trials.strata)
        return self._finding("local", says, gain, "share of images", LEAST, control, "sets")

    def worst(self, arms: list[str]) -> Finding:
        lead, theirs = self._lead(arms), np.nanmean(self._obeyed(arms))
        says = "More images obey a push at these selected layers than at those that the ranking calls the worst."
        worst = f"the worst {len(self._trials.arms.arms[arms[0]].layers)}: {theirs:.2f} of images"
        control = f"{worst}. A random ranking's best do more than its worst every other time"
        return self._finding("worst_layers", says, lead, "share of images", LEAST, control)

    def random_directions(self, arms: list[str]) -> Finding:
        lead, each = self._lead(arms), np.nanmean(self._obeyed(arms), axis=1)
        control = f"{len(arms)} random directions: {each.mean():.2f} of images, {each.min():.2f} to {each.max():.2f}"
        says = "More images obey a push along the probes' directions than along random ones at the same layers."
        return self._finding("random_directions", says, lead, "share of images", LEAST, control, "directions")

    def table(self) -> Table:
        """Return a row an arm, the unsteered images first; each of its own images."""
        trials = self._trials
        rows: list[list[str | float]] = [["unsteered", "unsteered", "", float(self._before.mean()), 0.0, 0.0]]
        for name, shown in trials.after.items():
            arm = trials.arms.arms.get(name)
            sort, layers = (arm.sort, " ".join(arm.layers)) if arm else ("selected", "")
            fall = _mean_of(self._fd(trials.before, name)) - _mean_of(self._fd(shown, name))
            rows.append([
                name, sort, layers, float(np.nanmean(trials.obeyed(name))), fall, float(np.nanmean(trials.moved[name]))
            ])  # fmt: skip
        return Table(SETS, rows)

    def _obeyed(self, arms: list[str]) -> Floats:
        return stacked([self._trials.obeyed(name) for name in arms])

    def _lead(self, arms: list[str]) -> ArmsMean:
        """Return by how many more the selected layers are obeyed."""
        return self._mean(self._ours - self._obeyed(arms))

    def _mean(self, values: Floats) -> ArmsMean:
        """Return the mean over arms; images that showed their option before count as often in each as in all."""
        return arms_mean(post_stratified(values, self._before.astype(np.int64)), self._trials.strata)

    def _fd(self, shown: Floats, arm: str) -> Floats:
        """Return the parts of FD of an arm's images [n]; the judge saw them there and at the selected layers."""
        there = np.isfinite(self._trials.after[arm][:, :1] + self._trials.after["selected"][:, :1])
        counted = as_fd_counts(self._settings, np.where(there, shown, np.nan))
        return discrepancy_parts(counted, self._trials.prompts, self._trials.wanted)

    def _finding(
        self, name: str, says: str, lead: ArmsMean, unit: str, least: float, control: str, what: str = ""
    ) -> Finding:
        of, found = f"images and {len(lead.arms)} {what}" if what else "images", lead.estimate
        p, num = found.p_above(0.0), lead.num_images
        return Finding(f"causality.{name}", says, found.value, found.interval_95, unit, 0.0, least, p, control, num, of)


def _mean_of(values: Floats) -> float:
    """Return the mean of what is there [n], NaN of nothing."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else np.nan


def _layers(inputs: AuditInputs) -> tuple[list[list[str | float]], Floats, Floats]:
    """Return a row a layer, and of each its probes' accuracy [L] and the effect of pushing it alone [L].

    A layer of which the judge saw fewer than two images with their twins has none.
    """
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
        if len(change) < 2:  # no mean, or no error of it
            continue
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
