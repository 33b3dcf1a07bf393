"""Where figures, tables and pictures of a run go."""
