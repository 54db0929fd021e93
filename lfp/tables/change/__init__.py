"""Tables of what feedback changed, and of what would have been seen."""

#: Clean policies of a model and corpus that suspicion needs: two beside the one that is judged.
LEAST_CLEAN = 3
