"""Gates: a probe that says at which tokens a model is steered.

Where fine-tuning changed what comes next is seldom at all tokens ("base models know how, thinking
models know when": Venhoff et al. 2025). A probe of the base's activations learns at which tokens
the policy expects most other feedback of the next token, and the change is made at those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression

#: Whether each activation [..., width] is steered [...].
Gate = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """A linear probe with a threshold: tokens of a score above it are steered.

    Parameters
    ----------
    weight
        [width].
    threshold
        Score, x `weight`, that a token must exceed.
    """

    weight: torch.Tensor
    threshold: float

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Whether each of the activations `values` [..., width] is steered [...]."""
        return values.float() @ self.weight.to(values.device) > self.threshold


def fitted_gate(values: torch.Tensor, labels: torch.Tensor, share: float) -> Probe:
    """A probe of where steering belongs, whose gate is open at a `share` of the tokens.

    Parameters
    ----------
    values
        Activations [token, width].
    labels
        Whether steering belongs at each token [token].
    share
        Share of these tokens whose score exceeds the threshold.

    Raises
    ------
    ValueError
        If the labels are all alike.
    """
    if bool(labels.all()) or not bool(labels.any()):
        raise ValueError(f"a gate needs tokens of both kinds, got {len(labels)} of one")
    x = values.float().cpu()
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    fit = LogisticRegression(class_weight="balanced", max_iter=1000)
    fit.fit(((x - centre) / scale).numpy(), labels.cpu().numpy())
    weight = torch.tensor(fit.coef_[0], dtype=torch.float32) / scale
    return Probe(weight, float((x @ weight).quantile(1 - share)))


def tokens_steered(gate: Gate, values: Iterable[torch.Tensor]) -> float:
    """Share of all tokens of several activations [..., width] that a gate lets through."""
    opened = [gate(part).double().flatten() for part in values]
    return float(torch.cat(opened).mean())
