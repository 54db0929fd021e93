"""Fine-tuning with feedback, and the distance that it moved every layer."""

#: Measures of a layer's divergence (:mod:`lfp.finetune.divergence`).
MEASURES = ("mlp_l2", "block_frobenius_sum", "mlp_relative", "activation", "locus")
