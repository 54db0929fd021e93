"""Learned Feedback Patterns: plain functions and dataclasses that know nothing of Snakemake."""
