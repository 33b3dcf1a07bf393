"""method=latent_direction, respodiff, slider and lora: each against its own formula, and through the stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.sana import SANA
from icm_pipeline.backbones.families.stable_diffusion import STABLE_DIFFUSION
from icm_pipeline.backbones.families.z_image import Z_IMAGE
from icm_pipeline.backbones.modules import path_to
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, first_seed
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods import latent_direction, lora, low_rank, respodiff, slider
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.methods.bottleneck import map_shape, save_shifts, shifted
from icm_pipeline.methods.denoising import Denoiser, seen_run
from icm_pipeline.methods.examples import Examples
from icm_pipeline.methods.learnt import FILE, Learnt
from icm_pipeline.methods.registry import check_method, method_named
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.store.artifacts import Artifact
from tests.helpers.results import as_artifact
from tests.helpers.running import Run, pixels

SettingsWith = Callable[..., Settings]
FEW = ("method.params.updates=2", "method.params.batch=4")
NAMES = ("latent_direction", "respodiff", "slider", "lora")


def inputs_of(settings_with: SettingsWith, name: str, **params: Any) -> MethodInputs:
    settings = settings_with(f"method.name={name}", "compute.batch_size=4")
    settings.method.params = params
    settings.attribute.probe_templates, settings.attribute.trial_subjects = ["{}", "a {}"], []
    settings.attribute.probe_subjects = ["dog", "cat"]  # the random model reads 14 letters
    return MethodInputs(settings, {})


def steered(
    method: Method, backbone: Backbone, jobs: list[Job], inputs: MethodInputs, fit: Artifact, options: list[int]
) -> Tensor:
    given = dict(zip((job.image_id for job in jobs), options, strict=True))
    with method.applied(backbone, MethodInputs(inputs.settings, {"fit": fit}, option_of=given), jobs):
        return denoise(backbone, jobs)


def test_a_shift_of_h_moves_conditional_rows_of_each_image_by_its_options(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: SettingsWith
) -> None:
    shape = map_shape(backbone)
    assert shape == (16, 64)
    shifts = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    save_shifts(backbone, shifts, tmp_path)
    fit, inputs = as_artifact(tmp_path, "", FILE), inputs_of(settings_with, "latent_direction", scale=0.5, shape="map")
    found = steered(latent_direction.METHOD, backbone, jobs, inputs, fit, [0, 1, 0, 1])
    rows = (0.5 * shifts[[0, 1, 0, 1]]).mT.reshape(4, 64, 4, 4)

    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:4], output[4:] + rows])

    handle = backbone.denoiser.mid_block.register_forward_hook(add)
    expected = denoise(backbone, jobs)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    inputs.settings.method.params["scale"] = 0.0
    assert torch.equal(steered(respodiff.METHOD, backbone, jobs, inputs, fit, [0, 1, 0, 1]), denoise(backbone, jobs))


def test_a_latent_direction_finds_a_planted_shift(
    backbone: Backbone, tmp_path: Path, settings_with: SettingsWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model predicts with a shift of h is what is to be predicted, so that the least error is that shift."""
    planted = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0)) / 2
    own = Examples.noised

    def noised(self: Examples, denoiser: Denoiser, size: int, generator: torch.Generator) -> Any:
        noisy, prompts, options, _ = own(self, denoiser, size, generator)
        with torch.no_grad(), shifted(backbone, planted[options]):
            return noisy, prompts, options, denoiser.predict(noisy, prompts)

    monkeypatch.setattr(Examples, "noised", noised)
    params = {"shape": "channel", "images": 2, "updates": 80, "batch": 8, "learning_rate": 0.05, "scale": 1.0}
    inputs = inputs_of(settings_with, "latent_direction", **params)
    fit = latent_direction.METHOD.fit
    assert fit is not None and fit.run(backbone, inputs, tmp_path) == 4
    found = load_file(tmp_path / FILE)["shift/mid_block"][0]
    assert found.shape == (2, 1, 64)
    alike = torch.nn.functional.cosine_similarity(found.flatten(1), planted.flatten(1))
    assert alike.min() > 0.9
    assert torch.nn.functional.cosine_similarity(found[0], planted[1]).max() < 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def losses_of(module: Any, backbone: Backbone, inputs: MethodInputs, folder: Path, at: dict[str, float]) -> Any:
    """Return the loss of a fit's first update where its parameters are `at`, its parameters and their gradients."""
    return trained_by(module, backbone, inputs, folder, at)[:3]


def trained_by(module: Any, backbone: Backbone, inputs: MethodInputs, folder: Path, at: dict[str, float]) -> Any:
    """Return also the learning rate, or that of each parameter."""
    caught = list[Any]()

    def train(parameters: Any, loss: Any, updates: int, rates: Any, *args: Any, **kwargs: Any) -> None:
        for index, (name, value) in enumerate(parameters.items()):
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(index))
            value.data.copy_(noise * at.get(name.rpartition("/")[2], 0.0))
        generator = torch.Generator().manual_seed(7)
        value = loss(0, generator)
        value.backward()
        caught.append((value.item(), parameters, {name: each.grad.clone() for name, each in parameters.items()}, rates))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icm_pipeline.methods.training.train", train)
        module.METHOD.fit.run(backbone, inputs, folder)
    return caught[0]


def watched_draws(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from icm_pipeline.methods.examples import EditedRuns

    drawn, own = list[Any](), EditedRuns.draw

    def draw(self: EditedRuns, update: int, generator: torch.Generator) -> Any:
        drawn.append((*own(self, update, generator), self.options))
        return drawn[-1][:2]

    monkeypatch.setattr(EditedRuns, "draw", draw)
    return drawn


def test_respodiffs_vectors_learn_the_guided_prediction_and_the_neutral_one(
    backbone: Backbone, tmp_path: Path, settings_with: SettingsWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"updates": 1, "batch": 4, "refresh": 1, "guidance": 4.0, "learning_rate": 0.01, "stay_rate": 0.001}
    inputs, drawn = inputs_of(settings_with, "respodiff", **params), watched_draws(monkeypatch)
    value, parameters, gradients, rates = trained_by(respodiff, backbone, inputs, tmp_path, {"turn": 0.3, "stay": 0.2})
    assert rates == {"turn": 0.01, "stay": 0.001}
    torch.testing.assert_close(
        load_file(tmp_path / FILE)["shift/mid_block"][0], (parameters["turn"] + parameters["stay"]).detach()
    )
    (noisy, chosen, options), turn, stay = drawn[0], parameters["turn"].detach(), parameters["stay"].detach()
    neutral = [each.neutral for each in chosen]
    named = [each.named[option] for each, option in zip(chosen, options.tolist(), strict=True)]
    assert options.tolist() == [0, 1, 0, 1]
    denoiser = Denoiser(backbone, [*neutral, *named, ""])

    def predicted(prompts: list[str], shift: Tensor | None = None) -> Tensor:
        if shift is None:
            return denoiser.predict(noisy, prompts)
        with shifted(backbone, shift[options]):
            return denoiser.predict(noisy, prompts)

    with torch.no_grad():
        empty = predicted([""] * 4)
        wanted, plain = empty + 4 * (predicted(named) - empty), predicted(neutral)
    turn.requires_grad_()
    first = (predicted(neutral, turn) - wanted).square().mean()
    stay.requires_grad_()
    second = (predicted(neutral, turn.detach() + stay) - plain).square().mean()
    (by_turn,), (by_stay,) = torch.autograd.grad(first, turn), torch.autograd.grad(second, stay)
    assert value == pytest.approx((first + second).item(), rel=1e-4)
    torch.testing.assert_close(gradients["turn"], by_turn, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(gradients["stay"], by_stay, atol=1e-5, rtol=1e-3)
    start = [Job(f"{i}", text, i, first_seed(inputs.settings.seed, "fit") + i) for i, text in enumerate(neutral)]
    with torch.no_grad(), shifted(backbone, (turn + stay)[options]):
        run, _ = seen_run(backbone, start)
    torch.testing.assert_close(noisy.latents, run.latents[noisy.steps, torch.arange(4)], atol=1e-4, rtol=1e-4)


def test_a_slider_learns_the_neutral_prediction_and_what_its_option_differs_by(
    backbone: Backbone, tmp_path: Path, settings_with: SettingsWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"rank": 2, "keep": ["old {}"], "updates": 1, "batch": 4, "refresh": 1, "guidance": 3.0,
              "learning_rate": 0.01, "weight_decay": 0.0}  # fmt: skip
    inputs, drawn = inputs_of(settings_with, "slider", **params), watched_draws(monkeypatch)
    value, parameters, gradients = losses_of(slider, backbone, inputs, tmp_path, {"down": 1.0})
    noisy, chosen, options = drawn[0]
    neutral = [each.neutral for each in chosen]
    denoiser = Denoiser(backbone, [text for each in chosen for text in (each.neutral, *each.named)])
    with torch.no_grad():
        plain = denoiser.predict(noisy, neutral)
        own, other = (
            denoiser.predict(noisy, [w.named[k if side else 1 - k] for w, k in zip(chosen, options, strict=True)])
            for side in (True, False)
        )
    assert value == pytest.approx((3 * (own - other)).square().mean().item(), rel=1e-4)  # B is zero: nothing changes
    assert value > 1e-3
    assert all(not gradients[name].any() for name in gradients if name.endswith("down"))
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    assert gradients[f"{layer}/up"].flatten(1).any(1).all() and f"{layer}/up" in gradients
    assert {name.rpartition("/")[0].rpartition(".")[2] for name in parameters} >= {"to_q", "conv1", "conv"}
    assert not any("attn2" in name or name.startswith("conv_") for name in parameters)
    wanted, layers = plain + 3 * (own - other), ("down", "up")

    def per_row(num_rows: int) -> tuple[Tensor, Tensor]:
        return options.repeat(num_rows // 4), torch.ones(num_rows)

    adapters = {
        name.removesuffix("/up"): {each: parameters[f"{name.removesuffix('up')}{each}"] for each in layers}
        for name in parameters
        if name.endswith("/up")
    }
    with low_rank.adapted(backbone, adapters, per_row):
        expected = (denoiser.predict(noisy, neutral) - wanted).square().mean()
    (by_up,) = torch.autograd.grad(expected, parameters[f"{layer}/up"])
    torch.testing.assert_close(gradients[f"{layer}/up"], by_up, atol=1e-5, rtol=1e-3)  # it learns towards its option


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_rows_adapter_is_pefts_of_its_option(kind: str) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    module: nn.Module = nn.Linear(6, 5) if kind == "linear" else nn.Conv2d(6, 5, 3, stride=2, padding=1)
    x = torch.randn(4, 7, 6) if kind == "linear" else torch.randn(4, 6, 8, 8)
    rank, options, scales = 2, torch.tensor([1, 0, 0, 1]), torch.tensor([1.0, 2.0, 0.0, -1.0])
    down, up = torch.randn(2, rank, *module.weight.shape[1:]), torch.randn(2, 5, rank)
    expected = list[Tensor]()
    for row, (option, scale) in enumerate(zip(options.tolist(), scales.tolist(), strict=True)):
        model = nn.Sequential()
        model.add_module("layer", module)
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=1, target_modules=["layer"]), model)
        layer: Any = model.layer
        layer.lora_A["default"].weight.data.copy_(down[option])
        weight = layer.lora_B["default"].weight
        weight.data.copy_(scale * up[option].view(weight.shape))
        expected.append(model(x[row : row + 1]).detach())
    lengths = (scales / rank).view(-1, *[1] * (x.dim() - 1))
    found = module(x) + lengths * low_rank.change(module, x, down[options], up[options])
    torch.testing.assert_close(found.detach(), torch.cat(expected), atol=1e-5, rtol=1e-5)


def slider_fit(backbone: Backbone, folder: Path) -> Artifact:
    layers = low_rank.projections(backbone, ["mid_block.attentions.0.transformer_blocks.0.attn1"])
    adapters = low_rank.new_adapters(backbone, layers, 2, 2, seed=0)
    for own in adapters.values():
        own["up"].data.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    Learnt(
        {layer: {name: each.detach()[None] for name, each in own.items()} for layer, own in adapters.items()}, [1.0]
    ).save(folder)
    return as_artifact(folder, "", FILE)


def test_a_batch_may_slide_to_different_options_from_a_step_on_and_leaves_no_hook(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: SettingsWith
) -> None:
    inputs, fit = inputs_of(settings_with, "slider", scale=2.0), slider_fit(backbone, tmp_path)
    mixed = steered(slider.METHOD, backbone, jobs, inputs, fit, [0, 1, 1, 0])
    alone = [
        steered(slider.METHOD, backbone, [job], inputs, fit, [option])
        for job, option in zip(jobs, [0, 1, 1, 0], strict=True)
    ]
    torch.testing.assert_close(mixed, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[0], steered(slider.METHOD, backbone, jobs[:1], inputs, fit, [1])[0], atol=1e-3)
    inputs.settings.method.first_step = 2
    late = steered(slider.METHOD, backbone, jobs, inputs, fit, [0, 1, 1, 0])
    assert not torch.allclose(late, mixed, atol=1e-3)
    plain, before = denoise(backbone, jobs), list[Tensor]()
    assert not torch.allclose(late, plain, atol=1e-3)
    handle = backbone.denoiser.register_forward_hook(lambda module, args, output: before.append(output[0].clone()))
    steered(slider.METHOD, backbone, jobs, inputs, fit, [0, 1, 1, 0])
    denoise(backbone, jobs)
    handle.remove()
    assert [torch.equal(a, b) for a, b in zip(before[:4], before[4:], strict=True)] == [True, True, False, False]
    inputs.settings.method.params["scale"] = 0.0
    assert torch.equal(steered(slider.METHOD, backbone, jobs, inputs, fit, [0, 1, 1, 0]), plain)


def test_a_slider_acts_on_both_halves_of_guidance(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: SettingsWith
) -> None:
    inputs, fit = inputs_of(settings_with, "slider", scale=1.0), slider_fit(backbone, tmp_path)
    found = steered(slider.METHOD, backbone, jobs, inputs, fit, [1, 1, 1, 1])
    numbers = load_file(tmp_path / FILE)
    before = dict[str, Tensor]()
    try:
        for name in numbers:
            if name.startswith("up/"):
                layer = name.removeprefix("up/")
                linear: Any = path_to(backbone.denoiser, layer)[-1]
                before[layer] = linear.weight.detach().clone()
                linear.weight.data += numbers[name][0, 1] @ numbers[f"down/{layer}"][0, 1] / 2
        expected = denoise(backbone, jobs)
    finally:
        for layer, weight in before.items():
            path_to(backbone.denoiser, layer)[-1].weight.data.copy_(weight)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def lora_inputs(settings_with: SettingsWith, **more: Any) -> MethodInputs:
    params = {"where": "cross_attention", "rank": 2, "images": 2, "updates": 3, "batch": 4, "learning_rate": 0.1,
              "weight_decay": 0.0, "scale": 1.0}  # fmt: skip
    return inputs_of(settings_with, "lora", **{**params, **more})


def test_a_lora_trains_the_chosen_layers_alone_and_puts_the_denoiser_back(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: SettingsWith
) -> None:
    inputs, denoiser = lora_inputs(settings_with), backbone.denoiser
    before, modules = {n: w.clone() for n, w in denoiser.state_dict().items()}, dict(denoiser.named_modules())
    needed, plain = [w.requires_grad for w in denoiser.parameters()], denoise(backbone, jobs)
    fit = lora.METHOD.fit
    assert fit is not None and fit.run(backbone, inputs, tmp_path) == 4
    weights = load_file(tmp_path / lora.FILE)
    assert {name.split(".lora_")[0].split(".attn2.")[1] for name in weights} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert all(weights[name].any() for name in weights)  # B is no longer zero
    found = steered(lora.METHOD, backbone, jobs, inputs, as_artifact(tmp_path, "", lora.FILE), [0] * 4)
    assert not torch.allclose(found, plain, atol=1e-3)
    assert dict(denoiser.named_modules()) == modules and not hasattr(denoiser, "peft_config")
    assert all(torch.equal(w, before[n]) for n, w in denoiser.state_dict().items())
    assert [w.requires_grad for w in denoiser.parameters()] == needed
    assert torch.equal(denoise(backbone, jobs), plain)
    inputs.settings.method.params["scale"] = 0.0
    nothing = steered(lora.METHOD, backbone, jobs, inputs, as_artifact(tmp_path, "", lora.FILE), [0] * 4)
    torch.testing.assert_close(nothing, plain, atol=1e-4, rtol=1e-4)


def test_a_lora_learns_what_is_to_be_predicted_of_pictures_of_which_each_option_has_its_share(
    backbone: Backbone, tmp_path: Path, settings_with: SettingsWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, own = list[tuple[Examples, Any]](), Examples.noised

    def noised(self: Examples, denoiser: Denoiser, size: int, generator: torch.Generator) -> Any:
        drawn.append((self, own(self, denoiser, size, generator)))
        return drawn[-1][1]

    monkeypatch.setattr(Examples, "noised", noised)
    inputs = lora_inputs(settings_with)
    inputs.settings.method.target_shares = [0.75, 0.25]
    value, _, _ = losses_of(lora, backbone, inputs, tmp_path, {})
    examples, (noisy, prompts, _, target) = drawn[0]
    assert examples.options.tolist() == [0, 0, 0, 1]
    with torch.no_grad():
        plain = Denoiser(backbone, prompts).predict(noisy, prompts)  # at zero the adapters change nothing
    assert value == pytest.approx((plain - target).square().mean().item(), rel=1e-4)


def test_a_loras_scale_is_that_of_what_its_layers_add(
    backbone: Backbone, tmp_path: Path, settings_with: SettingsWith
) -> None:
    layer, rng = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v", torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(*shape, generator=rng) for shape in ((2, 64), (64, 2), (3, 64)))
    save_file({f"unet.{layer}.lora_A.weight": a, f"unet.{layer}.lora_B.weight": b}, tmp_path / lora.FILE)
    own: Any = path_to(backbone.denoiser, layer)[-1]
    inputs = MethodInputs(lora_inputs(settings_with, scale=3.0).settings, {"fit": as_artifact(tmp_path, "", lora.FILE)})
    with torch.no_grad(), lora.METHOD.applied(backbone, inputs, []):
        found = path_to(backbone.denoiser, layer)[-1](x)  # type: ignore[operator]
        torch.testing.assert_close(found, own(x) + 3 * x @ a.mT @ b.mT, atol=1e-4, rtol=1e-4)


def test_a_loras_layers_come_back_after_an_exception(backbone: Backbone) -> None:
    modules = dict(backbone.denoiser.named_modules())
    layers = low_rank.projections(backbone, ["mid_block.attentions.0.transformer_blocks.0.attn1"])
    with pytest.raises(RuntimeError, match="midway"), lora.injected(backbone, layers, 2):
        changed = [name for name, module in backbone.denoiser.named_modules() if hasattr(module, "base_layer")]
        assert sorted(changed) == sorted(layers)
        raise RuntimeError("midway")
    assert dict(backbone.denoiser.named_modules()) == modules


def test_diffusers_loads_what_a_lora_learnt(
    random_pipeline_folder: Path, jobs: list[Job], tmp_path: Path, settings_with: SettingsWith
) -> None:
    from tests.helpers.models import load

    backbone, inputs = load(random_pipeline_folder), lora_inputs(settings_with)
    assert lora.METHOD.fit is not None
    lora.METHOD.fit.run(backbone, inputs, tmp_path)
    found = steered(lora.METHOD, backbone, jobs, inputs, as_artifact(tmp_path, "", lora.FILE), [0] * 4)
    backbone.pipe.load_lora_weights(str(tmp_path), weight_name=lora.FILE)
    torch.testing.assert_close(denoise(backbone, jobs), found, atol=1e-4, rtol=1e-4)


def test_a_lora_needs_peft_and_layers_that_exist(
    backbone: Backbone, settings_with: SettingsWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"where=joint_attention chooses no attention .*cross_attention"):
        lora._layers_of(backbone, lora_inputs(settings_with, where="joint_attention"))
    with pytest.raises(ConfigError, match=r"where=worst is not known; .* layers=worst"):
        check_method(lora_inputs(settings_with, where="worst").settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'icm_pipeline\[bench\]'"):
        lora.check_peft()


def test_methods_say_which_models_they_do_not_apply_to() -> None:
    for name in NAMES:
        why_not = method_named(name).why_not
        assert why_not(STABLE_DIFFUSION) == ""
        assert ("no bottleneck" in why_not(FLUX)) == ("no bottleneck" in why_not(SANA)) == (name in NAMES[:2])
    assert "lists of pictures" in slider.METHOD.why_not(Z_IMAGE)


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_needs_no_new_fit_and_how_it_was_trained_does(
    name: str, compose_settings: Callable[..., Settings]
) -> None:
    def keys(*words: str) -> tuple[str, str]:
        found = Keys(compose_settings(f"method={name}", *words))
        return found.key("fit"), found.key("steer")

    usual, stronger = keys(), keys("method.params.scale=2")
    longer, others = keys("method.params.updates=7"), keys("attribute.trial_subjects=[engineer]")
    assert usual[0] == stronger[0] and usual[1] != stronger[1]
    assert len({usual[0], longer[0], others[0]}) == 3
    settings = compose_settings(f"method={name}")
    assert method_named(name).draws(settings) == (name != "lora")
    check_method(settings)


@pytest.mark.parametrize("name", NAMES)
def test_trained_methods_run_through_the_stages(name: str, run: Run) -> None:
    words = (f"method={name}", *FEW, "method.first_step=1", "method.params.scale=30")
    words += ("method.params.images=2",) if name in ("latent_direction", "lora") else ("method.params.refresh=1",)
    folder = run("fit", *words)
    cost = json.loads((folder / "cost.json").read_text())
    assert cost["images"] == (4 if "images=2" in words[-1] else 8)
    assert not list(folder.glob("*training*")) and not list(folder.glob("latents*"))
    assert pixels(run("steer", *words)) != pixels(run("originals"))
