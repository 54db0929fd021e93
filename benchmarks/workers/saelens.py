"""One training step of SAELens's standard autoencoder."""

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.workers.meter import serve


def make(case):
    """`case`: n, d, m, precision (bfloat16 is its autocast), device."""
    device = case.get("device", "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n, d, m = case["n"], case["d"], case["m"]
    sae = StandardTrainingSAE(
        StandardTrainingSAEConfig(d_in=d, d_sae=m, l1_coefficient=1e-3 * d, device=device)
    )
    config = SAETrainerConfig(
        total_training_samples=n * 10_000, train_batch_size_samples=n,
        autocast=case["precision"] == "bfloat16",
        lr=1e-3, lr_end=1e-3, device=device,
    )  # fmt: skip
    trainer = SAETrainer(
        sae=sae,
        data_provider=iter(()),
        evaluator=None,
        save_checkpoint_fn=lambda **_: None,
        cfg=config,
    )
    x = torch.randn(n, d).to(device)
    return lambda: trainer.step(x), 10 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
