"""Modules of a denoiser, compiled or not."""

from torch import nn


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that torch.compile wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)


def is_compiled(module: nn.Module) -> bool:
    """Say whether calling a module runs what torch.compile or the module's own compile() made of it or its forward."""
    by_forward = hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    return uncompiled(module) is not module or module._compiled_call_impl is not None or by_forward


def path_to(module: nn.Module, name: str) -> list[nn.Module]:
    """Return the modules from one down to a named one inside it, both included."""
    way = [module]
    for word in name.split("."):
        inside = way[-1]._modules.get(word)  # diffusers' own getattr is slow, and this is asked of hundreds of layers
        way.append(getattr(way[-1], word) if inside is None else inside)
    return way


def merges_tokens(module: nn.Module) -> bool:
    """Say whether tomesd is on: its blocks give some layers fewer tokens, of which one may stand for several."""
    return any(type(part).__name__ == "ToMeBlock" for part in uncompiled(module).modules())
