"""Explanations of features, and how well they predict."""
