"""Files of weights: whether one is whole, told from its headers, and its tensors without running code."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
LFS_POINTER, ZIP, PICKLE = b"version https://git-lfs", b"PK\x03\x04", b"\x80"
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
PARALLEL = "module."  # begins the names of what DataParallel saved
AGAIN = "Copy or download it again."


def problem_of(path: Path) -> str:
    """Return what is wrong with a file of weights, or with a text that lies beside them; empty if it is whole.

    The words come after the file's name.
    """
    if not path.is_file():
        return "does not exist."
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return f"is an empty file. {AGAIN}"
    if head.startswith(LFS_POINTER):
        return "is a Git LFS pointer instead of the file itself. Run `git lfs pull` where it came from, or download it."
    if path.suffix == ".safetensors":
        return _problem_of_safetensors(path)
    if head.startswith(ZIP):
        return "" if is_zipfile(path) else f"is cut short. {AGAIN}"
    if path.suffix in PICKLED and not head.startswith(PICKLE):
        return f"is no checkpoint of PyTorch: it begins with {head[:16]!r}. {AGAIN}"
    return ""


def check_weights(path: Path, named: str = "") -> None:
    """Raise ValueError for a file that is not whole; `named` is what a message calls it, else its path."""
    if problem := problem_of(path):
        raise ValueError(f"{named or path} {problem}")


def read_shapes(path: Path, named: str = "", script: bool = False) -> dict[str, Shape]:
    """Return the shapes of a file's tensors by name, from its headers; raises ValueError as `read_tensors` does."""
    if path.suffix != ".safetensors":
        return {name: tuple(value.shape) for name, value in read_tensors(path, named, "meta", script).items()}
    check_weights(path, named)
    with safe_open(path, "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return {name.removeprefix(PARALLEL): shape for name, shape in shapes.items()}


def read_tensors(path: Path, named: str = "", device: str = "cpu", script: bool = False) -> "dict[str, Tensor]":
    """Return the tensors of safetensors, a state dict or a TorchScript archive by name; on `meta` of headers alone.

    script: whether an archive is opened, as OpenAI's CLIP has to be; it is always read whole. Raises ValueError for a
    file that is not whole and for one that holds more than tensors, which could run code.
    """
    import torch
    from safetensors.torch import load_file

    check_weights(path, named)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path, device)
        elif is_script_archive(path):
            if not script:
                raise UnpicklingError
            content = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            mapped = device == "meta" and is_zipfile(path)
            content = torch.load(path, map_location=device, weights_only=True, mmap=mapped or None)
    except UnpicklingError as error:
        raise ValueError(
            f"{named or path} holds more than tensors, which could run code when it is loaded, or is damaged. Where "
            "you trust it, load it and save its state_dict() again."
        ) from error
    except Exception as error:  # damaged bytes lead the readers anywhere
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{named or path} is cut short or damaged ({reason}). {AGAIN}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{named or path} holds no tensors by name. Give a state dict, or its tensors as safetensors.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name.removeprefix(PARALLEL): value for name, value in tensors.items()}


def read_tensor(folder: Path, name: str) -> "Tensor":
    """Return one tensor from whichever of a folder's safetensors files holds it; raises ValueError where none does."""
    for path in sorted(folder.glob("*.safetensors")):
        check_weights(path)
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (no mapping)
                return file.get_tensor(name)
    raise ValueError(f"No safetensors file in {folder} holds {name}.")


def is_script_archive(path: Path) -> bool:
    """Say whether a file is a TorchScript archive: a zip file with code inside."""
    if not path.is_file() or not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _problem_of_safetensors(path: Path) -> str:
    try:
        with safe_open(path, "np"):
            return ""
    except (SafetensorError, OSError) as error:
        return f"is cut short or no safetensors file ({error}). {AGAIN}"
