"""Steering: what is added to activations while a model writes, at equal cost."""
