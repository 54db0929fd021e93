"""The pass of offline explanations over a corpus: every word's activations and every latent's
exemplars.
"""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.explaining import activations_by_word, exemplars
from lfp.models.architectures import width
from lfp.models.loading import load_model, load_tokenizer
from lfp.running import glibc
from lfp.sae.architectures.standard import Standard
from lfp.settings import Explanations


def make(case):
    """`case`: model, texts, tokens (of each), layers, size (tokens of a window), batch_size."""
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    model, tokenizer = load_model(case["model"]), load_tokenizer(case["model"])
    ids = np.random.default_rng(0).integers(5, 700, (case["texts"], 2 * case["tokens"]))
    texts = [tokenizer.decode(row) for row in ids]
    saes = {n: Standard(width(model), width(model)) for n in case["layers"]}

    settings = Explanations(
        max_tokens=case["tokens"], batch_size=case["batch_size"], excerpt_tokens=case["size"],
        evidence_top=10, evidence_random=5,
    )  # fmt: skip

    def step():
        strongest = exemplars.strongest_windows(tokenizer, saes, texts, settings, seed=0)
        activations_by_word.word_activations(model, tokenizer, saes, texts, settings, strongest)

    return step, 1.0


if __name__ == "__main__":
    serve(make)
