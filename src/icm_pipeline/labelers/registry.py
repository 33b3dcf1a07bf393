"""The judges, one row each; a judge's module is imported when it is first used."""

from dataclasses import dataclass
from importlib import import_module

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Labeler, Questions
from icm_pipeline.labelers.fetching import check_fetched
from icm_pipeline.machine.devices import check_device


@dataclass(frozen=True)
class Judge:
    """A kind of judge, in a file of its own.

    The file also has `check(config, setting, questions)`, which raises what loading and labelling would, without
    loading a network.
    """

    module: str
    load: str
    """The class or function in it that makes a Labeler of (config, setting). `setting` is the name of the judge's group
    in the configuration, for messages."""
    finds_faces: bool = False
    """It finds faces itself. Others are shown crops, unless `faces=none`."""


JUDGES = {
    "age_gender": Judge("icm_pipeline.labelers.age_gender", "AgeGenderJudge", finds_faces=True),
    "clip": Judge("icm_pipeline.labelers.clip", "ClipJudge"),
    "deepface": Judge("icm_pipeline.labelers.deepface", "DeepFaceJudge", finds_faces=True),
    "fairface": Judge("icm_pipeline.labelers.fairface", "FairFaceJudge"),
    "tiny": Judge("icm_pipeline.labelers.tiny", "TinyLabeler"),
}


def load_labeler(config: LabelerConfig, setting: str = "labeler") -> Labeler:
    """Load a judge; `setting` is its group in the configuration, which messages name.

    Raises ValueError or, for a package that is not installed, ModuleNotFoundError; the message says what to do.

    Example:
        labeler = load_labeler(settings.judge, "judge")
        probabilities = labeler.label(images, {"gender": {"woman": ["a woman"], "man": ["a man"]}})["gender"]
    """
    check_device(config.device, f"{setting}.device")
    judge = _judge(config, setting)
    labeler: Labeler = getattr(import_module(judge.module), judge.load)(config, setting)
    if judge.finds_faces or config.faces == "none":
        return labeler
    from icm_pipeline.labelers.faces import DlibFinder, OfFaces

    return OfFaces(labeler, DlibFinder(config, setting), config.faces, config.batch_size)


def check_labeler(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise what asking a judge would for missing weights, packages and unknown options, without loading a network."""
    judge = _judge(config, setting)
    if config.preprocess is not None and config.kind != "clip":
        raise ValueError(
            f"{setting}.preprocess={config.preprocess} says how a CLIP was trained; {config.kind} is none."
        )
    if config.faces != "none" and not judge.finds_faces:
        from icm_pipeline.labelers.faces import check_finder

        check_finder(config, setting)
    import_module(judge.module).check(config, setting, questions)
    check_fetched(config, setting)


def _judge(config: LabelerConfig, setting: str) -> Judge:
    if config.kind not in JUDGES:
        raise ValueError(f"{setting}.kind={config.kind} is not known; choose from {', '.join(JUDGES)}.")
    return JUDGES[config.kind]
