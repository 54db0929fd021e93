"""Training steps of our architectures that choose few latents, looks at the batch included."""

import torch

from benchmarks.workers.meter import serve
from lfp.running import glibc
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.training.trainer import Trainer
from lfp.settings import Autoencoder


def make(case):
    """`case`: n, d, m, architecture, k, tied. The learning rate is 0 so that sparsity stays."""
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    n, d, m, k = case["n"], case["d"], case["m"], case["k"]
    settings = Autoencoder(
        architecture=case["architecture"], k=k, l0=float(k), tied=case["tied"], learning_rate=1e-3
    )
    sae = ARCHITECTURES[settings.architecture].of_settings(d, m, settings)
    if settings.architecture == "jumprelu":  # of unit normal pre-activations
        sae.level.data.fill_(torch.special.ndtri(torch.tensor(1 - k / m)).item() / sae.unit)
    trainer = Trainer(sae, "measured", settings, 10_000 * n, "cpu", 1)
    x, steps = torch.randn(n, d), iter(range(1_000_000))
    return lambda: trainer.step(x, next(steps), 0.0, 1.0), 10 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
