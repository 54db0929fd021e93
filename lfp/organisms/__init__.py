"""Generated text and the small models that are trained on it."""
