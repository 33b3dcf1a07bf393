"""Steering vectors on the hub: published with a card that says what they are, fetched by their repository's name.

Only calls that name a repository reach a network: by huggingface_hub, with its token, the hub that HF_ENDPOINT names.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from icm_pipeline.machine.hub import asked_once, hub_answers
from icm_pipeline.methods.vectors_card import About, card, named_publicly

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from icm_pipeline.methods.vectors import SteeringVectors

FILE_NAME, CARD = "vectors.safetensors", "README.md"
PICTURE = re.compile(r"pictures/\d+\.png")  # as they are published
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
Picture = str | Path | Image.Image
NO_TOKEN = "Log in with `hf auth login`, or set HF_TOKEN."


class HubError(ValueError):
    """The hub refused what was asked of it, or has no such thing; nothing was changed here."""


def is_hub_id(path: str | Path) -> bool:
    """Say whether a path is a repository's name, `user/name`, which no file or folder here has."""
    named = isinstance(path, str) and not path.endswith(".safetensors") and HUB_ID.fullmatch(path) is not None
    return named and not Path(path).exists()


def fetched(repo_id: str, revision: str | None = None) -> Path:
    """Return the local copy of a repository's vectors, from the hub's cache if it is there; raises HubError."""
    from huggingface_hub import hf_hub_download

    what = f"{repo_id} is no file here, and {FILE_NAME} could not be fetched from the hub's repository of that name"
    with _told(what), asked_once():
        return Path(hf_hub_download(repo_id, FILE_NAME, revision=revision))


def publish(
    vectors: "SteeringVectors", repo_id: str, about: About, pictures: Sequence[Picture], private: bool | None,
    token: str | None, message: str, replace_card: bool = False,
) -> str:  # fmt: skip
    """Put vectors, card and pictures into a repository in one commit, made if it is not there; return its address.

    Of what was published before, the licence stays unless another is given, and pictures go. replace_card: also write
    over a README.md that is none of ours. Raises HubError for a name that is none, without a token, for such a
    README.md, where the hub cannot be reached and where it refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    if not HUB_ID.fullmatch(repo_id):
        raise HubError(f"{repo_id!r} is no repository of the hub: give user/name.")
    files = {f"pictures/{index}.png": _png(picture) for index, picture in enumerate(pictures)}
    if not (token or get_token()):
        raise HubError(f"{repo_id} was not published: there is no token. {NO_TOKEN}")
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo_id} was not published: HF_HUB_OFFLINE keeps this program off the hub. Unset it.")
    if not hub_answers():
        raise HubError(f"{repo_id} was not published: the hub, {constants.ENDPOINT}, cannot be reached from here.")
    vectors, hub = named_publicly(vectors), HfApi(endpoint=constants.ENDPOINT, token=token)
    with _told(f"{repo_id} was not published"):
        hub.create_repo(repo_id, private=private, exist_ok=True)
        before = _published(hub, repo_id)
        if not (before.is_ours or replace_card):
            raise HubError(
                f"it has a {CARD} that icm_pipeline did not write. Take another repository, or lose that one: "
                "replace_card=True, of `icm push` --replace-card."
            )
        about = replace(about, license=about.license or before.license)
        files |= {FILE_NAME: vectors.to_bytes(), CARD: card(vectors, repo_id, about, list(files)).encode()}
        changes = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        gone = [CommitOperationDelete(path_in_repo=name) for name in before.pictures if name not in files]
        hub.create_commit(repo_id, [*changes, *gone], commit_message=message)
    return f"{constants.ENDPOINT}/{repo_id}"


@dataclass(frozen=True)
class _Published:
    """What a repository holds before something is published there."""

    is_ours: bool = True
    """Whether its card, if it has one, is of this package."""
    license: str | None = None
    pictures: tuple[str, ...] = ()
    """That a card of ours shows."""


def _published(hub: "HfApi", repo_id: str) -> _Published:
    from huggingface_hub import metadata_load

    there = [file.rfilename for file in hub.model_info(repo_id).siblings or ()]
    if CARD not in there:
        return _Published()
    about: dict[str, Any] = metadata_load(hub.hf_hub_download(repo_id, CARD, force_download=True)) or {}
    is_ours, license = about.get("library_name") == "icm_pipeline", about.get("license")
    pictures = tuple(name for name in there if PICTURE.fullmatch(name)) if is_ours else ()
    return _Published(is_ours, license if isinstance(license, str) else None, pictures)


def _png(picture: Picture) -> bytes:
    """Return a picture as PNG; raises HubError for a file that is none."""
    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        image.convert("RGB").save(content := io.BytesIO(), "PNG")
    except OSError as error:
        raise HubError(f"{picture} is no picture that can be published ({error}).") from error
    return content.getvalue()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raise what the hub's client says as a HubError: what failed, why, and what to do."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise HubError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    reasons: list[tuple[bool, str]] = [
        (isinstance(error, errors.LocalEntryNotFoundError), "the hub cannot be reached, and its cache here lacks it."),
        (isinstance(error, errors.RevisionNotFoundError), "the repository has no such revision."),
        (isinstance(error, errors.EntryNotFoundError), f"it has no {FILE_NAME}, so it holds no steering vectors."),
        (isinstance(error, errors.GatedRepoError), "access has to be asked for on the repository's page."),
        (
            isinstance(error, errors.RepositoryNotFoundError),
            f"there is no such repository, or it is private. {NO_TOKEN}",
        ),
        (status == 401, f"the hub does not know this token. {NO_TOKEN}"),
        (status == 403, f"this token may not write there; is the name before the slash yours? {NO_TOKEN}"),
    ]
    plain = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return next((reason for fits, reason in reasons if fits), plain)
