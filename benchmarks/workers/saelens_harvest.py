"""Activations of one layer as SAELens reads them from a Hugging Face model: packed windows, one
hook, early stop.
"""

import numpy as np
import torch
from sae_lens.load_model import HookedProxyLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.workers.meter import serve


def make(case):
    """`case`: model (a directory), layers, lengths, batch_size, precision. One pass per layer: a
    cache has one hook.
    """
    torch.set_num_threads(1)
    kind = getattr(torch, case["precision"])
    language_model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=kind).eval()
    model = HookedProxyLM(language_model, AutoTokenizer.from_pretrained(case["model"]))
    width = max(case["lengths"])
    windows = torch.from_numpy(
        np.random.default_rng(0).integers(5, 1000, (sum(case["lengths"]) // width, width))
    )
    block = sum(p.numel() for p in language_model.gpt_neox.layers[0].parameters() if p.dim() == 2)

    @torch.no_grad()
    def step():
        for layer in case["layers"]:
            hook = f"gpt_neox.layers.{layer}.mlp"
            kept = []
            for batch in windows.split(case["batch_size"]):
                _, cache = model.run_with_cache(batch, names_filter=[hook], stop_at_layer=layer + 1)
                kept.append(cache[hook].flatten(0, 1).float())
            torch.cat(kept)

    return step, 2 * windows.numel() * block * (max(case["layers"]) + 1) / 1e9


if __name__ == "__main__":
    serve(make)
