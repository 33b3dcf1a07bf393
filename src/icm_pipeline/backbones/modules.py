"""Modules of a denoiser, compiled or not."""

from collections.abc import Iterator

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


def has_module(whole: nn.Module, part: nn.Module) -> bool:
    """Say whether a module is another one, or inside of it."""
    return any(inside is part for inside in whole.modules())


def walk(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module inside one once, with its name; the names of compiled parts are without `_orig_mod`.

    nn.Module.named_modules passes each name up through a generator per level, which in a UNet of 1,900 modules takes
    longer than all else that `record` does beside the run.
    """
    waiting, met = [("", module)], {module}
    while waiting:
        prefix, inside = waiting.pop()
        yield prefix, inside
        if not inside._modules:
            continue
        start = f"{prefix}." if prefix else ""
        for name, child in reversed(inside._modules.items()):
            if child is not None and child not in met:
                met.add(child)
                waiting.append((prefix if name == "_orig_mod" else start + name, child))


def parts_of(module: nn.Module) -> list[nn.Module]:
    """Return every module inside one once, the module itself included, in no order of the network.

    It is asked before every run, and takes two thirds of the time that `walk` takes to tell names too.
    """
    met, waiting = {module: None}, [module]
    while waiting:
        children = vars(waiting.pop())["_modules"]
        for child in children.values() if children else ():
            if child is not None and child not in met:
                met[child] = None
                waiting.append(child)
    return list(met)


def splits_tokens(module: nn.Module) -> bool:
    """Say whether context parallelism is on: every process has a part of the tokens."""
    config = getattr(uncompiled(module), "_parallel_config", None)
    return getattr(config, "context_parallel_config", None) is not None


def merges_tokens(module: nn.Module) -> bool:
    """Say whether tomesd is on: its blocks give some layers fewer tokens, of which one may stand for several."""
    return any(type(part).__name__ == "ToMeBlock" for part in parts_of(uncompiled(module)))
