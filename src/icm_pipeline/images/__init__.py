"""A folder of images: making, table, activations beside it, naming rules, pictures, contact sheet."""
