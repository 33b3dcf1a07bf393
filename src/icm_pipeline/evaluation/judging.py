"""The judges and encoders of an evaluation, behind a cache of their answers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats, spread
from icm_pipeline.config.schema import EvaluateConfig, LabelerConfig, Settings
from icm_pipeline.evaluation.inception import InceptionEncoder
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.images.folders import list_pictures, mark_unreadable, no_picture, tell_others
from icm_pipeline.images.table import ImageRow, Pictures, read_table
from icm_pipeline.labelers.base import Labeler, Questions
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.machine.devices import check_device
from icm_pipeline.metrics.realism import require_library
from icm_pipeline.store.artifacts import open_artifact
from icm_pipeline.store.fingerprints import fingerprint
from icm_pipeline.store.manifest import MANIFEST
from icm_pipeline.zoo.paths import bundled_weights, local_folder
from icm_pipeline.zoo.weight_files import check_weights


class Judging:
    """The judges of one evaluation, each loaded at its first cache miss."""

    def __init__(self, settings: Settings, cache: RowCache) -> None:
        self._clip, self._inception, self._cache = settings.evaluate.clip, settings.evaluate.inception, cache
        self._encoder: ClipJudge | None = None
        self._labelers: dict[str, Labeler] = {}

    @property
    def realism_encoder(self) -> str:
        """The network whose features FID and KID compare."""
        return self._clip.model if self._inception is None else "inception-v3"

    def label(
        self, judge: LabelerConfig, setting: str, rows: Sequence[ImageRow], questions: Questions
    ) -> dict[str, Floats]:
        """Return a judge's probabilities {attribute: [n, options]}; `setting` names its group in messages.

        A judge that is the encoder of CLIP-I as well labels by the same embeddings.
        """
        if asdict(judge) == asdict(self._clip) and judge.faces == "none":
            embedded = self.embed(rows)
            unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
            return self._clip_judge().label_embedded(unit, questions)
        asked = ["label", _identity(judge), [[name, list(options.items())] for name, options in questions.items()]]

        def look(pictures: Pictures) -> Floats:
            if setting not in self._labelers:
                self._labelers[setting] = load_labeler(judge, setting)
            seen = self._labelers[setting].label(pictures, questions)
            return np.concatenate([seen[name] for name in questions], axis=1)

        found = self._rows(asked, rows, look)
        ends = np.cumsum([len(options) for options in questions.values()])
        return dict(zip(questions, np.split(found, ends[:-1], axis=1), strict=True))

    def embed(self, rows: Sequence[ImageRow]) -> Floats:
        """Return image embeddings [n, d] of `evaluate.clip`, not normalised."""
        asked = ["embed", _identity(self._clip)]
        return self._rows(asked, rows, lambda pictures: self._clip_judge().embed_images(pictures, unit_length=False))

    def embed_prompts(self, prompts: list[str]) -> Floats:
        """Return unit-length embeddings [n, d] of `evaluate.clip`, one row per prompt in the list."""
        unique = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        return self._clip_judge().embed_texts(list(unique))[[unique[prompt] for prompt in prompts]]

    def realism_features(self, rows: Sequence[ImageRow]) -> Floats:
        """Return the features [n, d] that FID and KID compare: Inception's where its weights are given, else CLIP's."""
        if self._inception is None:
            return self.embed(rows)
        path, clip = Path(self._inception).expanduser(), self._clip
        asked = ["inception", fingerprint(path) if path.exists() else "", clip.device, clip.batch_size]

        def look(pictures: Pictures) -> Floats:
            check_device(clip.device, "evaluate.clip.device")
            return InceptionEncoder(path, clip.batch_size, clip.device).embed_images(pictures)

        return self._rows(asked, rows, look)

    def _rows(self, asked: list[Any], rows: Sequence[ImageRow], look: Callable[[Pictures], Floats]) -> Floats:
        """Return a row per image, from the cache if `asked` was asked of these images before; NaN if unreadable."""
        readable = [row for row in rows if not row.problem]
        seen = self._cache.rows(asked, [row.path for row in readable], lambda: look(Pictures(readable)))
        return spread([not row.problem for row in rows], seen)

    def _clip_judge(self) -> ClipJudge:
        if self._encoder is None:
            check_device(self._clip.device, "evaluate.clip.device")
            self._encoder = ClipJudge(self._clip, "evaluate.clip")
        return self._encoder


def _identity(judge: LabelerConfig) -> list[Any]:
    """Return what a judge's answers depend on: its settings and, if they are files, a fingerprint of its weights."""
    weights = bundled_weights(judge.model) or local_folder(judge.path)
    told = {name: value for name, value in asdict(judge).items() if value is not None}
    return [told, fingerprint(weights) if weights is not None and weights.exists() else None]


def reference_images(folder: Path) -> list[ImageRow]:
    """Return the pictures of an artifact's table, or every picture below a folder; raises ValueError if there is none.

    Pictures that cannot be read are told and left out. Which pictures an artifact shows is in its table: a contact
    sheet beside them is none of them.
    """
    if not folder.is_dir():
        raise ValueError(f"evaluate.reference={folder} is no folder. Give a folder of pictures or of another run.")
    artifact = open_artifact(folder) if (folder / MANIFEST).exists() else None
    if artifact is not None and any(name.startswith("images/") for name in artifact.manifest.files):
        return read_table(artifact)
    pictures, others = list_pictures(folder)
    if not pictures:
        raise no_picture(f"evaluate.reference={folder}", others)
    tell_others("evaluate.reference", others)
    rows = [ImageRow(name, "", 0, None, "", path) for name, path in pictures.items()]
    return [row for row in mark_unreadable(rows, "evaluate.reference") if not row.problem]


def check_reference(evaluate: EvaluateConfig) -> None:
    """Raise early what FID and KID would raise for a missing library and a checkpoint that is not there or whole."""
    if evaluate.reference is not None:
        require_library()
    if evaluate.inception is not None:
        check_weights(Path(evaluate.inception).expanduser(), f"evaluate.inception={evaluate.inception}")
