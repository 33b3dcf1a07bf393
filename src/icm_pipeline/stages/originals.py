"""Make the unsteered evaluation images: the twins of every steered set with the same model, prompts and seeds."""

from icm_pipeline.generation.jobs import evaluation_jobs
from icm_pipeline.methods import none
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.stages.image_sets import evaluation_set_work, make_images, planned, store

work = evaluation_set_work


def run(context: StageContext) -> None:
    images = planned(context, evaluation_jobs(context.settings))
    inputs = MethodInputs(context.settings, context.parents)
    store(images, make_images(context, none.METHOD, inputs, images), "originals")
