"""method=casteer: tokens are shifted or reflected as in the paper's formulas, and keep their length."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.sana import SANA
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.casteer import METHOD, added, removed
from icm_pipeline.methods.learnt import FILE
from icm_pipeline.methods.registry import check_method
from icm_pipeline.pipeline.keys import Keys
from tests.helpers.planted_fits import TOLD, fit_to_prompts
from tests.helpers.running import Run, pixels

FEW = ("method=casteer", "method.params.pairs=2")


def planted(num_options: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return tokens [3, 5, 8] and numbers of as many directions, of two options opposite ones."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(num_options, 8, generator=rng)
    direction = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=-1)
    return torch.randn(3, 5, 8, generator=rng), {"direction": direction, "norm": torch.tensor(2.0)}


def test_each_token_is_shifted_towards_its_images_option_and_keeps_its_length() -> None:
    tokens, numbers = planted(3)
    options = torch.tensor([2, 0, 1])
    found = added(tokens, numbers, options, torch.full((3,), 1.5), "relative")
    for image, option in enumerate(options.tolist()):
        for place in range(5):
            token = tokens[image, place]
            moved = token + 1.5 * 2.0 * numbers["direction"][option]
            torch.testing.assert_close(found[image, place], moved * token.norm() / moved.norm())
    torch.testing.assert_close(added(tokens, numbers, options, torch.zeros(3), "relative"), tokens)


def test_removing_reflects_what_a_token_has_of_other_options_and_nothing_else() -> None:
    tokens, numbers = planted(2)
    found = removed(tokens, numbers, torch.tensor([0, 0, 0]), 2.0)
    held, after = tokens @ numbers["direction"][1], found @ numbers["direction"][1]
    torch.testing.assert_close(after, -held.abs())  # of either sign
    torch.testing.assert_close(found[held < 0], tokens[held < 0])
    torch.testing.assert_close(found.norm(dim=-1), tokens.norm(dim=-1))
    gone = removed(tokens, numbers, torch.tensor([0, 0, 0]), 1.0) @ numbers["direction"][1]
    assert gone[held > 0].abs().max() < 1e-5


def test_the_drawn_option_of_several_is_not_removed() -> None:
    tokens, numbers = planted(3)
    direction = torch.eye(3, 8)
    found = removed(tokens, {**numbers, "direction": direction}, torch.tensor([0, 1, 2]), 1.0)
    back = found * (tokens[..., 3:].norm(dim=-1) / found[..., 3:].norm(dim=-1))[..., None]
    for image in range(3):
        torch.testing.assert_close(back[image, :, image], tokens[image, :, image])
        others = [option for option in range(3) if option != image]
        torch.testing.assert_close(back[image][:, others], tokens[image][:, others].clamp_max(0))


def test_the_planted_direction_is_fitted_and_points_to_the_option_that_prompts_name(
    settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit_to_prompts(METHOD, settings_with("method.name=casteer"), tmp_path, monkeypatch) == 6
    found = load_file(tmp_path / FILE)
    torch.testing.assert_close(found["direction/telling"], torch.stack([TOLD, -TOLD], 1))
    assert not found["direction/dull"].any()
    assert (found["norm/telling"] - 1).abs().max() < 0.2  # a third of the planted token's


def test_it_runs_through_the_stages_and_a_strength_needs_no_new_fit(run: Run) -> None:
    plain = pixels(run("originals"))
    shifted = run("steer", *FEW, "alpha=2")
    reflected = run("steer", *FEW, "method.params.edit=remove")
    assert len({str(sorted(pixels(each).items())) for each in (shifted, reflected)}) == 2
    assert pixels(shifted) != plain != pixels(reflected)
    folder = run("fit", *FEW, "alpha=2")
    assert folder == run("fit", *FEW, "method.params.edit=remove", "method.params.beta=1")
    assert json.loads((folder / "cost.json").read_text())["images"] == 4
    assert {path.name for path in folder.iterdir()} == {"cost.json", "learnt.safetensors", "manifest.json"}


def test_what_the_pairs_are_counts_for_the_fits_key(settings_with: Callable[..., Settings]) -> None:
    def key(*words: str) -> str:
        return Keys(settings_with("method.name=casteer", "method.params.pairs=2", *words)).key("fit")

    assert key() == key("alpha=3", "method.params.edit=remove")
    changed = ("method.params.pairs=3", "attribute.trial_subjects=[chef]", "attribute.evaluation_prompts=[dog]")
    assert len({key(), *map(key, changed)}) == 4


def test_it_needs_cross_attention_and_a_known_edit(settings_with: Callable[..., Settings]) -> None:
    assert METHOD.why_not(SANA) == ""
    assert "no cross-attention" in METHOD.why_not(FLUX)
    settings = settings_with("method.name=casteer")
    settings.method.params = {"pairs": 2, "edit": "swap", "beta": 2.0}
    with pytest.raises(ConfigError, match=r"edit=swap is not known; choose from add, remove"):
        check_method(settings)
