"""What an attribute classifier can judge, read from its folder without loading the network."""

import json
from pathlib import Path

CONFIG_NAME = "config.json"


def read_attributes(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the classifier's attributes with their options, in the order of its logits."""
    config = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    return {name: tuple(options) for name, options in config["attributes"].items()}


def option_columns(known: dict[str, tuple[str, ...]], attribute: str, options: dict[str, list[str]]) -> list[int]:
    """Return where the options stand among the classifier's; raises ValueError listing what it knows."""
    if attribute not in known:
        raise ValueError(f"The attribute classifier cannot judge {attribute!r}; it knows: {', '.join(known)}.")
    unknown = [option for option in options if option not in known[attribute]]
    if unknown:
        raise ValueError(
            f"The attribute classifier has no {attribute} {unknown}; it knows: {', '.join(known[attribute])}."
        )
    return [known[attribute].index(option) for option in options]
