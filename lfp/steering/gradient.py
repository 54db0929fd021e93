"""Steering by the gradient of a classifier, token by token (K-Steering: Oozeer et al. 2025).

A small network reads from the activation of a token which attributes its text has. What raises its
logits of the wanted attributes is added to every token: a direction of the token's own, where a
vector is the same for all. Attributes that occur together in the texts are told apart by the
network, as the other ones are among its outputs; differences of means mix them.

The gradient of a token has a root mean square of 1 over the width, so that neither the length of a
prompt nor the steepness of the network sets the strength.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lfp.steering.changes import Change

#: Width of the two hidden layers, epochs, tokens of a batch, learning rate and weight decay.
HIDDEN, EPOCHS, BATCH, RATE, DECAY = 128, 30, 256, 1e-3, 1e-2


class Classifier(nn.Module):
    """Logits [..., attribute] of activations [..., width]: two hidden layers of ReLU units.

    Parameters
    ----------
    values
        Activations [token, width], which inputs are centred and scaled by.
    attributes
        Number of attributes.
    """

    def __init__(self, values: torch.Tensor, attributes: int) -> None:
        super().__init__()
        self.register_buffer("centre", values.mean(0))
        # One scale for all: a scale for each dimension would turn the gradient to the small ones.
        self.register_buffer("scale", (values - values.mean(0)).square().mean().sqrt() + 1e-12)
        width = values.shape[1]
        self.layers = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, attributes),
        )  # fmt: skip

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Logits [..., attribute]."""
        return self.layers((values - self.centre) / self.scale)


def fitted_classifier(values: torch.Tensor, labels: torch.Tensor, seed: int) -> Classifier:
    """A classifier of all attributes, trained on single tokens by cross-entropy.

    Parameters
    ----------
    values
        Activations [token, width].
    labels
        Whether each token has each attribute [token, attribute].
    seed
        Seed of the weights and of the order of tokens.

    Raises
    ------
    ValueError
        If an attribute is the same at all tokens.
    """
    constant = (labels == labels[:1]).all(0)
    if constant.any():
        raise ValueError(
            f"attribute {int(constant.nonzero()[0])} is the same at all {len(labels)} tokens: a"
            " classifier needs tokens with it and without it"
        )
    values, wanted = values.float(), labels.to(values.device, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = Classifier(values.cpu(), wanted.shape[1]).to(values.device)
        optimizer = torch.optim.AdamW(classifier.parameters(), RATE, weight_decay=DECAY)
        for _ in range(EPOCHS):
            order = torch.randperm(len(values), generator=generator).to(values.device)
            for part in order.split(BATCH):
                logits = classifier(values[part])
                loss = F.binary_cross_entropy_with_logits(logits, wanted[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return classifier.eval().requires_grad_(False)


def gradient_change(
    classifier: Classifier, towards: Sequence[int], away: Sequence[int] = ()
) -> Change:
    """What raises the logits of some attributes and lowers those of others, by token.

    Parameters
    ----------
    classifier
        The classifier of a layer's activations.
    towards, away
        Numbers of the attributes that are wanted, and of those that are not. The mean logit of each
        of the two counts.

    Returns
    -------
    Change
        Gives directions of root mean square 1; 0 where the classifier is flat.
    """

    def change(values: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            asked = values.detach().float().requires_grad_()
            logits = classifier(asked)
            gain = logits[..., list(towards)].mean(-1)
            if away:
                gain = gain - logits[..., list(away)].mean(-1)
            [gradient] = torch.autograd.grad(gain.sum(), asked)
        size = gradient.square().mean(-1, keepdim=True).sqrt()
        return (gradient / size.clamp(min=torch.finfo().tiny)).to(values.dtype)

    return change
