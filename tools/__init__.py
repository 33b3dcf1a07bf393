"""What the Makefile runs beside the package: setting up, and the docs site; and what writes tables of tests."""
