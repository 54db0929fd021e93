"""Contrast triples, features of them, and probes."""
