"""A page in HTML for every explained latent of a cell, and an index of them."""
