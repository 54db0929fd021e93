"""Plain readouts that those of the model's parts must beat: an implied reward, and a lens."""
