"""`stage=pretrain`: from settings to a plan of training."""

from pathlib import Path

from icm_pipeline.config.schema import Settings
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.zoo.paths import ZOO


def run_pretraining(settings: Settings, tracker: Tracker) -> None:
    """Train the embedded parts as the settings say."""
    from icm_pipeline.machine.devices import check_device
    from icm_pipeline.pretrain.parts import PretrainPlan, pretrain

    config = settings.pretrain
    check_device(config.device, "pretrain.device")
    folder, shipped = Path(config.folder), ZOO
    plan = PretrainPlan(
        model=settings.model,
        folder=folder,
        zoo=shipped if config.install else folder / "zoo",
        device=config.device,
        seed=settings.seed,
        num_portraits=config.num_portraits,
        num_held_out=config.num_held_out,
        num_quality_images=config.num_quality_images,
        steps=config.steps,
        batch_sizes=config.batch_sizes,
        learning_rates=config.learning_rates,
        compile=config.compile,
        start_from=shipped if config.from_shipped else None,
        attributes={other.name: other.options for other in settings.evaluate.drift.values()},
        evaluation_prompts=settings.attribute.evaluation_prompts,
        tracker=tracker,
    )
    pretrain(config.part, plan)
