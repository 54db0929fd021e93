"""Completions under several sets of ablated features as the released code of the study hooks them:
a module's output goes through the autoencoder in a hook, one set after the other.
"""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.models.architectures import blocks, width
from lfp.models.loading import load_model, load_tokenizer
from lfp.running import glibc
from lfp.sae.architectures.standard import Standard


def make(case):
    """`case`: model, prompts, prompt, response (tokens), sets, batch_size, writes (whether a
    response is sampled, where the released code takes the likeliest next token of every position of
    the prompt alone).
    """
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    model, tokenizer = load_model(case["model"]), load_tokenizer(case["model"])
    rng = np.random.default_rng(0)
    prefixes = torch.from_numpy(rng.integers(5, 700, (case["prompts"], case["prompt"])))
    sae = Standard(width(model), width(model)).requires_grad_(False)

    def hook(latents):
        def replace(module, inputs, output):
            code = sae.encode(output)
            code[..., latents] = 0
            return sae.decode(code)

        return replace

    def texts():
        for part in prefixes.split(case["batch_size"]):
            if case["writes"]:
                ids = model.generate(
                    part, attention_mask=torch.ones_like(part), do_sample=True, top_k=0,
                    min_new_tokens=case["response"], max_new_tokens=case["response"],
                    pad_token_id=tokenizer.pad_token_id,
                )[:, part.shape[1] :]  # fmt: skip
            else:
                ids = model(part).logits.argmax(-1)
            tokenizer.batch_decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def step():
        for i in range(case["sets"]):
            handle = blocks(model)[1].mlp.register_forward_hook(hook([i, i + 1]))
            texts()
            handle.remove()

    return step, 1.0


if __name__ == "__main__":
    serve(make)
