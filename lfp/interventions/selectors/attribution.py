"""Attribution: the effects of all latents of all layers from one forward and one backward pass.

Taking latent i away changes a number m of the model by about IE_i = - sum over tokens t of
f_i(t) <dm/dx(t), d_i>, with its value f_i, its direction d_i and the gradient at the activation x
(Nanda 2023; Syed et al. 2023; Marks et al. 2024). It is linear in a change that is not small, so
that the effects of the largest ones are measured by themselves, and of as many random ones beside
them: how good an account attribution is belongs to the model at hand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.criteria import measured_without
from lfp.interventions.selectors.material import Material
from lfp.interventions.selectors.metrics import Metric
from lfp.models.hooks import Edit, edited
from lfp.sae.architectures.base import SparseAutoencoder

log = logging.getLogger(__name__)

#: Columns of the rows of effects.
COLUMNS = ("layer", "feature", "attributed", "exact", "drawn_as")


class Leaves:
    """Edits that add nothing to the activations of some layers, and keep what was there.

    ``passed`` are the activations [row, token, width] by layer of the latest pass, and ``added``
    the zeros that were added to them, whose gradients are those of the activations.
    """

    def __init__(self, layers: Iterable[int]) -> None:
        self.passed: dict[int, torch.Tensor] = {}
        self.added: dict[int, torch.Tensor] = {}
        self.edits: dict[int, Edit] = {layer: self._edit(layer) for layer in layers}

    def _edit(self, layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(x: torch.Tensor) -> torch.Tensor:
            self.added[layer] = torch.zeros_like(x, requires_grad=True)
            self.passed[layer] = x + self.added[layer]
            return self.passed[layer]

        return edit


def attributed(
    model: PreTrainedModel, metric: Metric, autoencoders: Mapping[int, SparseAutoencoder], site: str
) -> dict[int, np.ndarray]:
    """What taking each latent away would change a number by, to first order.

    Parameters
    ----------
    model
        A causal language model.
    metric
        The number, whose mean over instances is asked for.
    autoencoders
        Autoencoders by layer.
    site
        The part of the layers that they read.

    Returns
    -------
    dict
        Attributions [latent] by layer.
    """
    totals = {
        layer: torch.zeros(sae.d_sae, dtype=torch.float64) for layer, sae in autoencoders.items()
    }
    for rows, batch in metric.batches(model.device):
        leaves = Leaves(autoencoders)
        with torch.enable_grad(), edited(model, leaves.edits, site):
            metric.scores(model, batch, rows).sum().backward(inputs=list(leaves.added.values()))
        with torch.no_grad():
            for layer, sae in autoencoders.items():
                gradient = leaves.added[layer].grad.float().flatten(0, -2)
                code = sae.latents(leaves.passed[layer].detach().float().flatten(0, -2))
                along = gradient @ sae.W_dec.T
                totals[layer] -= (code * along).sum(0).double().cpu()
    return {layer: (total / max(1, metric.n)).numpy() for layer, total in totals.items()}


def effects(material: Material) -> pd.DataFrame:
    """Attributions of all live latents, and the exact effects of some of them.

    Exact are the effects of those of the largest attribution, and of as many random others; of
    none where there is no text to measure them on.

    Returns
    -------
    pandas.DataFrame
        A row per live latent, in their order: ``layer``, ``feature``, ``attributed``, ``exact``
        (NaN where it was not measured) and ``drawn_as`` (``top``, ``random``, or empty).
    """
    live, start = material.live, time.monotonic()
    values = attributed(material.model, material.metric, material.autoencoders, material.site)
    middle = time.monotonic()
    pairs = list(live.itertuples(index=False, name=None))
    frame = live.assign(attributed=[values[layer][feature] for layer, feature in pairs])
    order = np.argsort(-np.abs(frame["attributed"].to_numpy(dtype=float)), kind="stable")
    most = material.asked.exact if material.metric.n else 0
    top, rest = order[:most], order[most:]
    rng = np.random.default_rng(material.seed)
    drawn = rng.choice(rest, min(len(top), len(rest)), replace=False)
    frame["drawn_as"] = ""
    frame.loc[top, "drawn_as"], frame.loc[drawn, "drawn_as"] = "top", "random"
    measured = np.concatenate([top, drawn]).astype(int)
    sets: list[FeatureSet] = [{}, *({pairs[i][0]: [pairs[i][1]]} for i in measured)]
    numbers = measured_without(material, sets)
    each = (time.monotonic() - middle) / len(sets)
    log.info(
        "attribution of %d latents took %.2f s, exact effects %.2f s a latent: %.0f times as long",
        len(live), middle - start, each, each * len(live) / max(middle - start, 1e-9),
    )  # fmt: skip
    frame["exact"] = np.nan
    frame.loc[measured, "exact"] = numbers[1:] - numbers[0]
    return frame[list(COLUMNS)]


def largest_effect(material: Material) -> FeatureSet:
    """The latents of the largest exact effects, of those that attribution gives the largest."""
    frame = material.effects
    return material.top(frame["exact"].abs().where(frame["drawn_as"] == "top"))
