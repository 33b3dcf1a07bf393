"""Figures and image grids, drawn from artifacts."""
