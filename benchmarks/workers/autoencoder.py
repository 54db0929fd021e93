"""One training step of our autoencoder at a fixed density, with Adam."""

import torch

from benchmarks.workers.meter import serve
from lfp.running import glibc
from lfp.sae.architectures.standard import Standard
from lfp.sae.training.gradients import Gradients, sparse_pays
from lfp.sae.training.optimizer import Adam, Captured, can_capture


def make(case):
    """`case`: n, d, m, density, precision, tied, device. The learning rate is 0, so that the
    density stays.
    """
    device = case.get("device", "cpu")
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    n, d, m = case["n"], case["d"], case["m"]
    sae = Standard(d, m, case["tied"]).requires_grad_(False).to(device)
    sae.b_enc.fill_(torch.special.ndtri(torch.tensor(case["density"])).item())
    x = torch.randn(n, d).to(device)
    precision = getattr(torch, case["precision"])
    gradients = Gradients(sae, torch.tensor(1e-3, device=device), precision)
    active = (sae.encode(x) > 0).float().mean().item()
    sparse = device == "cpu" and precision == torch.float32 and sparse_pays(active, d * m)
    optimizer = Adam(sae.parameters(), 0.0)

    def step(x):
        (gradients.sparse if sparse else gradients.dense)(x)
        optimizer.step()

    compute = Captured(step, n) if can_capture(device) else step
    return lambda: compute(x), 10 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
