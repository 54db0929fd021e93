"""Savings of memory for larger models.

These are low-rank adapters, activation checkpointing and mixed precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from lfp.settings import Lora

#: Attributes in which modules of the supported families keep a probability of dropout as a number.
_DROPOUTS = (
    "attention_dropout",
    "activation_dropout",
    "dropout",
    "layerdrop",
    "attn_dropout",
    "resid_dropout",
)


def lora_config(lora: Lora):
    """The ``peft`` configuration of `lora`.

    Adapters are on all linear layers except the output head. They have no dropout: it would make
    the ratio of probabilities of a step wrong, and the trainers switch every dropout off.
    """
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
    )


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Put adapters into `model` in place and freeze everything else.

    The model keeps its class and its modules' paths.
    """
    from peft import inject_adapter_in_model

    inject_adapter_in_model(lora_config(lora), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def without_lora(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, `model` computes as before its adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge_lora(model: PreTrainedModel) -> None:
    """Fold the adapters of :func:`add_lora` into the weights, in place, and remove them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    model.requires_grad_(True)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of `model` to 0, so that training and evaluation mode compute the same."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in _DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them.

    This is effective in training mode.
    """
    disable_dropout(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def mixed_precision(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to bfloat16 where `precision` says so; weights and optimizer stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
