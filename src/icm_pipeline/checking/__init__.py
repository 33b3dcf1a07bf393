"""Whether a pipeline is what its family says: measured on the pipeline itself, by prompts, hooks and shifts."""
