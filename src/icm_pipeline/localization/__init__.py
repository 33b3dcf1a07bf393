"""Which layers: probes, the logistic solver, selection."""
