"""Ablation of features while the model writes."""
