"""Train the siblings of the embedded model: SDXL's, SANA's and FLUX's architecture on the same world.

A sibling is distilled (Hinton et al. 2015, arXiv 1503.02531): shown the same noisy latents and the same caption, it
learns to predict what the embedded UNet predicts instead of the noise that was added. The UNet's prediction is the mean
of what could have been added, so that a step teaches far more, and hours on a CPU become minutes. A sibling is taught
what to draw; how it does so, and in which layers, is its own architecture's.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from icm_pipeline.pretrain.dataset import Portraits
from icm_pipeline.pretrain.diffusion import Batches, NoiseSchedule, build_scheduler, use_quick_attention
from icm_pipeline.pretrain.students import STUDENTS, TIMESTEPS, Captions, XLStudent
from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train

LARGEST_GUIDANCE = 3.0


class Teacher:
    """The embedded model, frozen: reads captions and says what it would predict at a noisy latent."""

    def __init__(self, pipe: StableDiffusionPipeline, device: str) -> None:
        self.tokenizer: CLIPTokenizer = pipe.tokenizer
        self.text_encoder: CLIPTextModel = pipe.text_encoder.to(device).eval().requires_grad_(False)
        self._unet = pipe.unet.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def read(self, captions: list[str], silent: Tensor) -> Captions:
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").to(self._device)
        read = self.text_encoder(tokens.input_ids, output_hidden_states=True)
        final, pooled = read.last_hidden_state, read.pooler_output
        return Captions(tokens.input_ids, tokens.attention_mask, silent, read.hidden_states, final, pooled)

    @torch.no_grad()
    def predict(self, noisy: Tensor, timesteps: Tensor, captions: Captions) -> Tensor:
        prediction: Tensor = self._unet(noisy, timesteps, captions.final).sample
        return prediction

    @torch.no_grad()
    def predict_guided(self, noisy: Tensor, timesteps: Tensor, captions: Captions, guidance: Tensor) -> Tensor:
        """Return what classifier-free guidance of scale `guidance` [b] would make of the prediction."""
        conditional = self.predict(noisy, timesteps, captions)
        nothing = self.read([""], captions.silent[:1])
        empty = nothing.final.expand(len(noisy), -1, -1)
        unconditional: Tensor = self._unet(noisy, timesteps, empty).sample
        return unconditional + guidance.view(-1, 1, 1, 1) * (conditional - unconditional)


def flow_view(noisy: Tensor, velocity: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a variance-preserving sample and its v-prediction into a straight flow's.

    noisy = a x + s e with a^2 + s^2 = 1 and velocity = a e - s x, so that x = a noisy - s velocity and
    e = s noisy + a velocity. At the level s / (a + s) of the flow the same picture and noise make noisy / (a + s), and
    the flow's velocity is e - x. Returns (flow's sample, its velocity, its level in 0..1 [b]).
    """
    total = a + s
    return noisy / total, (s - a) * noisy + total * velocity, (s / total).flatten()


def load_student(student: nn.Module, folder: Path) -> None:
    """Give a student the weights of its own parts in a pipeline folder of the same architecture."""
    for name, part in student.named_children():
        kind: Any = type(part)  # diffusers' and transformers' parts, which share this method but no base that has it
        part.load_state_dict(kind.from_pretrained(folder / name, dtype=torch.float32).state_dict())


def train_sibling(
    name: str,
    portraits: Portraits,
    teacher_pipe: StableDiffusionPipeline,
    plan: TrainingPlan,
    run: TrainingRun,
    autoencoder: AutoencoderDC | None = None,
    start_from: Path | None = None,
) -> Any:
    """Distil the embedded model into the architecture of a sibling and return the sibling's whole pipeline.

    autoencoder: goes into the pipeline instead of the embedded model's, and shares its latents.
    start_from: a pipeline folder of the same architecture whose weights the training begins with.
    """
    teacher = Teacher(teacher_pipe, plan.device)
    student = STUDENTS[name](teacher.text_encoder, plan.seed)
    if start_from:
        load_student(student, start_from)
    if isinstance(student, XLStudent):
        use_quick_attention(student.unet, plan.device)
    schedule = NoiseSchedule(build_scheduler(), plan.device)
    source = Batches(portraits, teacher_pipe.vae, run.folder, plan)

    def loss(model: nn.Module, generator: torch.Generator) -> Loss:
        batch = source.draw(generator)
        guidance = 1 + (LARGEST_GUIDANCE - 1) * torch.rand(plan.batch_size, generator=generator).to(plan.device)
        captions = teacher.read(batch.captions, batch.silent)
        noisy, times = batch.noisy(schedule), batch.timesteps
        if student.guided:
            target = teacher.predict_guided(noisy, times, captions, guidance)
        else:
            target = teacher.predict(noisy, times, captions)
        level = times.float()
        if student.flow:
            noisy, target, sigma = flow_view(noisy, target, *schedule.at(times))
            level = TIMESTEPS * sigma
        predicted = model(noisy, level, guidance, captions).float()
        return (predicted - target).square().mean(), {}

    train(name, student, loss, plan, run)
    return student.pipeline(autoencoder or teacher_pipe.vae, teacher.text_encoder, teacher.tokenizer)
