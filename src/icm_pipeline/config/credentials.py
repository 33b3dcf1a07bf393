"""Keys, tokens and passwords in a configuration: found before Hydra, a manifest or a tracker writes them down."""

import os
import re
from collections.abc import Iterator
from typing import Any

NAME = re.compile(r"(?i)(^|[._+~])(api_?key|access_?key|token|secret|password|passwd|credentials?)$")
# Hub tokens, W&B's newer keys and common services' keys, and a password in an address.
TEXT = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bwandb_v\d_\w{20,}|\bsk-[\w-]{20,}|\bgh[opsu]_\w{30,}|://[^/\s:@$]+:[^/\s@$]+@"
)
SHORTEST = 8  # characters; a shorter value of the environment turns up in innocent words


def find_secret(config: Any) -> str | None:
    """Return the dotted name of a value that is a secret by its name or looks, or is one of the environment's.

    config: mappings and lists of plain values; a reference to the environment that is not resolved yet is no secret.
    """
    known = [value for name, value in os.environ.items() if NAME.search(name) and len(value) >= SHORTEST]
    for name, value in _leaves(config, ""):
        if "${" in value or value in ("", "null"):
            continue
        if NAME.search(name) or TEXT.search(value) or any(secret in value for secret in known):
            return name
    return None


def _leaves(config: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield every value with its dotted name, and words of the command line with what they set."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(config, list):
        for value in config:
            word, is_set, text = str(value).partition("=")
            yield from [(word, text)] if is_set and name.startswith("hydra.overrides") else _leaves(value, name)
    elif config is not None:
        yield name, str(config)
