"""The change of every layer by fine-tuning, by several measures, and the choice of layers.

The measures are (paper appendix C):

=======================  ==================================================================
``mlp_l2``               L2 norm of the difference of all parameters of the layer's MLP (default)
``block_frobenius_sum``  sum of the Frobenius norms of the difference of every tensor of the block
                         (the authors' rule: layer_activations_handler.py:31-72)
``mlp_relative``         ``mlp_l2`` over the L2 norm of the base's MLP parameters
``activation``           mean over tokens of ||difference of the MLP outputs|| over ||MLP output
                         of the base||
``locus``                Shapley value of the layer's MLP for the effect of fine-tuning
                         (:mod:`lfp.locus`), where that is the measure that ranks the layers
=======================  ==================================================================

All norms are in float32: the authors measured int8 copies, where rounding noise is of the size of
the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.models.architectures import blocks, parts
from lfp.models.hooks import site_activations
from lfp.settings import Divergence


def _l2(tensors: Sequence[torch.Tensor]) -> float:
    return torch.stack([tensor.double().pow(2).sum() for tensor in tensors]).sum().sqrt().item()


def parameter_divergence(base: PreTrainedModel, policy: PreTrainedModel) -> list[dict[str, float]]:
    """The three parameter measures of every layer, first to last."""
    rows, place = [], parts(base)
    ours, theirs = dict(base.named_parameters()), dict(policy.named_parameters())
    for layer in range(len(blocks(base))):
        inside = [name for name in ours if place[name].layer == layer]
        changes = {n: theirs[n].detach().float() - ours[n].detach().float() for n in inside}
        mlp = [name for name in inside if place[name].component == "mlp"]
        change = _l2([changes[name] for name in mlp])
        rows.append(
            {
                "mlp_l2": change,
                "block_frobenius_sum": sum(_l2([tensor]) for tensor in changes.values()),
                "mlp_relative": change / _l2([ours[name].detach() for name in mlp]),
            }
        )
    return rows


def activation_divergence(
    base: PreTrainedModel,
    policy: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> list[float | None]:
    """Mean relative change of every layer's MLP output over the real tokens of `sequences`.

    Parameters
    ----------
    base, policy
        Models of one architecture.
    sequences
        Token ids.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.

    Returns
    -------
    list
        The change by layer, first to last (paper appendix C); None without a token.
    """
    layers = range(len(blocks(base)))
    totals = torch.zeros(len(layers), dtype=torch.float64)
    count = 0
    ours = site_activations(base, sequences, layers, pad, batch_size)
    theirs = site_activations(policy, sequences, layers, pad, batch_size)
    for (_, mask, before), (_, _, after) in zip(ours, theirs, strict=True):
        count += int(mask.sum())
        for layer in layers:
            x, y = before[layer][mask].float(), after[layer][mask].float()
            totals[layer] += (
                ((y - x).norm(dim=-1) / x.norm(dim=-1).clamp(min=1e-12)).sum().double().cpu()
            )
    return (totals / count).tolist() if count else [None] * len(layers)


def mlp_values(locus: pd.DataFrame, n_layers: int) -> list[float | None]:
    """The mean Shapley value of every layer's MLP, first to last; None without an instance.

    `locus` has the rows of :func:`lfp.locus.effects.shapley_values`.
    """
    rows = locus[(locus["game"] == "layers") & (locus["component"] == "mlp")]
    means = rows.groupby("layer")["value"].mean()
    return [float(means[layer]) if layer in means else None for layer in range(n_layers)]


def ranking(rows: Sequence[Mapping[str, float | None]], measure: str) -> list[int]:
    """Layers from most to least changed by `measure`.

    Ties go to the lower layer, and so do layers without a measured value.
    """
    return sorted(range(len(rows)), key=lambda layer: (-(rows[layer][measure] or 0.0), layer))


def layer_divergence(
    base: PreTrainedModel,
    policy: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> list[dict[str, float | None]]:
    """All measures of every layer, first to last.

    Parameters
    ----------
    base, policy
        Models of one architecture.
    sequences
        Token ids of the texts that the measure ``activation`` reads.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    """
    changes = activation_divergence(base, policy, sequences, pad, batch_size)
    rows = parameter_divergence(base, policy)
    return [row | {"activation": change} for row, change in zip(rows, changes, strict=True)]


def choose_layers(
    rows: Sequence[Mapping[str, float | None]],
    settings: Divergence,
    pinned: Sequence[int] | None = None,
    lowest: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The measures of every layer with the ranking, the chosen layers and the least changed ones.

    `pinned` and `lowest` take the place of the latter two, and ``pinned`` of the result names those
    of them that they have replaced. The least changed layers are none that is pinned.

    Raises ValueError where layers are to be chosen by a measure that has no value.
    """
    if not pinned and all(row[settings.measure] is None for row in rows):
        raise ValueError(
            f"divergence.measure is {settings.measure}, and there is no token of held-out text to"
            " measure it on: set another measure, pin the cell's `layers`, or give the corpus"
            " held-out texts"
        )
    order, n = ranking(rows, settings.measure), settings.n_layers
    others = [layer for layer in order if layer not in (pinned or ())]
    return {
        "layers": list(rows),
        "measure": settings.measure,
        "ranking": order,
        "chosen": sorted(pinned or order[:n]),
        "lowest": sorted(lowest or others[-n:]),
        "pinned": [name for name, given in (("chosen", pinned), ("lowest", lowest)) if given],
    }
