"""Dictionaries of two models: the activations of base and policy on the same tokens."""
