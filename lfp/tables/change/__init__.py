"""Tables of what feedback changed, and of what would have been seen."""
