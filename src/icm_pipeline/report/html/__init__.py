"""The pages of runs and sweeps as one HTML file each, which needs nothing beside it and no network."""
