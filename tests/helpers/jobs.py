"""The jobs that tests make images of."""

from icm_pipeline.generation.jobs import Job

JOBS = [
    Job(f"{i:06d}", prompt, i, 100 + i) for i, prompt in enumerate(["a face", "a photo of a nurse", "a doctor", "dog"])
]
