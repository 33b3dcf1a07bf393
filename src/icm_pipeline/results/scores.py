"""Layers' scores and the selection."""

SCORES = "scores.json"
SELECTION = "selection.json"
