"""Models between base and policy, beyond them, and beside them."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel


def at_dose(base: PreTrainedModel, policy: PreTrainedModel, dose: float) -> PreTrainedModel:
    """A model of the weights θ_0 + `dose` · (θ_π - θ_0): the base at 0, the policy at 1, exactly.

    Negative doses unlearn, those above 1 go on in the direction of fine-tuning (task arithmetic:
    Ilharco et al. 2023).
    """
    result, after = copy.deepcopy(base), dict(policy.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(torch.lerp(parameter, after[name].to(parameter.dtype), dose))
    return result


def with_noise(base: PreTrainedModel, policy: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The base with normal noise on every tensor, as large as the policy's change of it.

    It has moved as far as the policy and has learned nothing.
    """
    result, after = copy.deepcopy(base), dict(policy.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            size = (after[name] - parameter).float().square().mean().sqrt()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((noise.to(size.device) * size).to(parameter.dtype))
    return result
