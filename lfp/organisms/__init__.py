"""Generated text and the small models that are trained on it."""

#: Most tokens that a model of :mod:`lfp.organisms.configs` reads at once.
POSITIONS = 256
