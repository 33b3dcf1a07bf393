"""OpenAI's own CLIP files (ViT-L-14.pt): TorchScript archives, from which only the tensors are taken.

Opening one is not as safe as reading safetensors: torch.jit.load may run what the archive's code says of its loading.
"""

from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # sizes that OpenAI stored beside the weights


def is_script_archive(path: Path) -> bool:
    """Say whether a file is a TorchScript archive: a zip file with code inside."""
    if not path.is_file() or not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_script_archive(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive in float32; the model itself is not run."""
    state = torch.jit.load(path, map_location="cpu").state_dict()
    return {name: value.float() for name, value in state.items() if name not in NO_WEIGHTS}
