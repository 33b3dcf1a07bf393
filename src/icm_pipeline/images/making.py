"""Sets of images on disk, kept shard by shard: batches in, PNG files, their table and pooled activations out."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.images.activations import join_activations, save_shard
from icm_pipeline.images.table import IMAGES, write_table
from icm_pipeline.machine.threads import Background
from icm_pipeline.progress import working
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import written_whole
from icm_pipeline.store.shards import WHOLE, Shard, Share, num_items, plan_shards

PICTURE_THREADS = 4  # pack and write pictures while the next batch is made
MOST_PICTURES_WAITING = 32


@dataclass(frozen=True)
class ImageSet:
    """A set of images in a folder, and which of its shards are there."""

    folder: Path
    jobs: list[Job]
    options: list[str]
    """What each job is steered to; empty for unsteered sets."""
    shards: list[Shard]
    is_share: bool
    """Whether the shards are only some of the set's."""

    @property
    def ids(self) -> list[str]:
        return [job.image_id for job in self.jobs]

    @property
    def missing(self) -> Iterator[list[Job]]:
        """The jobs of every shard that is to be made, in order."""
        return (self.jobs[shard.start : shard.stop] for shard in self.shards if shard.table is None)


def plan_images(
    folder: Path, jobs: list[Job], batch_size: int, shard_size: int, options: Sequence[str] = (), share: Share = WHOLE
) -> ImageSet:
    """Return a set of images as it stands in a folder, where whole shards may be there already; or a share of it."""
    shards = plan_shards(folder, [job.image_id for job in jobs], share, batch_size, shard_size)
    return ImageSet(folder, jobs, list(options), shards, share.count > 1)


def store_images(images: ImageSet, made: Iterable[Batch], title: str, halved: bool = False) -> bool:
    """Store the batches of a set's missing jobs as they are made; return whether the set is complete, with its table.

    made: batches of the jobs in `images.missing`, in order, none across two shards. Title: of the progress; halved:
    keep activations in float16.
    """
    folder, shards, ids, batches = images.folder / IMAGES, images.shards, images.ids, iter(made)
    with (
        Background(PICTURE_THREADS, most=MOST_PICTURES_WAITING) as pictures,
        Background(1, most=1) as whole_shards,
        working(title, num_items(shards), "image", done=num_items(shards, made=True)) as work,
    ):
        finished: list[Shard | Future[Shard]] = []
        for shard in shards:
            if shard.table is not None:
                finished.append(shard)
                continue
            saved, recorded, position = list[Future[Path]](), list[Recording](), shard.start
            while position < shard.stop:
                batch = next(batches)
                for sample in batch.samples:
                    folder.mkdir(exist_ok=True)
                    saved.append(pictures.do(_save_png, sample.image, folder / f"{sample.job.image_id}.png"))
                recorded += [batch.recording] if batch.recording else []
                position += len(batch.jobs)
                work.advance(len(batch.jobs))
            finished.append(whole_shards.do(_keep, shard, ids, saved, recorded))
    whole = [shard.result() if isinstance(shard, Future) else shard for shard in finished]
    if images.is_share:
        return False
    recording = whole[-1].table["recording"] if whole and whole[-1].table else None
    if recording:
        join_activations(images.folder, [shard.tensors for shard in whole], recording, halved)
    if folder.exists():
        write_table(images.folder, images.jobs, images.options or [""] * len(ids))
    return True


def take_over(artifact: Artifact, image_ids: Iterable[str], folder: Path) -> None:
    """Copy some pictures of another set into a folder."""
    (folder / IMAGES).mkdir(exist_ok=True)
    for name in (f"{IMAGES}/{image_id}.png" for image_id in image_ids):
        with written_whole(folder / name) as partial:
            shutil.copyfile(artifact.path(name), partial)


def _keep(shard: Shard, ids: list[str], saved: list[Future[Path]], recorded: list[Recording]) -> Shard:
    """Write what a shard still lacks, its table last, when its pictures are there; return it whole."""
    files = [picture.result() for picture in saved]
    recording = save_shard(recorded, shard.tensors)
    files += [shard.tensors] if recording else []
    return shard.keep(ids, files, {"recording": recording})


def _save_png(image: Any, path: Path) -> Path:
    with written_whole(path) as partial:
        image.save(partial, format="PNG")
    return path
