"""What stages leave behind, typed: evaluations, scores, labels, sweeps, comparisons."""
