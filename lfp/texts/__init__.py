"""Words, corpora and their readers."""
