"""A run that gets its first steps from another run's memory ends where it would have ended."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.schedulers import use_scheduler
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prefixes import PrefixError, PrefixStore, kept, replayed, shared_prefix, split_calls
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.models import NUM_STEPS

FIRST = 2


def remember(backbone: Backbone, jobs: list[Job], before: int = FIRST) -> list[torch.Tensor]:
    with (
        hooked(backbone, [], None, len(jobs)) as clock,
        kept(backbone, clock, before) as calls,
    ):
        denoise(backbone, jobs)
    return split_calls(calls, len(jobs))


@pytest.fixture
def computed(backbone: Backbone) -> Iterator[list[int]]:
    """Give a list of the rows of every real run of the denoiser's first layer, which a test clears where it begins."""
    runs: list[int] = []
    handle = backbone.denoiser.conv_in.register_forward_hook(lambda module, args, output: runs.append(len(output)))
    yield runs
    handle.remove()


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler_a", "heun", "dpmpp_2m", "unipc", "lcm"])
def test_a_replayed_run_ends_where_the_plain_one_does(
    backbone: Backbone, jobs: list[Job], computed: list[int], scheduler: str
) -> None:
    own = backbone.pipe.scheduler
    use_scheduler(backbone.pipe, scheduler)
    try:
        plain = denoise(backbone, jobs)
        prefix = remember(backbone, jobs)
        computed.clear()
        with replayed(backbone, prefix):
            again = denoise(backbone, jobs)
    finally:
        backbone.pipe.scheduler = own
    assert torch.equal(again, plain)
    assert len(computed) < NUM_STEPS * 2
    assert len(prefix[0]) > 0


def test_only_the_steps_after_the_prefix_are_computed(backbone: Backbone, jobs: list[Job], computed: list[int]) -> None:
    prefix = remember(backbone, jobs)
    computed.clear()
    with replayed(backbone, prefix):
        denoise(backbone, jobs)
    assert computed == [2 * len(jobs)] * (NUM_STEPS - FIRST)


def test_images_of_one_batch_can_be_replayed_in_another(backbone: Backbone, jobs: list[Job]) -> None:
    plain, prefix = denoise(backbone, jobs), remember(backbone, jobs)
    with replayed(backbone, prefix[1:3]):
        torch.testing.assert_close(denoise(backbone, jobs[1:3]), plain[1:3], rtol=1e-5, atol=1e-5)


def test_steering_after_the_prefix_is_the_same(backbone: Backbone, jobs: list[Job]) -> None:
    layer = backbone.layers[0]

    def push(tokens, site, clock):  # type: ignore[no-untyped-def]
        return tokens + 1 if clock.step >= FIRST else None

    with hooked(backbone, [layer], push, len(jobs)):
        steered = denoise(backbone, jobs)
    prefix = remember(backbone, jobs)
    with hooked(backbone, [layer], push, len(jobs)) as clock, replayed(backbone, prefix):
        assert torch.equal(denoise(backbone, jobs), steered)
    assert clock.num_calls == NUM_STEPS
    assert not torch.equal(steered, denoise(backbone, jobs))


def test_without_guidance_an_image_has_one_part(backbone: Backbone, jobs: list[Job]) -> None:
    assert backbone.sampling is not None
    unguided = replace(backbone, sampling=replace(backbone.sampling, guidance_scale=1.0))
    assert {tuple(output.shape[:2]) for output in remember(unguided, jobs)} == {(FIRST, 1)}


def test_calls_of_different_shapes_are_refused() -> None:
    with pytest.raises(PrefixError, match="no tensors of one shape"):
        split_calls([torch.zeros(4, 2), torch.zeros(2, 2)], 2)


def test_nothing_stays_behind(backbone: Backbone, jobs: list[Job]) -> None:
    with pytest.raises(RuntimeError, match="stop"), replayed(backbone, remember(backbone, jobs)):
        raise RuntimeError("stop")
    assert "forward" not in vars(backbone.denoiser)


def run_with(backbone: Backbone, jobs: list[Job], store: PrefixStore | None) -> torch.Tensor:
    ids = [job.image_id for job in jobs]
    with (
        hooked(backbone, [], None, len(jobs)) as clock,
        shared_prefix(backbone, clock, store, ids, FIRST),
    ):
        return denoise(backbone, jobs)


def test_the_first_run_fills_the_store_and_the_next_reads_it(
    backbone: Backbone, jobs: list[Job], computed: list[int], tmp_path: Path
) -> None:
    plain, store = denoise(backbone, jobs), PrefixStore(tmp_path / "prefixes")
    computed.clear()
    assert torch.equal(run_with(backbone, jobs, store), plain)
    assert torch.equal(run_with(backbone, jobs, store), plain)
    assert len(computed) == NUM_STEPS + NUM_STEPS - FIRST
    assert sorted(path.stem for path in (tmp_path / "prefixes").iterdir()) == [job.image_id for job in jobs]


def test_a_damaged_or_missing_file_is_made_again(backbone: Backbone, jobs: list[Job], tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    plain = run_with(backbone, jobs, store)
    (tmp_path / f"{jobs[0].image_id}.safetensors").write_bytes(b"half a file")
    (tmp_path / f"{jobs[1].image_id}.safetensors").unlink()
    assert store.load([job.image_id for job in jobs]) is None
    assert torch.equal(run_with(backbone, jobs, store), plain)
    assert store.load([job.image_id for job in jobs]) is not None


def test_outputs_that_are_no_tensors_are_computed_every_time(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PrefixError):
        split_calls([torch.empty(0)] * FIRST, len(jobs))
    store = PrefixStore(tmp_path)
    for _ in range(3):
        with shared_prefix(backbone, StepClock(), store, ["a"], FIRST):
            pass  # a run that never called the denoiser
    assert caplog.text.count("computed again") == 1
    assert not list(tmp_path.iterdir())
