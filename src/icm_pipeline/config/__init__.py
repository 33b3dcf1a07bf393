"""The schema, how it is composed, what is refused, what a key counts, near misses explained."""
