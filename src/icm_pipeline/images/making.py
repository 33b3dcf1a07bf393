"""Sets of images on disk, made shard by shard: jobs in, PNG files, their table and pooled activations out."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from icm_pipeline.generation.batches import Batch, FittingBatches
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.images.activations import join_activations, save_shard
from icm_pipeline.images.table import IMAGES, write_table
from icm_pipeline.machine.threads import Background
from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole
from icm_pipeline.store.shards import WHOLE, Shard, Share, num_items, plan_shards

log = logging.getLogger(__name__)

PICTURE_THREADS = 4  # pack and write pictures while the next batch is made
MOST_PICTURES_WAITING = 32


def make_image_set(
    folder: Path,
    jobs: list[Job],
    make_batch: Callable[[list[Job]], Batch],
    batch_size: int,
    shard_size: int,
    title: str,
    options: Sequence[str] = (),
    share: Share = WHOLE,
    grow: bool = False,
) -> bool:
    """Make every job's image (and activations) in `folder`, going on from whole shards that are already there.

    options: for each job, what it is steered to; empty for unsteered sets. Of a share only the shards are made. Return
    whether the set is complete, with its table. grow: take more at once than batch_size while it fits into memory.
    """
    images, ids = folder / IMAGES, [job.image_id for job in jobs]
    shards = plan_shards(folder, ids, share, batch_size, shard_size)
    fitting = FittingBatches(make_batch, batch_size, grow)
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
            saved: list[Future[Path]] = []
            recorded: list[Recording] = []
            for made in fitting.make(jobs[shard.start : shard.stop]):
                for sample in made.samples:
                    images.mkdir(exist_ok=True)
                    saved.append(pictures.do(_save_png, sample.image, images / f"{sample.job.image_id}.png"))
                recorded += [made.recording] if made.recording else []
                work.advance(made.size)
            finished.append(whole_shards.do(_keep, shard, ids, saved, recorded))
    shards = [shard.result() if isinstance(shard, Future) else shard for shard in finished]
    if share.count > 1:
        return False
    recording = shards[-1].table["recording"] if shards[-1].table else None
    if recording:
        join_activations(folder, [shard.record for shard in shards], recording)
    if images.exists():
        write_table(folder, jobs, list(options) or [""] * len(jobs))
    return True


def _keep(shard: Shard, ids: list[str], saved: list[Future[Path]], recorded: list[Recording]) -> Shard:
    """Write what a shard still lacks, its table last, when its pictures are there; return it whole."""
    files = [picture.result() for picture in saved]
    recording = save_shard(recorded, shard.record)
    files += [shard.record] if recording else []
    return shard.keep(ids, files, {"recording": recording})


def _save_png(image: Any, path: Path) -> Path:
    with written_whole(path) as partial:
        image.save(partial, format="PNG")
    return path
