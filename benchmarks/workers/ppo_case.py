"""What all contenders of an update share: the prompts and a reward of the decoded text."""

import numpy as np
import torch


def prompts(case):
    """The same token ids [batch, prompt] for everybody."""
    ids = np.random.default_rng(0).integers(5, 700, (case["batch"], case["prompt"]))
    return torch.from_numpy(ids)


def text_reward(text):
    """The share of vowels: cheap, so that the update is what is measured."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))
