"""What offline explanations read: every word's activations and every feature's strongest windows, in one pass."""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from workflow_scripts.lfp import explanations, memory, models
from workflow_scripts.lfp.autoencoder import SparseAutoencoder


def make(case):
    """`case`: model, texts, tokens (of each), layers, size (tokens of a window), batch_size."""
    torch.set_num_threads(1)
    memory.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    model, tokenizer = models.load_model(case["model"]), models.load_tokenizer(case["model"])
    ids = np.random.default_rng(0).integers(5, 700, (case["texts"], 2 * case["tokens"]))
    texts = [tokenizer.decode(row) for row in ids]
    saes = {n: SparseAutoencoder(models.width(model), models.width(model)) for n in case["layers"]}

    def step():
        limits = (texts, case["tokens"])
        strongest = explanations.strongest_windows(tokenizer, saes, *limits, case["size"], 10, 5, 0)
        explanations.word_activations(model, tokenizer, saes, *limits, case["batch_size"], strongest)

    return step, 1.0


if __name__ == "__main__":
    serve(make)
