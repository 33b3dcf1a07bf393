"""One file per architecture family; each is data and small pure functions."""
