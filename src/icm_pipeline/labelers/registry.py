"""A labeler by its kind, loaded when it is first asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

from icm_pipeline.config.choices import JUDGES
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Labeler, Questions, require
from icm_pipeline.labelers.groups import Groups, map_questions
from icm_pipeline.labelers.tiny import option_columns, read_attributes
from icm_pipeline.machine.devices import check_device
from icm_pipeline.zoo.paths import local_folder


def load_labeler(
    kind: str,
    model: str,
    path: str,
    batch_size: int,
    device: str,
    faces: str = "none",
    detector: str = "dlib",
    groups: Groups | None = None,
) -> Labeler:
    """Load a labeler by its kind; nothing heavy is imported before.

    faces: which faces of a picture are judged, `none` judges whole pictures; detector: what finds them; groups: which
    of the judge's classes make up an option, {head: {option: [classes]}}. Raises ValueError or, for a package that is
    not installed, ModuleNotFoundError; the message says what to do.
    """
    groups = groups or {}
    if kind == "deepface":
        from icm_pipeline.labelers.deepface import DeepFaceJudge

        return DeepFaceJudge(path, device, faces, detector, groups)
    if kind == "age_gender":
        from icm_pipeline.labelers.age_gender import AgeGenderJudge

        return AgeGenderJudge(batch_size, device, faces, detector, groups)
    judge = _load_judge_of_pictures(kind, model, path, batch_size, device, groups)
    if faces == "none":
        return judge
    from icm_pipeline.labelers.faces import DlibFinder, OfFaces

    return OfFaces(judge, DlibFinder(detector), faces, batch_size)


def _load_judge_of_pictures(kind: str, model: str, path: str, batch_size: int, device: str, groups: Groups) -> Labeler:
    if kind == "tiny":
        from icm_pipeline.labelers.tiny import TinyLabeler

        return TinyLabeler(path, batch_size, device)
    if kind == "clip":
        from icm_pipeline.labelers.clip import ClipJudge

        return ClipJudge(model, path, batch_size, device)
    if kind == "fairface":
        from icm_pipeline.labelers.fairface import FairFaceJudge

        return FairFaceJudge(model, path, batch_size, device, groups)
    raise ValueError(f"labeler.kind={kind} is not known; choose from {', '.join(JUDGES)}.")


def refuse_unanswerable(
    kind: str, model: str, path: str, groups: Groups, questions: Questions, faces: str = "none", detector: str = "dlib"
) -> None:
    """Raise what labelling would for missing weights, packages and unknown options, without loading a network."""
    if faces != "none" and kind != "deepface":  # which finds faces by itself
        from icm_pipeline.labelers.faces import refuse_missing_finder

        refuse_missing_finder(detector)
    if kind == "clip":
        from icm_pipeline.labelers.clip import refuse_missing_checkpoint

        refuse_missing_checkpoint(model, path)
    elif kind == "tiny":
        folder = local_folder(path)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"labeler.path={path} does not exist; give the folder of a classifier.")
        known = read_attributes(folder) if folder is not None else {}
        for attribute, options in questions.items() if known else ():
            option_columns(known, attribute, options)
    elif kind == "fairface":
        from icm_pipeline.labelers import fairface

        map_questions("fairface", fairface.heads_of(model), groups, questions)
        fairface.checkpoint_file(model, path)
    elif kind == "deepface":
        from icm_pipeline.labelers import deepface

        maps = map_questions("deepface", deepface.HEADS, groups, questions)
        for package in ("deepface", "onnxruntime"):
            require(package, "deepface", "labeler=deepface")
        deepface.refuse_missing_weights(deepface.weights_folder(path), [mapped.head for mapped in maps.values()])
    elif kind == "age_gender":
        from icm_pipeline.labelers import age_gender

        map_questions("age_gender", age_gender.HEADS, groups, questions)
        age_gender.bundle_folder()


def refuse_judge(judge: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise what asking a judge would, without loading it; `setting` is the name of its group."""
    with naming_its_group(setting):
        refuse_unanswerable(judge.kind, judge.model, judge.path, judge.groups, questions, judge.faces, judge.detector)


def labeler_of(config: LabelerConfig, setting: str) -> Labeler:
    """Load a labeler; `setting` is the name of its group, for messages."""
    check_device(config.device, f"{setting}.device")
    with naming_its_group(setting):
        return load_labeler(
            config.kind, config.model, config.path, config.batch_size, config.device,
            config.faces, config.detector, config.groups,
        )  # fmt: skip


@contextmanager
def naming_its_group(setting: str) -> Iterator[None]:
    """Let what a judge is refused with name the group it is configured in: `judge.path` instead of `labeler.path`."""
    try:
        yield
    except (ValueError, ModuleNotFoundError) as error:
        if setting == "labeler":
            raise
        message = str(error).replace("labeler=", f"labeler@{setting}=").replace("labeler.", f"{setting}.")
        raise type(error)(message) from error
