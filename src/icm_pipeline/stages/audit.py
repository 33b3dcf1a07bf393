"""Check every claim of the method against a control that could refute it. docs/audit.md says how."""

import json
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from math import isfinite
from pathlib import Path

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.progress import working
from icm_pipeline.report.audit_page import claims_table, write_audit_page, write_table
from icm_pipeline.results.records import from_json, to_json
from icm_pipeline.results.verdicts import Found, Table, Verdicts, judged
from icm_pipeline.stages.labelled import Labelled, labelled_images
from icm_pipeline.store.artifacts import SHARDS, Artifact
from icm_pipeline.store.caches import judged_folder
from icm_pipeline.store.files import write_json
from icm_pipeline.tracking.base import Tracker

PARTS = "parts"  # a group's answer each, which a run that was killed finds again
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, groups = context.settings, context.settings.audit.asked
    cache = RowCache(judged_folder(context.folder), context.folder)
    labelled = labelled_images(settings, context.folder / SHARDS) if "judge" in groups else Labelled([], "not asked")
    inputs = AuditInputs(settings, context.parents, Judging(settings, cache), labelled.rows, labelled.told)
    found: dict[str, Found] = {}
    with working("audit", len(groups), "group") as work:
        for group in groups:
            found[group] = _part(context.folder / PARTS / f"{group}.json", group, inputs)
            work.advance(note=group)
    commands = [_command(context, group) for group in found for _ in found[group].findings]
    findings = [finding for each in found.values() for finding in each.findings]
    left_out = {claim: why for each in found.values() for claim, why in each.left_out.items()}
    verdicts = Verdicts(judged(findings, commands), left_out)
    verdicts.write(context.folder)
    write_table(context.folder / "claims.csv", verdicts)
    model, attribute = settings.model.name, settings.attribute.name.replace("_", " ")
    write_audit_page(context.folder, f"Audit of {attribute} on {model}", _about(settings), verdicts, found)
    counts = Counter(claim.verdict for claim in verdicts.claims)
    log.info("audit: of %d claims %s", len(findings), ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))


def _about(settings: Settings) -> str:
    """Return what was audited, and how far, in a sentence."""
    layers, prompts = settings.layers, ", ".join(f'"{prompt}"' for prompt in settings.attribute.evaluation_prompts)
    return (
        f"Size {settings.audit.size}, seed {settings.seed}, alpha {settings.alpha} in {layers.rule} {layers.k} "
        f"{layers.kind.replace('_', '-')} layers, {settings.evaluate.images_per_prompt} images each of {prompts}. "
        f"Labeler: {settings.labeler.model}, judge: {settings.judge.model}."
    )


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    from icm_pipeline.evaluation.claims.fits import num_fits  # imports torch

    return Workload(num_probes=None if outline is None else num_fits(settings, outline))


def show(tracker: Tracker, artifact: Artifact) -> None:
    claims = Verdicts.read(artifact).claims
    tracker.metrics({f"audit/effect/{claim.finding.claim}": claim.finding.effect for claim in claims})
    counts = Counter(claim.verdict for claim in claims)
    tracker.metrics({f"audit/{verdict}": count for verdict, count in counts.items()})
    tracker.table("audit/claims", *claims_table(claims))
    for name in sorted(artifact.manifest.files):
        if name.endswith(".png"):
            tracker.image(f"audit/{name.removesuffix('.png')}", artifact.path(name))


def _part(path: Path, group: str, inputs: AuditInputs) -> Found:
    """Return what a group of claims came to, asked now or by a run that was killed later."""
    if path.exists():
        kept: Found = from_json(Found, json.loads(path.read_text("utf-8")))
        return kept
    ask: Callable[[AuditInputs], Found] = import_module(f"icm_pipeline.evaluation.claims.{group}").found
    found = with_figures(ask(inputs))
    path.parent.mkdir(exist_ok=True)
    write_json(path, to_json(found))
    return found


def with_figures(found: Found) -> Found:
    """Return a group's answer in which claims without a figure, as where the judge sees too little, are left out."""
    blank = [each for each in found.findings if not is_finite([each.effect, *each.interval_95, each.p, each.null])]
    reasons = {each.claim: f"It has no figure of {each.num} {each.of} ({each.control})." for each in blank}
    kept = {name: [row for row in table.rows if is_finite(row)] for name, table in found.tables.items()}
    return Found(
        [each for each in found.findings if each.claim not in reasons],
        {name: Table(found.tables[name].columns, rows) for name, rows in kept.items() if rows},
        {**found.left_out, **reasons},
    )


def is_finite(row: Sequence[str | float]) -> bool:
    """Say whether every number of a row is one."""
    return all(isinstance(cell, str) or isfinite(cell) for cell in row)


def _command(context: StageContext, group: str) -> str:
    """Return what repeats the claims of a group."""
    words = [word for word in shlex.split(context.command) if not word.startswith("audit.claims=")]
    return shlex.join([*words, f"audit.claims=[{group}]"])
