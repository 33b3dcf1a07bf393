"""`icm check-model`: whether a pipeline keeps what its family promises, and the family's file where there is none."""

import argparse
import sys
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.cli.models import add_module, import_own
from icm_pipeline.config.choices import DTYPES, EMBEDDED
from icm_pipeline.zoo.paths import local_folder


def run_check(words: Sequence[str]) -> int:
    """Check a pipeline and return the exit code: 0 if every promise is kept, 1 if one is not or none can be tried."""
    arguments = _parser().parse_args(words)
    try:
        return _check(arguments, import_own(arguments.module))
    except (BackboneError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "icm check-model",
        description="Run a pipeline and say whether steering and recording would act on the right rows and tokens. Of "
        "a class that is not known, print the file of a family to start from.",
    )
    parser.add_argument("model", help="a folder with model_index.json, or a class of diffusers, built tiny and random")
    parser.add_argument("--family", help="what to take the pipeline for: a known family's name")
    parser.add_argument("--explain", action="store_true", help="measure the layout of a class that is known, too")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps of a run (default: 2)")
    parser.add_argument("--size", type=int, help="pixels of a side (default: 16 times the autoencoder's factor)")
    parser.add_argument("--device", default="cpu", help="of a folder's pipeline (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of a folder's pipeline (default: float32)")
    parser.add_argument(
        "--call", action="append", default=[], metavar="NAME=VALUE", help="a further argument of the pipeline's call"
    )
    add_module(parser)
    return parser


def _check(arguments: argparse.Namespace, modules: Sequence[ModuleType]) -> int:
    from icm_pipeline.backbones.registry import attach
    from icm_pipeline.checking.calling import Caller
    from icm_pipeline.checking.explaining import explain

    for option in ("steps", "size"):
        if (value := getattr(arguments, option)) is not None and value < 1:
            raise BackboneError(f"--{option} {value}: give 1 or more.")
    pipe, texts = _pipeline(arguments, modules)
    caller = Caller(pipe, arguments.steps, arguments.size, texts, dict(map(argument_of, arguments.call)))
    name = type(pipe).__name__
    if not arguments.explain:
        try:
            backbone = attach(pipe, family=arguments.family)
            print(f"{name} is of the family {backbone.family.name}.")
            return _promises(backbone, caller)
        except BackboneError as error:
            if arguments.family or "is not known" not in str(error):
                raise
            print(f"{name} is of no family that is known; its layout is measured.")
    found = explain(caller)
    if found.open_questions:
        print("\n".join(found.open_questions), file=sys.stderr)
        print(f"error: no family of {name} can be written without these answers.", file=sys.stderr)
        return 1
    print(found.source())
    return _promises(attach(pipe, family=found.family()), caller)


def argument_of(word: str) -> tuple[str, Any]:
    """Return a name and its value, a text where it is no number, list or the like; raises BackboneError for none."""
    name, sign, value = word.partition("=")
    if not sign:
        raise BackboneError(f"--call {word} has no value: write {word}=<value>.")
    try:
        return name, literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _pipeline(arguments: argparse.Namespace, modules: Sequence[ModuleType]) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return the pipeline of a folder, or a tiny one of a class with the arguments that give it texts."""
    from icm_pipeline.backbones.loading import open_folder
    from icm_pipeline.backbones.random_pipelines import random_pipeline

    is_embedded = arguments.model.startswith(EMBEDDED)
    folder = local_folder(arguments.model) if is_embedded else Path(arguments.model)
    if folder is not None and folder.is_dir():
        own = {name: value for module in modules for name, value in vars(module).items() if isinstance(value, type)}
        return open_folder(folder, own, arguments.device, arguments.dtype), {}
    if (arguments.device, arguments.dtype) != ("cpu", "float32"):
        raise BackboneError("A class is built on the CPU in float32: --device and --dtype are for folders.")
    return random_pipeline(arguments.model)


def _promises(backbone: Backbone, caller: Any) -> int:
    """Print each promise as it is tried; return 1 if one is not kept."""
    from icm_pipeline.checking.properties import check

    kept = True
    for finding in check(backbone, caller):
        print(f"{'FAILED' if finding.problem else 'ok    '}  {finding.promise}", flush=True)
        if finding.problem:
            print(f"        {finding.problem}")
            kept = False
    layers = f"{len(backbone.layers)} layers, {backbone.layers[0]} to {backbone.layers[-1]}"
    print(f"{'All kept' if kept else 'Not all kept'}: {layers}.")
    return 0 if kept else 1
