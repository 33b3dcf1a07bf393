"""Ways to change what is made: `shift` is the paper's; vectors, fitting, folding, who is steered to what."""
