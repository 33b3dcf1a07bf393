"""method=difflens: planted features are found and attributed, and adding to fixed features is one fixed vector."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icm_pipeline.arrays import Ints
from icm_pipeline.backbones.families.sana import SANA
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods import difflens
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.difflens import METHOD, attributed, chosen_features, edited
from icm_pipeline.methods.learnt import FILE
from icm_pipeline.methods.registry import check_method
from icm_pipeline.methods.sparse_codes import SparseCodes, fit_codes, top
from tests.helpers.planted_fits import probe_data, with_bottleneck
from tests.helpers.running import Run, pixels

FEW = ("method=difflens", "method.params.updates=20", "method.params.features=24", "method.params.active=6")
WIDTH, FEATURES = 12, 6


def planted() -> SparseCodes:
    """Return codes that read six orthogonal directions, two of which are active."""
    rng = torch.Generator().manual_seed(0)
    decoder = torch.linalg.qr(torch.randn(WIDTH, FEATURES, generator=rng))[0].mT.contiguous()
    return SparseCodes(
        torch.ones(WIDTH), torch.tensor(2.0), decoder.clone(), torch.zeros(FEATURES), decoder, torch.zeros(WIDTH),
        torch.tensor(2),
    )  # fmt: skip


def maps_of(codes: Tensor, sparse: SparseCodes) -> Tensor:
    return sparse.mean + sparse.decoded(codes)


def numbers_of(sparse: SparseCodes, chosen: Tensor) -> dict[str, Tensor]:
    columns = sparse.decoded(chosen)
    length = columns.norm(dim=1)
    return {"direction": columns / length[:, None], "length": length, "chosen": chosen, "norm": torch.tensor(5.0)}


def test_a_code_keeps_its_largest_values_where_they_are_positive() -> None:
    values = torch.tensor([[3.0, -9.0, 1.0, 2.0], [-1.0, -2.0, 4.0, -3.0]])
    assert top(values, 2).tolist() == [[3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 4.0, 0.0]]


def test_sparse_maps_are_explained_once_trained_and_not_before(tmp_path: Path) -> None:
    truth, rng = planted(), torch.Generator().manual_seed(1)

    def draw(generator: torch.Generator) -> Tensor:
        return maps_of(top(torch.rand(64, FEATURES, generator=generator), 2), truth)

    def left(updates: int) -> float:
        folder = tmp_path / str(updates)
        folder.mkdir()
        mean = draw(torch.Generator().manual_seed(2)).mean(0)
        found = fit_codes(draw, mean, torch.tensor(1.0), 12, 2, updates, 0.01, 0, folder)
        torch.testing.assert_close(found.decoder.norm(dim=1), torch.ones(12))
        return found.unexplained(draw(rng))

    assert left(400) < 0.15 < 0.4 < left(1)
    with pytest.raises(ValueError, match=r"active=13 of 12 features"):
        fit_codes(draw, torch.zeros(WIDTH), torch.tensor(1.0), 12, 13, 1, 0.01, 0, tmp_path)


def labelled() -> tuple[Tensor, Ints]:
    """Return codes in which features 1 and 4 are stronger in images of options 0 and 1, and labels."""
    labels = np.arange(200) % 2
    codes = torch.rand(200, FEATURES, generator=torch.Generator().manual_seed(0))
    codes[labels == 0, 1] += 2
    codes[labels == 1, 4] += 2
    return codes, labels


def test_attribution_is_the_integrated_gradient_of_the_log_odds() -> None:
    sparse, (codes, labels) = planted(), labelled()
    weights = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))
    found = attributed(codes, weights, labels, sparse)
    start, end = codes.mean(0), codes[labels == 1].mean(0)
    total = torch.zeros(FEATURES)
    for share in torch.linspace(0, 1, 10):
        at = (start + share * (end - start)).requires_grad_()
        log_probabilities = (maps_of(at[None], sparse) @ weights.mT).log_softmax(1)[0]
        (gradient,) = torch.autograd.grad(log_probabilities[1] - log_probabilities[0], at)
        total += gradient / 10
    torch.testing.assert_close(found[1], (end - start).clamp_min(0) * total, atol=1e-5, rtol=1e-4)


def test_features_that_an_option_hangs_on_are_chosen_and_with_shuffled_labels_they_count_for_little() -> None:
    sparse, (codes, labels) = planted(), labelled()
    weights = sparse.decoder[[1, 4]]
    found = attributed(codes, weights, labels, sparse)
    assert chosen_features(found, 1).nonzero().tolist() == [[0, 1], [1, 4]]
    shuffled = attributed(codes, weights, np.random.default_rng(0).permutation(labels), sparse)
    assert shuffled.abs().max() < found.abs().max() / 4
    assert chosen_features(-found.abs(), 3).sum() == 0  # what speaks against an option is not turned up


def test_the_fit_to_planted_maps_chooses_their_features_and_keeps_the_vector_that_these_add_up_to(
    settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse, (codes, labels) = planted(), labelled()
    monkeypatch.setattr(difflens, "_codes_of", lambda *args: sparse)
    maps = torch.stack([maps_of(size * top(codes, 2), sparse) for size in (1, 3)], 1)[:80]
    settings = settings_with("method.name=difflens", "probe.group_by_prompt=false")
    settings.method.params = {"features": FEATURES, "per_option": 1}
    inputs = MethodInputs(settings, {}, probe_data=probe_data(maps, labels[:80]))
    assert METHOD.fit is not None and METHOD.fit.run(with_bottleneck(), inputs, tmp_path) == 80
    found = load_file(tmp_path / FILE)
    for step in range(2):
        assert found["chosen/mid"][step].nonzero().tolist() == [[0, 1], [1, 4]]
        torch.testing.assert_close(found["direction/mid"][step], sparse.decoder[[1, 4]])
        torch.testing.assert_close(found["length/mid"][step], torch.full((2,), 2.0))  # of one unit of each feature
        torch.testing.assert_close(found["norm/mid"][step], maps[:, step].norm(dim=1).mean())


def test_adding_a_constant_to_fixed_features_is_adding_one_fixed_vector_of_the_length_asked_for() -> None:
    sparse = planted()
    chosen = torch.tensor([[0.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 1]])
    numbers, tokens = numbers_of(sparse, chosen), torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0))
    options, alphas = torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.2])
    found = edited(tokens, numbers, options, sparse, alphas, "relative", "add")
    vector = edited(tokens, numbers, options, sparse, alphas, "relative", "vector")
    torch.testing.assert_close(found, vector, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((found - tokens).flatten(1).norm(dim=1), torch.tensor([1.0, 2.5, 1.0]))
    less = edited(tokens, numbers, options, sparse, -alphas, "relative", "add")
    torch.testing.assert_close(less - tokens, tokens - found, atol=1e-5, rtol=1e-5)


def test_multiplying_moves_what_has_fired_and_nothing_else() -> None:
    sparse = planted()
    codes = torch.tensor([[0.0, 3, 0, 0, 2, 0], [4, 0, 0, 0, 2, 0]])
    numbers, tokens = numbers_of(sparse, torch.tensor([[0.0, 1, 1, 0, 0, 0]] * 2)), maps_of(codes, sparse).view(2, 4, 3)
    found = edited(tokens, numbers, torch.tensor([0, 1]), sparse, torch.tensor([1.5, 1.5]), "relative", "multiply")
    torch.testing.assert_close(sparse.codes(found.flatten(1))[0], codes[0] * torch.tensor([0, 2.5, 0, 0, 1, 0]))
    torch.testing.assert_close(found[1], tokens[1])


def test_it_is_fitted_to_whole_maps_and_a_strength_needs_no_new_fit(run: Run) -> None:
    folder = run("fit", *FEW)
    assert {path.name for path in folder.iterdir()} == {
        "cost.json", "learnt.safetensors", "manifest.json", "sparse_codes.safetensors",
    }  # fmt: skip
    ways = [
        run("steer", *FEW, *words)
        for words in (
            ("alpha=0.5",), ("alpha=1",), ("alpha=0.5", "method.params.edit=multiply"),
            ("alpha=0.5", "method.params.asymmetric=true"),
        )
    ]  # fmt: skip
    plain = str(sorted(pixels(run("originals")).items()))
    assert len({str(sorted(pixels(each).items())) for each in ways} - {plain}) == 4
    assert run("fit", *FEW, "alpha=1", "method.params.edit=multiply") == folder


def test_it_needs_a_bottleneck_and_a_known_edit(settings_with: Callable[..., Settings]) -> None:
    assert "no bottleneck" in METHOD.why_not(SANA)
    settings = settings_with("method.name=difflens")
    settings.method.params = {"edit": "divide"}
    with pytest.raises(ConfigError, match=r"edit=divide is not known; choose from add, multiply, vector"):
        check_method(settings)
