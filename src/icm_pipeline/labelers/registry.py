"""Every judge, a row each; its module is imported when it is asked for."""

from dataclasses import dataclass
from pkgutil import resolve_name

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Labeler, Questions
from icm_pipeline.machine.devices import check_device


@dataclass(frozen=True)
class Judge:
    """A kind of judge: two functions of its own file, as `module:name`."""

    load: str
    """(config, setting) -> Labeler, as a class or a function. `setting` is the configuration group, for messages."""
    check: str
    """(config, setting, questions): raise what loading and labelling would, without loading a network."""
    finds_faces: bool = False
    """It finds faces itself. Others are shown crops, unless `faces=none`."""


JUDGES = {
    "age_gender": Judge(
        "icm_pipeline.labelers.age_gender:AgeGenderJudge", "icm_pipeline.labelers.age_gender:check", finds_faces=True
    ),
    "clip": Judge("icm_pipeline.labelers.clip:ClipJudge", "icm_pipeline.labelers.clip:check"),
    "deepface": Judge(
        "icm_pipeline.labelers.deepface:DeepFaceJudge", "icm_pipeline.labelers.deepface:check", finds_faces=True
    ),
    "fairface": Judge("icm_pipeline.labelers.fairface:FairFaceJudge", "icm_pipeline.labelers.fairface:check"),
    "tiny": Judge("icm_pipeline.labelers.tiny:TinyLabeler", "icm_pipeline.labelers.tiny:check"),
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
    labeler: Labeler = resolve_name(judge.load)(config, setting)
    if judge.finds_faces or config.faces == "none":
        return labeler
    from icm_pipeline.labelers.faces import DlibFinder, OfFaces

    return OfFaces(labeler, DlibFinder(config, setting), config.faces, config.batch_size)


def check_labeler(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise what asking a judge would for missing weights, packages and unknown options, without loading a network."""
    judge = _judge(config, setting)
    if config.faces != "none" and not judge.finds_faces:
        from icm_pipeline.labelers.faces import check_finder

        check_finder(config, setting)
    resolve_name(judge.check)(config, setting, questions)


def _judge(config: LabelerConfig, setting: str) -> Judge:
    if config.kind not in JUDGES:
        raise ValueError(f"{setting}.kind={config.kind} is not known; choose from {', '.join(JUDGES)}.")
    return JUDGES[config.kind]
