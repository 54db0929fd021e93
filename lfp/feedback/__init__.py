"""Rewards and lexica."""
