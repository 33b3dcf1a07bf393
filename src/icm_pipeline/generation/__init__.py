"""From jobs to latents and pixels: jobs, sampling, batches, kept first steps, prompt embeddings."""
