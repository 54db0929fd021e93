"""Harvest of MLP outputs to float16 arrays, by us."""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.models import architectures
from lfp.models.loading import load_model
from lfp.running import glibc
from lfp.sae.harvest import harvest


def useful_flops(model, layers, tokens):
    """Matrix products of `tokens` tokens up to the MLP of the last of `layers`; attention's own are
    left out.
    """
    blocks = architectures.blocks(model)[: max(layers) + 1]
    return 2 * tokens * sum(p.numel() for p in blocks.parameters() if p.dim() == 2)


def make(case):
    """`case`: model (a directory), layers, lengths of the texts, batch_size, precision."""
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    model = load_model(case["model"], dtype=case["precision"])
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 1000, n).tolist() for n in case["lengths"]]
    tokens, width = sum(case["lengths"]), architectures.width(model)
    outputs = {n: np.empty((tokens, width), np.float16) for n in case["layers"]}

    def step():
        harvest(model, sequences, outputs, 1, case["batch_size"], 0)

    return step, useful_flops(model, case["layers"], tokens) / 1e9


if __name__ == "__main__":
    serve(make)
