"""The small convolutional network behind `labeler=tiny`: one trunk, one linear head per attribute."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icm_pipeline.labelers.classifier_config import CONFIG_NAME, read_attributes

WEIGHTS_NAME = "model.safetensors"


class AttributeClassifier(nn.Module):
    """Pictures [b, 3, 64, 64] in -1..1 to logits per attribute {name: [b, num_options]}."""

    def __init__(self, attributes: dict[str, tuple[str, ...]], widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.attributes = attributes
        self.widths = widths
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, 128)
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(options)) for name, options in attributes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = nn.functional.silu(self.head(self.trunk(images).flatten(1)))
        return {name: head(features) for name, head in self.heads.items()}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        half = {key: value.half().contiguous() for key, value in self.state_dict().items()}
        save_file(half, folder / WEIGHTS_NAME)
        config = {"attributes": self.attributes, "widths": self.widths}
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")


def load_classifier(folder: Path) -> AttributeClassifier:
    """Load the network from its folder in float32, ready to evaluate."""
    widths = json.loads((folder / CONFIG_NAME).read_text("utf-8"))["widths"]
    model = AttributeClassifier(read_attributes(folder), tuple(widths))
    model.load_state_dict({key: value.float() for key, value in load_file(folder / WEIGHTS_NAME).items()})
    return model.eval()
