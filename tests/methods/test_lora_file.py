"""A LoRA file: what diffusers' own loader makes of it is the fold, and what no LoRA can hold is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import icm_pipeline
from icm_pipeline.backbones import registry
from icm_pipeline.backbones.families.stable_diffusion import STABLE_DIFFUSION
from icm_pipeline.backbones.registry import attach
from icm_pipeline.cli.export import run_export
from icm_pipeline.methods import lora_file
from icm_pipeline.methods.folding import FoldingError
from icm_pipeline.methods.lora_file import METADATA, LoraFile
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers import tiny
from tests.helpers.denoisers import TINY
from tests.helpers.folding import (
    FOLDABLE,
    NUM_STEPS,
    UNET_BLOCK,
    close,
    constant_vectors,
    every_row_shifted,
    make,
    quiet,
)

pytest.importorskip("peft")
GIVEN = {"alpha": 2.0, "alpha_unit": "activation"}
SINGLE_BLOCK = "single_transformer_blocks.0.attn"
LOADABLE = ("sd", "sdxl", "sana", "sd3", "flux")


def exported(pipe: Any, vectors: SteeringVectors, path: Path, **changed: Any) -> LoraFile:
    return vectors.export_lora(path, "man", pipe=pipe, **{**GIVEN, **changed})


def loaded(pipe: Any, vectors: SteeringVectors, folder: Path, **changed: Any) -> LoraFile:
    """Write the file and load it by diffusers' own loader, as the adapter `man`."""
    written = exported(pipe, vectors, folder / "man.safetensors", **changed)
    pipe.load_lora_weights(folder / "man.safetensors", adapter_name="man")
    return written


def folded(pipe: Any, vectors: SteeringVectors, alpha: float, guidance_scale: float = 1.0) -> Tensor:
    with icm_pipeline.fold(pipe, vectors, "man", alpha=alpha, alpha_unit="activation", both_halves=True):
        return make(pipe, guidance_scale)


@pytest.fixture
def pipe() -> Any:
    return quiet("sd")


@pytest.fixture
def vectors(pipe: Any) -> SteeringVectors:
    return constant_vectors(pipe, FOLDABLE["sd"])


@pytest.mark.parametrize("family", LOADABLE)
def test_the_file_is_the_fold_with_guidance_too_and_leaves_nothing_when_it_is_unloaded(
    family: str, tmp_path: Path
) -> None:
    pipe = quiet(family)
    vectors, plain = constant_vectors(pipe, FOLDABLE[family]), make(pipe, 5.0)
    wanted = folded(pipe, vectors, 2.0, 5.0)
    written = loaded(pipe, vectors, tmp_path)
    assert (len(written.modules), written.moving_text) == (len(FOLDABLE[family]), ())
    close(make(pipe, 5.0), wanted)
    assert not torch.allclose(wanted, plain, atol=1e-3)
    pipe.unload_lora_weights()
    assert torch.equal(make(pipe, 5.0), plain)


def test_a_weight_scales_the_shift_and_none_of_it_is_the_plain_picture(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path
) -> None:
    plain = make(pipe)
    wanted = {weight: folded(pipe, vectors, 2.0 * weight) for weight in (0.5, 2.0, -1.0)}
    loaded(pipe, vectors, tmp_path)
    for weight, expected in wanted.items():
        pipe.set_adapters(["man"], [weight])
        close(make(pipe), expected)
    pipe.set_adapters(["man"], [0.0])
    assert torch.equal(make(pipe), plain)


def test_the_adapter_is_fused_and_taken_out_again(pipe: Any, vectors: SteeringVectors, tmp_path: Path) -> None:
    plain, wanted = make(pipe), folded(pipe, vectors, 2.0)
    loaded(pipe, vectors, tmp_path)
    pipe.fuse_lora(components=["unet"])
    close(make(pipe), wanted)
    pipe.unfuse_lora(components=["unet"])
    close(make(pipe), wanted)  # loaded still
    pipe.unload_lora_weights()
    close(make(pipe), plain)


def test_another_file_takes_the_place_of_a_loaded_one(pipe: Any, vectors: SteeringVectors, tmp_path: Path) -> None:
    wanted = folded(pipe, vectors, 3.0)
    loaded(pipe, vectors, tmp_path)
    exported(pipe, vectors, tmp_path / "more.safetensors", alpha=3.0)
    pipe.load_lora_weights(tmp_path / "more.safetensors", adapter_name="man", hotswap=True)
    close(make(pipe), wanted)


def test_a_second_lora_of_somebody_elses_adds_what_it_adds(pipe: Any, vectors: SteeringVectors, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    pipe.unet.add_adapter(
        peft.LoraConfig(r=2, target_modules=["attn1.to_q", "attn1.to_out.0"], init_lora_weights=False), "other"
    )
    with icm_pipeline.fold(pipe, vectors, "man", both_halves=True, **GIVEN):
        wanted = make(pipe)
    loaded(pipe, vectors, tmp_path)
    pipe.set_adapters(["other", "man"], [1.0, 1.0])
    close(make(pipe), wanted)


def test_a_single_block_of_flux_is_shifted_behind_its_projection_text_tokens_too(tmp_path: Path) -> None:
    pipe = quiet("flux")
    vectors = constant_vectors(pipe, [SINGLE_BLOCK])
    with every_row_shifted(pipe.transformer, {SINGLE_BLOCK: 2.0 * vectors.directions[SINGLE_BLOCK][0, 1]}):
        wanted = make(pipe)
    with icm_pipeline.steer(pipe, vectors, "man", **GIVEN):
        images_alone = make(pipe)
    written = loaded(pipe, vectors, tmp_path)
    assert written.modules == written.moving_text == ("single_transformer_blocks.0.proj_out",)
    close(make(pipe), wanted)
    assert not torch.allclose(images_alone, wanted, atol=1e-4)


def test_a_lora_that_is_live_on_the_map_behind_a_single_block_is_refused_until_it_is_off(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    pipe = quiet("flux")
    vectors = constant_vectors(pipe, [SINGLE_BLOCK])
    exported(pipe, vectors, tmp_path / "before.safetensors")
    target = "single_transformer_blocks.0.proj_out"
    pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False), "other")
    with pytest.raises(FoldingError, match=rf"A LoRA is live on {target}.*disable_lora\(\)"):
        exported(pipe, vectors, tmp_path / "live.safetensors")
    pipe.disable_lora()
    exported(pipe, vectors, tmp_path / "off.safetensors")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("before", "off"))
    assert one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)


def test_a_layer_without_a_bias_gets_one_of_its_own(tmp_path: Path) -> None:
    pipe = quiet("z_image")
    vectors = constant_vectors(pipe, ["layers.0.attention"])
    with every_row_shifted(
        pipe.transformer, {"layers.0.attention": 2.0 * vectors.directions["layers.0.attention"][0, 1]}
    ):
        wanted = make(pipe)
    assert loaded(pipe, vectors, tmp_path).moving_text == ("layers.0.attention.to_out.0",)
    close(make(pipe), wanted)


LOADERS = [name for name, each in TINY.items() if hasattr(getattr(diffusers, each.pipeline), "load_lora_weights")]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_the_loader_of_every_family_shifts_what_the_file_names(name: str, tmp_path: Path) -> None:
    try:
        pipe = tiny.build(TINY[name])
    except ImportError as error:
        pytest.skip(str(error))
    backbone, files = attach(pipe), dict[str, Path]()
    for kind in dict.fromkeys(site.kind for site in backbone.sites):
        layer = [site.layer for site in backbone.sites if site.kind == kind][-1]
        with icm_pipeline.record(pipe, layers=[layer], num_images=4) as seen:
            plain = tiny.make(TINY[name], pipe)
        width = seen.recordings[0].activations[layer].shape[-1]
        vectors = SteeringVectors(
            directions={layer: torch.full((1, 2, width), width**-0.5)}, mean_norms={layer: torch.ones(1)}, steps=(0,),
            noise_levels=(1.0,), options=("woman", "man"), model="random", attribute="gender",
        )  # fmt: skip
        try:
            written = exported(pipe, vectors, tmp_path / f"{kind}.safetensors")
        except FoldingError:
            continue
        files[kind] = written.path
        shifts = {
            name: load_file(written.path)[f"{backbone.family.denoiser}.{name}.lora_B.bias"] for name in written.modules
        }
        with every_row_shifted(backbone.denoiser, shifts):
            wanted = tiny.make(TINY[name], pipe)
        pipe.load_lora_weights(written.path)
        close(tiny.make(TINY[name], pipe), wanted)
        pipe.unload_lora_weights()
        assert not torch.equal(wanted, plain)
        assert torch.equal(tiny.make(TINY[name], pipe), plain)
    if not files:
        pytest.skip("no layer that a file reaches")


def test_the_file_holds_tensors_alone_and_says_what_it_is(pipe: Any, vectors: SteeringVectors, tmp_path: Path) -> None:
    exported(pipe, vectors, tmp_path / "man.safetensors")
    start = f"unet.{UNET_BLOCK}.attn1.to_out.0"
    tensors = load_file(tmp_path / "man.safetensors")
    assert len(tensors) == 3 * len(vectors.layers)
    assert (tensors[f"{start}.lora_A.weight"].shape, tensors[f"{start}.lora_B.weight"].shape) == ((1, 64), (64, 1))
    assert not tensors[f"{start}.lora_A.weight"].any() and not tensors[f"{start}.lora_B.weight"].any()
    torch.testing.assert_close(tensors[f"{start}.lora_B.bias"], 2.0 * vectors.directions[vectors.layers[0]][0, 1])
    with safe_open(tmp_path / "man.safetensors", "pt") as file:
        about = json.loads(file.metadata()[METADATA])
    assert (about["option"], about["alpha"], about["alpha_unit"]) == ("man", 2.0, "activation")
    with pytest.raises(ValueError, match="holds no steering vectors"):
        icm_pipeline.load_vectors(tmp_path / "man.safetensors")


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_without_a_pipeline_the_model_that_the_vectors_know_gives_the_same_file(family: str, tmp_path: Path) -> None:
    pipe = quiet(family)
    vectors = constant_vectors(pipe, [SINGLE_BLOCK] if family == "flux" else FOLDABLE[family])
    pipe.save_pretrained(tmp_path / "model")
    exported(pipe, vectors, tmp_path / "loaded.safetensors")
    known = replace(vectors, made_with={"path": str(tmp_path / "model")})
    exported(None, known, tmp_path / "hollow.safetensors")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("loaded", "hollow"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-6)


class OwnPipeline(diffusers.StableDiffusionPipeline):
    def __call__(self) -> None: ...


def test_the_command_takes_the_folder_of_every_class_that_can_be_attached_to(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    vectors.save(tmp_path / "vectors.safetensors")
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]}
    pipe.unet.save_config(tmp_path / "unet")

    def export(name: str) -> int:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name, **index}))
        words = [tmp_path / "vectors.safetensors", tmp_path / f"{name}.safetensors", "--model", tmp_path]
        return run_export([*map(str, words), "--option", "man", "--alpha", "2"])

    assert export("StableDiffusionImg2ImgPipeline") == 0
    assert export("OwnPipeline") == 1
    assert "__call__ of its own" in capsys.readouterr().err
    own = replace(STABLE_DIFFUSION, name="own", pipelines=("OwnPipeline",), also=())
    monkeypatch.setattr(registry, "OWN", [own])
    assert export("OwnPipeline") == 0
    assert export("NobodysPipeline") == 1
    assert "neither diffusers nor an imported module defines" in capsys.readouterr().err
    exported(pipe, vectors, tmp_path / "loaded.safetensors")
    wanted = load_file(tmp_path / "loaded.safetensors")
    for name in ("StableDiffusionImg2ImgPipeline", "OwnPipeline"):
        found = load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[each], wanted[each]) for each in wanted)


@pytest.mark.parametrize("name", ["qwen_image", "flux2", "flux_kontext"])
def test_the_folder_of_a_class_that_is_only_attached_to_gives_the_same_file(name: str, tmp_path: Path) -> None:
    pipe = tiny.build(TINY[name])
    layer = next(site.layer for site in attach(pipe).sites if site.layer.endswith("0.attn"))
    width = pipe.transformer.get_submodule(layer).to_out[0].out_features
    vectors = SteeringVectors(
        directions={layer: torch.full((1, 2, width), width**-0.5)}, mean_norms={layer: torch.ones(1)}, steps=(0,),
        noise_levels=(1.0,), options=("woman", "man"), model="random", attribute="gender",
    )  # fmt: skip
    pipe.transformer.save_config(tmp_path / "transformer")
    index = {"_class_name": type(pipe).__name__, "transformer": ["diffusers", type(pipe.transformer).__name__]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    exported(pipe, vectors, tmp_path / "loaded.safetensors")
    exported(None, replace(vectors, made_with={"path": str(tmp_path)}), tmp_path / "hollow.safetensors")
    one, other = (load_file(tmp_path / f"{each}.safetensors") for each in ("loaded", "hollow"))
    assert one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)


@pytest.mark.parametrize("made_with", [{}, {"path": "nobody/nothing"}])
def test_vectors_of_a_model_that_is_not_here_want_a_pipeline(
    vectors: SteeringVectors, made_with: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="give pipe=, or to `icm export` --model FOLDER"):
        exported(None, replace(vectors, made_with=made_with), tmp_path / "man.safetensors")


def turned(vectors: SteeringVectors) -> SteeringVectors:
    """Return vectors with a direction of its own for each step."""
    generator = torch.Generator().manual_seed(1)
    directions = {name: torch.randn(v.shape, generator=generator) for name, v in vectors.directions.items()}
    return replace(
        vectors, directions={name: torch.nn.functional.normalize(v, dim=-1) for name, v in directions.items()}
    )


def test_what_differs_from_step_to_step_is_refused_until_it_is_averaged(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path
) -> None:
    path, per_step = tmp_path / "man.safetensors", turned(vectors)
    with pytest.raises(FoldingError, match=r"vectors\.averaged\(\)"):
        exported(pipe, per_step, path)
    with pytest.raises(FoldingError, match=r"averaged\(lengths=True\)"):
        exported(pipe, per_step.averaged(), path, alpha_unit="relative")
    with pytest.raises(FoldingError, match=r"window=\(0, None\)"):
        exported(pipe, vectors, path, window=(1, None))
    assert not list(tmp_path.iterdir())
    exported(pipe, per_step.averaged(lengths=True), path, alpha_unit="relative")
    assert path.exists()


@pytest.mark.parametrize(
    ("factor", "alpha", "reason"),
    [(1.0, 1e39, "infinite in float32"), (math.nan, 2.0, "NaN or infinite"), (0.0, 2.0, "direction of .* to man is 0")],
)
def test_a_shift_that_is_not_finite_or_nothing_is_neither_written_nor_folded(
    pipe: Any, vectors: SteeringVectors, factor: float, alpha: float, reason: str, tmp_path: Path
) -> None:
    changed = replace(vectors, directions={layer: factor * values for layer, values in vectors.directions.items()})
    with pytest.raises(FoldingError, match=reason):
        exported(pipe, changed, tmp_path / "man.safetensors", alpha=alpha)
    with pytest.raises(FoldingError, match=reason):
        icm_pipeline.fold(pipe, changed, "man", both_halves=True, **{**GIVEN, "alpha": alpha})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "layer", "reason"),
    [
        ("pixart", "transformer_blocks.0.attn1", r"no load_lora_weights\(\)"),
        ("sana", "transformer_blocks.0.ff", "no linear map"),
        ("flux", "transformer_blocks.0.attn@gate", "gate"),
    ],
)
def test_a_layer_that_no_lora_file_reaches_is_refused(family: str, layer: str, reason: str, tmp_path: Path) -> None:
    vectors = SteeringVectors(
        directions={layer: torch.ones(1, 2, 32)}, mean_norms={layer: torch.ones(1)}, steps=(0,), noise_levels=(1.0,),
        options=("woman", "man"), model="random", attribute="gender",
    )  # fmt: skip
    with pytest.raises(FoldingError, match=reason):
        exported(quiet(family), vectors, tmp_path / "man.safetensors")


def test_the_comfyui_flavour_has_the_same_shifts_by_its_own_names(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path
) -> None:
    written = exported(pipe, vectors, tmp_path / "comfyui.safetensors", flavour="comfyui")
    exported(pipe, vectors, tmp_path / "diffusers.safetensors")
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("diffusers", "comfyui"))
    assert list(theirs) == sorted(f"lora_unet_{name.replace('.', '_')}.diff_b" for name in written.modules)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.diff_b" in theirs
    for name in written.modules:
        assert torch.equal(ours[f"unet.{name}.lora_B.bias"], theirs[f"lora_unet_{name.replace('.', '_')}.diff_b"])


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_comfyui_names_of_a_unet_are_kohyas_as_diffusers_reads_them(family: str, tmp_path: Path) -> None:
    pipe = quiet(family)
    layers = [site.layer for site in attach(pipe).sites]
    written = exported(pipe, constant_vectors(pipe, layers), tmp_path / "man.safetensors", flavour="comfyui")
    names = [name.removesuffix(".diff_b") for name in load_file(tmp_path / "man.safetensors")]
    widths = {f"lora_unet_{name.replace('.', '_')}": pipe.unet.get_submodule(name) for name in written.modules}
    kohyas = {f"{name}.lora_down.weight": torch.zeros(1, widths[name].in_features) for name in names}
    kohyas |= {f"{name}.lora_up.weight": torch.zeros(widths[name].out_features, 1) for name in names}
    pipe.load_lora_weights(kohyas, adapter_name="man")
    found = {name for name, part in pipe.unet.named_modules() if "man" in getattr(part, "lora_A", {})}
    assert found == set(written.modules)
    assert len(written.modules) == len(layers)


def test_the_comfyui_flavour_of_flux_has_names_of_diffusers_and_others_are_refused(tmp_path: Path) -> None:
    flux = quiet("flux")
    exported(
        flux, constant_vectors(flux, [*FOLDABLE["flux"], SINGLE_BLOCK]), tmp_path / "man.safetensors", flavour="comfyui"
    )
    assert load_file(tmp_path / "man.safetensors").keys() == {
        "transformer.transformer_blocks.0.attn.to_out.0.diff_b",
        "transformer.transformer_blocks.0.ff.net.2.diff_b",
        "transformer.single_transformer_blocks.0.proj_out.diff_b",
    }
    sana = quiet("sana")
    with pytest.raises(FoldingError, match="ComfyUI calls the layers of sana"):
        exported(sana, constant_vectors(sana, FOLDABLE["sana"]), tmp_path / "other.safetensors", flavour="comfyui")
    with pytest.raises(ValueError, match="flavour='kohya'"):
        exported(sana, constant_vectors(sana, FOLDABLE["sana"]), tmp_path / "other.safetensors", flavour="kohya")


def test_a_write_that_fails_leaves_the_file_that_was_there(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "man.safetensors"
    exported(pipe, vectors, path)
    before = path.read_bytes()

    def half(tensors: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(lora_file, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        exported(pipe, vectors, path, alpha=3.0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_but_a_lora_of_ours_is_written_over_and_a_target_that_cannot_be_is_named(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "vectors.safetensors"
    replace(vectors, made_with={"path": "nobody/nothing"}).save(kept)
    (tmp_path / "text.safetensors").write_text("somebody's")
    before = kept.read_bytes()
    assert run_export([str(kept), str(kept), "--option", "man", "--alpha", "2"]) == 1
    assert f"{kept} is there already and is no LoRA file of ours" in capsys.readouterr().err
    for target, reason in (
        ("text.safetensors", "is there already"),
        (".", "is a folder: name a file in it"),
        ("man", r"does not end in \.safetensors"),
        ("missing/man.safetensors", f"there is no folder {tmp_path / 'missing'}"),
    ):
        with pytest.raises(ValueError, match=f"{tmp_path / target} .*{reason}"):
            exported(pipe, vectors, tmp_path / target)
    assert kept.read_bytes() == before
    assert (tmp_path / "text.safetensors").read_text() == "somebody's"
    for alpha in (1.0, 2.0):
        exported(pipe, vectors, tmp_path / "man.safetensors", alpha=alpha)
    assert len(list(tmp_path.iterdir())) == 3


def test_averaged_lengths_are_one_for_all_steps_and_directions_alone_keep_theirs(vectors: SteeringVectors) -> None:
    layer = vectors.layers[0]
    for lengths in (False, True):
        norms = vectors.averaged(lengths=lengths).mean_norms[layer]
        assert torch.equal(norms, vectors.mean_norms[layer]) != lengths
    torch.testing.assert_close(norms, vectors.mean_norms[layer].mean().expand(NUM_STEPS))


def test_the_command_writes_the_file_and_says_what_would_make_it_constant(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe.save_pretrained(tmp_path / "model")
    used = replace(turned(vectors), strength=Strength(2.0, "relative", 0, 1, NUM_STEPS))
    used.save(tmp_path / "vectors.safetensors")
    file = tmp_path / "man.safetensors"
    words = [str(tmp_path / "vectors.safetensors"), str(file), "--option", "man", "--model", str(tmp_path / "model")]
    assert run_export(words) == 1
    said = capsys.readouterr().err
    assert "--constant" in said and "steer()" not in said and not file.exists()
    assert run_export([*words, "--constant"]) == 0
    assert "man in 3 layers" in capsys.readouterr().out
    layer = vectors.layers[0]
    shift = load_file(file)[f"unet.{layer}.to_out.0.lora_B.bias"]
    torch.testing.assert_close(shift.norm(), 2.0 * vectors.mean_norms[layer].mean())
    assert run_export([*words, "--constant", "--option", "child"]) == 1
    assert "woman, man" in capsys.readouterr().err


def test_vectors_that_were_used_with_tokens_lengths_kept_are_exported_without(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = replace(vectors, strength=Strength(2.0, "activation", norm_preserving=True))
    with pytest.raises(FoldingError, match="Give norm_preserving=False"):
        exported(pipe, used, tmp_path / "man.safetensors")
    exported(pipe, used, tmp_path / "man.safetensors", norm_preserving=False)
    pipe.unet.save_config(tmp_path / "unet")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    replace(used, made_with={"path": str(tmp_path)}).save(tmp_path / "vectors.safetensors")
    words = [str(tmp_path / "vectors.safetensors"), str(tmp_path / "command.safetensors"), "--option", "man"]
    assert run_export(words) == 1
    said = capsys.readouterr().err
    assert "--no-norm-preserving" in said and "steer()" not in said
    assert run_export([*words, "--no-norm-preserving"]) == 0
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("man", "command"))
    assert one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)
