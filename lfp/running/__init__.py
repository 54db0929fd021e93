"""Machinery that every job shares. Nothing here changes a number."""
