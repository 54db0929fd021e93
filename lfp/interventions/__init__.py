"""Taking features away while the model writes."""
