"""Explanations of features, and the quality of their predictions."""
