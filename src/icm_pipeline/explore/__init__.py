"""Look at a run: what is explored, a setting of it, the pictures it makes, and the page in a browser."""
