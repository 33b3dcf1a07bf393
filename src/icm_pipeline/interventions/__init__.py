"""Ways to change generation from inside; `shift` is the paper's, `assignment` decides who is steered to what."""
