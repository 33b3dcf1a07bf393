"""What a run would do, keep and take, known before it is run: `stage=plan`."""
