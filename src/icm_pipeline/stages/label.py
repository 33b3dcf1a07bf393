"""Say what every probe image shows: a probability per option from the labeler."""

import csv
import logging

from icm_pipeline.image_sets import Pictures, read_table
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import labeler_of

log = logging.getLogger(__name__)

LABELS = "labels.csv"


def run(context: StageContext) -> None:
    settings, attribute = context.settings, context.settings.attribute
    rows = read_table(context.parents["generate"])
    questions = {attribute.name: attribute.options}
    probabilities = labeler_of(settings.labeler, "labeler").label(Pictures(rows), questions)[attribute.name]
    options = list(attribute.options)
    labels = hard_labels(probabilities)
    with (context.folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "option", *options])
        for row, label, probability in zip(rows, labels, probabilities, strict=True):
            writer.writerow([row.image_id, options[label] if label >= 0 else "", *(f"{p:.6f}" for p in probability)])
    counts = {option: int((labels == index).sum()) for index, option in enumerate(options)}
    unseen = int((labels < 0).sum())
    log.info("label: %s%s", counts, f", {unseen} not recognisable" if unseen else "")
