"""Estimates with their uncertainty, as the rows of every table have them."""
