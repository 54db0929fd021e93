"""Shared fixtures: small texts, tokenizers and randomly initialised models of every
architecture.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from lfp.organisms.configs import organism_config
from lfp.organisms.reviews import generate_reviews, sentiment_vocabulary
from lfp.organisms.tokenizers import train_tokenizer

torch.set_num_threads(1)

FAMILIES = ("gpt_neox", "gpt_neo", "gemma")


@pytest.fixture(scope="session")
def reviews() -> list[str]:
    """Generated reviews."""
    rng = np.random.default_rng(0)
    return list(generate_reviews(150, rng, sentiment_vocabulary(8, rng))["text"])


@pytest.fixture(scope="session")
def tokenizer(reviews):
    """A byte-level BPE tokenizer of the reviews."""
    return train_tokenizer(reviews, 420)


def make_model(family: str, tokenizer, seed: int = 0, n_layers: int = 3):
    """A small random model of `family` for `tokenizer`."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = organism_config(
        family, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, n_layers, 16, 2
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture(params=FAMILIES)
def model(request, tokenizer):
    """A small random model, once for every family."""
    return make_model(request.param, tokenizer)


@pytest.fixture
def neox(tokenizer):
    """A small random GPT-NeoX."""
    return make_model("gpt_neox", tokenizer)
