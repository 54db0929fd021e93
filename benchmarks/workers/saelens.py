"""One training step of SAELens's autoencoders."""

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.workers.meter import serve

KEEPING = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}


def autoencoder(case, device):
    """The autoencoder of a `case`, with dense codes: sparse ones fail backwards on a CPU."""
    size = {"d_in": case["d"], "d_sae": case["m"], "device": device}
    kind = case.get("architecture", "standard")
    if kind == "standard":
        config = StandardTrainingSAEConfig(**size, l1_coefficient=1e-3 * case["d"])
        return StandardTrainingSAE(config)
    if kind == "jumprelu":
        of_target = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(case["k"])}
        return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**size, **of_target))
    of_kind, config = KEEPING[kind]
    return of_kind(config(**size, k=case["k"]))


def make(case):
    """`case`: n, d, m, precision (bfloat16 is its autocast), device, and the architecture with its
    k, where it is not the standard one.
    """
    device = case.get("device", "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n, d, m = case["n"], case["d"], case["m"]
    sae = autoencoder(case, device)
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
