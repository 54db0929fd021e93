"""A blind audit: policies under names that tell nothing, a sealed truth, and scores of answers."""
