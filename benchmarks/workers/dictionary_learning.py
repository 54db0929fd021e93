"""One training step of dictionary_learning's standard autoencoder."""

import torch
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate

from benchmarks.workers.meter import serve


def make(case):
    """`case`: n, d, m."""
    torch.set_num_threads(1)
    n, d, m = case["n"], case["d"], case["m"]
    trainer = StandardTrainerAprilUpdate(
        steps=10_000, activation_dim=d, dict_size=m, layer=0, lm_name="none", warmup_steps=10,
        sparsity_warmup_steps=None, seed=0, device="cpu",
    )  # fmt: skip
    x = torch.randn(n, d)
    return lambda: trainer.update(5, x), 10 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
