"""Fine-tuning on completions of the base that a reward ranks: on the best, or on pairs."""
