"""Running stages: the stage's row, the table of stages, keys, devices."""
