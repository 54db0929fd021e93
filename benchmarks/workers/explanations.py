"""What offline explanations read: every word's activations and every feature's strongest windows,
in one pass.
"""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.explaining import heuristic
from lfp.models.architectures import width
from lfp.models.loading import load_model, load_tokenizer
from lfp.running import glibc
from lfp.sae.architectures.standard import Standard


def make(case):
    """`case`: model, texts, tokens (of each), layers, size (tokens of a window), batch_size."""
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    model, tokenizer = load_model(case["model"]), load_tokenizer(case["model"])
    ids = np.random.default_rng(0).integers(5, 700, (case["texts"], 2 * case["tokens"]))
    texts = [tokenizer.decode(row) for row in ids]
    saes = {n: Standard(width(model), width(model)) for n in case["layers"]}

    def step():
        limits = (texts, case["tokens"])
        strongest = heuristic.strongest_windows(tokenizer, saes, *limits, case["size"], 10, 5, 0)
        heuristic.word_activations(model, tokenizer, saes, *limits, case["batch_size"], strongest)

    return step, 1.0


if __name__ == "__main__":
    serve(make)
