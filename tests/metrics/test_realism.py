"""FID and KID on Gaussians with known distances, and Inception features from a checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from icm_pipeline.metrics.realism import frechet_distance, kernel_distance

pytest.importorskip("torch_fidelity", reason="the extra `fid` is not installed")


def gaussian(num_images: int, mean: float, scale: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, (num_images, 4))


def test_fid_of_gaussians_is_the_closed_form() -> None:
    found = frechet_distance(gaussian(40_000, 1.0, 2.0, 0), gaussian(40_000, 0.0, 1.0, 1))
    assert found == pytest.approx(4 * 1.0**2 + 4 * (2.0 - 1.0) ** 2, rel=0.03)


def test_a_set_lies_at_no_distance_from_itself() -> None:
    features = gaussian(50, 0, 1, 0)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_kid_is_about_zero_for_one_distribution_and_grows_with_the_distance() -> None:
    reference = gaussian(400, 0, 1, 0)
    near, _ = kernel_distance(gaussian(400, 0, 1, 1), reference, seed=0)
    far, _ = kernel_distance(gaussian(400, 2, 1, 1), reference, seed=0)
    assert abs(near) < 0.2 < far


def test_kid_is_the_unbiased_mmd_under_the_cubic_kernel() -> None:
    x, y = gaussian(30, 0.5, 1, 0), gaussian(30, 0, 1, 1)
    cross = np.mean([(a @ b / 4 + 1) ** 3 for a in x for b in y])
    within = [
        np.mean([(a @ b / 4 + 1) ** 3 for i, a in enumerate(side) for j, b in enumerate(side) if i != j])
        for side in (x, y)
    ]
    assert kernel_distance(x, y, seed=0)[0] == pytest.approx(sum(within) - 2 * cross)


def test_kid_depends_on_its_seed_only_through_the_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icm_pipeline.metrics.realism.SUBSET_SIZE", 100)
    x, y = gaussian(120, 0.5, 1, 0), gaussian(120, 0, 1, 1)
    assert kernel_distance(x, y, seed=3) == kernel_distance(x, y, seed=3) != kernel_distance(x, y, seed=4)


@pytest.mark.parametrize("metric", [frechet_distance, lambda a, b: kernel_distance(a, b, 0)])
def test_one_image_is_too_few(metric: object) -> None:
    with pytest.raises(ValueError, match="two images"):
        metric(np.ones((1, 4)), np.ones((5, 4)))  # type: ignore[operator]


def test_inception_features_come_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from PIL import Image
    from torch_fidelity import feature_extractor_inceptionv3 as library

    from icm_pipeline.evaluation.inception import InceptionEncoder

    torch.manual_seed(0)
    monkeypatch.setattr(library, "load_state_dict_from_url", lambda *args, **kwargs: (_ for _ in ()).throw(OSError))
    with monkeypatch.context() as patched:  # the architecture with its random weights
        patched.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        patched.setattr(library, "load_state_dict_from_url", lambda *args, **kwargs: {})
        model = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(model.state_dict(), tmp_path / "inception.pth")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, side, 3), dtype=np.uint8)) for side in (32, 48)]
    found = InceptionEncoder(tmp_path / "inception.pth", 8, "cpu").embed_images(pictures)
    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] for picture in pictures]
    assert found == pytest.approx(np.concatenate([model(picture)[0].numpy() for picture in pixels]), abs=1e-4)
    assert found.std(0).max() > 0


def test_another_checkpoint_than_inceptions_is_refused_by_name(tmp_path: Path) -> None:
    import torch

    from icm_pipeline.evaluation.inception import InceptionEncoder

    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not the Inception network"):
        InceptionEncoder(tmp_path / "other.pth", 8, "cpu")
