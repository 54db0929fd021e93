"""Artefacts: reading, writing, where they come from, and where inputs are fetched."""
