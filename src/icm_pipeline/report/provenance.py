"""What made a run's artifacts: stages, keys, times, devices, code, libraries, settings."""

from collections.abc import Iterable
from dataclasses import dataclass

from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import Manifest
from icm_pipeline.text import setting_text, time_text


@dataclass(frozen=True)
class Made:
    """How an artifact was made."""

    stage: str
    key: str
    made: str
    """When, in UTC."""
    took: str
    device: str
    code: str
    settings: list[tuple[str, str]]
    """What its key stands for: settings, and hashes of weights."""


@dataclass(frozen=True)
class Provenance:
    """How a run's artifacts were made."""

    rows: list[Made]
    libraries: str
    """Those of the last artifact."""


def provenance(artifacts: Iterable[Artifact]) -> Provenance:
    """Return how artifacts were made, in their order."""
    manifests = [artifact.manifest for artifact in artifacts]
    last = manifests[-1] if manifests else Manifest("", "")
    libraries = [f"{name} {version}" for name, version in last.libraries.items()]
    on = f"Python {last.python} on {last.machine}"
    return Provenance([_made(manifest) for manifest in manifests], ", ".join([*libraries, on]))


def _made(manifest: Manifest) -> Made:
    device, name = manifest.device, manifest.device_name
    seconds = manifest.seconds + sum(share.seconds for share in manifest.shares)
    return Made(
        manifest.stage, manifest.key, manifest.created.replace("T", " ").removesuffix("Z"), time_text(seconds),
        f"{device} ({name})" if name else device, manifest.code_text,
        [
            *((setting, setting_text(value)) for setting, value in manifest.config.items()),
            *((f"weights of {setting}", digest) for setting, digest in manifest.settings.get("weights", {}).items()),
        ],
    )  # fmt: skip
