"""Artifacts on disk: keys, partial folders, shards, locks, the shelf of all of them, garbage, caches."""
