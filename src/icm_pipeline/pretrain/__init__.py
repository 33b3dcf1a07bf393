"""The code that made the embedded model and its judges."""
