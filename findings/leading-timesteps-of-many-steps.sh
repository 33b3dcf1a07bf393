#!/bin/sh
# With timestep_spacing="leading", more steps can begin at less noise, without a word: DDIM and Euler begin 500 steps at timestep
# 998 and 501 at 500, though the image begins as pure noise in both. 1000 steps of DPM-Solver++, UniPC, DEIS and SA-Solver are
# timestep 0 a thousand times, and a run of them raises at its last step; 999 steps work.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import torch

STEPS = (500, 501, 999, 1000)
ONE_STEP = ["DDIMScheduler", "EulerDiscreteScheduler"]
MULTISTEP = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"]


def planned(name, num_steps):
    scheduler = getattr(diffusers, name)(timestep_spacing="leading")
    scheduler.set_timesteps(num_steps)
    return scheduler


def schedule(name, num_steps):
    timesteps = planned(name, num_steps).timesteps.tolist()
    return round(timesteps[0]), len(set(timesteps))


def run(name, num_steps):
    """What comes of pure noise, with a denoiser to which the image is all zeros."""
    scheduler = planned(name, num_steps)
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for number, timestep in enumerate(scheduler.timesteps, start=1):
        noise = sample / (1 - scheduler.alphas_cumprod[timestep]).sqrt()
        try:
            sample = scheduler.step(noise, timestep, sample).prev_sample
        except Exception as error:
            return f"raises {type(error).__name__} at step {number}"
    return "takes the noise away" if sample.std() < 0.1 else f"leaves noise of {sample.std():.2f}"


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
found = {name: {number: schedule(name, number) for number in STEPS} for name in ONE_STEP + MULTISTEP}
for name, schedules in found.items():
    told = [f"{number} steps at {first} ({different} different)" for number, (first, different) in schedules.items()]
    print(f"{name} begins {', '.join(told)}")
runs = {name: {number: run(name, number) for number in (999, 1000)} for name in MULTISTEP}
for name, outcomes in runs.items():
    print(f"{name}: a run of 999 steps {outcomes[999]}, one of 1000 {outcomes[1000]}")
one_step = {500: (998, 500), 501: (500, 501), 999: (998, 999), 1000: (999, 1000)}
multistep = {500: (500, 500), 501: (501, 501), 999: (999, 999), 1000: (0, 1)}
as_described = (
    all(found[name] == one_step for name in ONE_STEP) and all(found[name] == multistep for name in MULTISTEP)
    and all(outcomes[999] == "takes the noise away" and outcomes[1000].startswith("raises") for outcomes in runs.values())
)
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
