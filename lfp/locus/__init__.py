"""Where in the weights a fine-tuning lives (docs/locus.md)."""

#: Components of a model, in the order of the tables.
COMPONENTS = ("embedding", "unembedding", "attention", "mlp", "norms")
