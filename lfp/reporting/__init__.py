"""What a run shows while it goes on. Nothing here changes a number."""
