"""Train the attribute classifier, the embedded stand-in for FairFace: cross-entropy per attribute on renders."""

import torch
from torch import nn

from icm_pipeline.labelers.tiny import AttributeClassifier
from icm_pipeline.pretrain.augment import augment
from icm_pipeline.pretrain.autoencoder import to_tensor
from icm_pipeline.pretrain.dataset import Portraits
from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train
from icm_pipeline.pretrain.world import ATTRIBUTES, OCCUPATIONS


def train_classifier(portraits: Portraits, plan: TrainingPlan, run: TrainingRun) -> AttributeClassifier:
    """Train on the world's attributes and, as one more head, the occupation (the clothes)."""
    attributes = {**ATTRIBUTES, "occupation": tuple(OCCUPATIONS)}
    pixels = torch.from_numpy(portraits.pixels)
    labels = {name: torch.from_numpy(portraits.labels(name, options)) for name, options in attributes.items()}
    torch.manual_seed(plan.seed)
    model = AttributeClassifier(attributes)

    def loss(model: nn.Module, generator: torch.Generator) -> Loss:
        rows = torch.randint(len(pixels), (plan.batch_size,), generator=generator)
        images = augment(to_tensor(pixels[rows]).to(plan.device), generator)
        logits = model(images)
        losses = {
            name: nn.functional.cross_entropy(logits[name].float(), labels[name][rows].to(plan.device))
            for name in attributes
        }
        return torch.stack(list(losses.values())).sum(), losses

    train("classifier", model, loss, plan, run)
    return model
