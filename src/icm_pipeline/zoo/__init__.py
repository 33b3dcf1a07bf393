"""The embedded weights, and the one function that says where weights lie."""
