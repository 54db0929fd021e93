"""Fine-tuning with feedback, and how far it moved every layer."""

#: Measures of a layer's divergence (:mod:`lfp.finetune.divergence`).
MEASURES = ("mlp_l2", "block_frobenius_sum", "mlp_relative", "activation")
