"""Judges of pictures, one file each, loaded when first needed."""
