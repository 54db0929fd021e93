"""Learned Feedback Patterns: the science of the workflow as plain functions, without Snakemake."""
