"""Features of contrast triples: the shared prefix read once, or every element with its prompt."""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.models.architectures import blocks
from lfp.models.hooks import continuations, site_activations
from lfp.models.loading import load_model
from lfp.running import glibc


def make(case):
    """`case`: model, triples, prompt and element (tokens), batch_size, shared (whether the prefix
    is read once).
    """
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    model = load_model(case["model"])
    rng = np.random.default_rng(0)
    lengths = rng.integers(case["prompt"] // 2, case["prompt"] + 1, case["triples"])
    prefixes = [rng.integers(5, 700, n).tolist() for n in lengths]
    sequences = [
        [p + rng.integers(5, 700, case["element"]).tolist() for p in prefixes] for _ in range(3)
    ]
    layers = range(1, len(blocks(model)))
    size = case["batch_size"]

    def shared():
        known = [len(prefix) - 1 for prefix in prefixes]
        for _ in continuations(model, sequences, known, layers, 1, size // 3):
            pass

    def repeated():
        for element in sequences:
            for _ in site_activations(model, element, layers, 1, size, stop=False):
                pass

    return (shared if case["shared"] else repeated), 1.0


if __name__ == "__main__":
    serve(make)
