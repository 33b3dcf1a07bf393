"""`icm export`: steering vectors as a LoRA file, for users of diffusers or ComfyUI who have no code of ours."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from icm_pipeline.cli.models import add_module, import_own
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.store.shelf import read_shelf
from icm_pipeline.text import count_text, size_text

if TYPE_CHECKING:
    from icm_pipeline.methods.vectors import SteeringVectors

VECTORS = "vectors.safetensors"
CONSTANT = " Here --constant averages over the steps and takes all of them."
# What of an error tells that a flag of the command mends it.
HINTS = {
    "from step to step": CONSTANT,
    "at every step": CONSTANT,
    "norm_preserving=False": " Here --no-norm-preserving does.",
}


def run_export(words: Sequence[str]) -> int:
    """Write the file and return the exit code; what cannot be done is told in one line and returns 1."""
    arguments = _parser().parse_args(words)
    try:
        import_own(arguments.module)
        vectors = _vectors(arguments)
        window = (0, None) if arguments.constant else None
        if arguments.constant:
            vectors = vectors.averaged(lengths=True)
        written = vectors.export_lora(
            arguments.file, arguments.option, alpha=arguments.alpha, alpha_unit=arguments.alpha_unit, window=window,
            layers=arguments.layers, flavour=arguments.flavour, norm_preserving=arguments.norm_preserving,
        )  # fmt: skip
    except (ArtifactError, ValueError, OSError) as error:
        hint = next((hint for words, hint in HINTS.items() if words in str(error)), "")
        said = str(error) if not hint else str(error).partition(" Give ")[0]  # whose advice is for Python
        print(f"error: {said}{hint}", file=sys.stderr)
        return 1
    size = size_text(written.path.stat().st_size)
    print(f"{written.path}: {arguments.option} in {count_text(len(written.modules), 'layer')}, {size}")
    print("A LoRA shifts both halves of guidance, so that it takes an alpha of its own: docs/lora.md")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("icm export", description="Write steering vectors as a LoRA file.")
    parser.add_argument("vectors", help="a file of steering vectors, or the folder or key of a stage=steer artifact")
    parser.add_argument("file", help="the LoRA file to write, as woman.safetensors")
    parser.add_argument("--option", required=True, help="what to steer to, as woman")
    parser.add_argument("--alpha", type=float, help="how far (default: as the vectors were used last)")
    parser.add_argument("--alpha-unit", choices=("relative", "activation"), help="of alpha (default: as used last)")
    parser.add_argument("--layers", nargs="+", help="some of the layers (default: all)")
    parser.add_argument(
        "--constant", action="store_true",
        help="average directions and lengths over the steps, and shift at every step: all that a LoRA can hold",
    )  # fmt: skip
    parser.add_argument(
        "--no-norm-preserving", dest="norm_preserving", action="store_false", default=None,
        help="let tokens change their lengths (default: as used last, and keeping them is nothing that a LoRA can)",
    )  # fmt: skip
    parser.add_argument("--flavour", default="diffusers", help="diffusers (default) or comfyui")
    parser.add_argument("--model", help="the folder of the pipeline (default: the one that the vectors were made with)")
    add_module(parser)
    parser.add_argument("--outputs", default="outputs", metavar="FOLDER", help="where artifacts lie (default: outputs)")
    return parser


def _vectors(arguments: argparse.Namespace) -> "SteeringVectors":
    """Return the vectors of a file or an artifact, of the model that was given; raises ArtifactError and ValueError."""
    from icm_pipeline.methods.vectors import load_vectors

    path = Path(arguments.vectors)
    if not path.is_file():
        path = read_shelf(Path(arguments.outputs), kinds_of_stages()).find(arguments.vectors).path(VECTORS)
    found = load_vectors(path)
    return replace(found, made_with={"path": arguments.model}) if arguments.model else found
