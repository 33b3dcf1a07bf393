"""Make and record images of prompts that name an option, to hold the probes of the implicit choice against."""

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import audited_steps
from icm_pipeline.generation.named import named_jobs
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.stages.generate import make_recorded, recorded_work
from icm_pipeline.stages.image_sets import planned, store


def run(context: StageContext) -> None:
    images = planned(context, *named_jobs(context.settings, context.settings.audit.chosen.named_images))
    made = make_recorded(context, images.missing, audited_steps(context.settings))
    store(images, made, "named", halved=context.settings.generate.store == "float16")


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return recorded_work(settings, outline, settings.audit.chosen.named_images, len(audited_steps(settings)))
