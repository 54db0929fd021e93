"""A circuit of latents: which of them act through which others.

The edge from latent u to latent d of a later layer weighs what taking u away changes the number of
the model by, as far as that passes through d: - sum over tokens of f_u(t) <d(h_d)/dx(t), d_u>, with
h_d = sum over tokens s of f_d(s) <dm/dx(s), d_d>, the gradient in it being held (Marks et al.
2024). A graph is checked by taking away the latents that are in none of its edges, on instances
that its edges were not chosen on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from lfp.interventions.matching import by_layer
from lfp.interventions.selectors.attribution import Leaves
from lfp.interventions.selectors.criteria import numbers_without
from lfp.interventions.selectors.material import Material
from lfp.models.hooks import edited

#: Columns of the rows of edges.
COLUMNS = (
    "layer", "feature", "to_layer", "to_feature", "instance", "weight", "kept", "faithfulness",
    "nodes",
)  # fmt: skip
Node = tuple[int, int]


def circuit_nodes(material: Material) -> list[Node]:
    """The latents of the largest attributions, as many as the settings ask for."""
    rank = material.effects["attributed"].abs()
    chosen = material.top(rank, material.asked.circuit)
    return [(layer, feature) for layer in sorted(chosen) for feature in chosen[layer]]


def edge_weights(material: Material, nodes: Sequence[Node]) -> np.ndarray:
    """The weights [instance, node, node] of the edges from each node to each of a later layer."""
    metric, places = material.metric, _places(nodes)
    result = np.zeros((metric.n, len(nodes), len(nodes)))
    for rows, batch in metric.batches(material.model.device):
        leaves = Leaves(places)
        with torch.enable_grad(), edited(material.model, leaves.edits, material.site):
            score = metric.scores(material.model, batch, rows).sum()
            added = list(leaves.added.values())
            gradients = torch.autograd.grad(score, added, retain_graph=True)
            for source, target, values in _edges(
                material, nodes, leaves, dict(zip(leaves.added, gradients, strict=True))
            ):
                by_row = values.reshape(len(rows), -1).sum(1).double().cpu().numpy()
                np.add.at(result[:, source, target], metric.owners[rows], by_row)
    return result


def _places(nodes: Sequence[Node]) -> dict[int, list[int]]:
    """The places among `nodes` of those of each layer, in the order of layers."""
    layers = sorted({layer for layer, _ in nodes})
    return {layer: [i for i, (of, _) in enumerate(nodes) if of == layer] for layer in layers}


def _edges(
    material: Material,
    nodes: Sequence[Node],
    leaves: Leaves,
    gradients: Mapping[int, torch.Tensor],
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Places of the ends of every edge, and its weights at the tokens of a batch that was read.

    Parameters
    ----------
    material, nodes
        The model with its dictionaries, and the latents.
    leaves
        What the pass has left at the layers of the nodes.
    gradients
        Gradients of the number by layer.
    """
    places, saes = _places(nodes), material.autoencoders
    index = {n: torch.tensor([nodes[i][1] for i in of]) for n, of in places.items()}
    directions = {n: saes[n].W_dec[index[n]].detach() for n in places}
    codes = {n: saes[n].latents(leaves.passed[n].float(), index[n]) for n in places}
    for layer, targets in places.items():
        before = [n for n in places if n < layer]
        along = gradients[layer].float() @ directions[layer].T
        carried = (codes[layer] * along).flatten(0, -2).sum(0)
        for k, target in enumerate(targets if before else ()):
            added = [leaves.added[n] for n in before]
            through = torch.autograd.grad(carried[k], added, retain_graph=True, allow_unused=True)
            for n, gradient in zip(before, through, strict=True):
                if gradient is not None:
                    part = codes[n].detach() * (gradient.float() @ directions[n].T)
                    for j, source in enumerate(places[n]):
                        yield source, target, -part[..., j]


def circuit(material: Material) -> pd.DataFrame:
    """The edges among the latents of the largest attributions, and how well the graph stands.

    Kept are the edges whose mean weight over every other instance is more than the share ``edge``
    of the largest effect of a node by itself. The remaining instances test them: the rows are
    theirs, and ``faithfulness`` is the share of what all nodes together do there that is left when
    those without a kept edge are taken away. There is no circuit of a single instance.

    Returns
    -------
    pandas.DataFrame
        A row per edge and instance of the test: ``layer``, ``feature``, ``to_layer``,
        ``to_feature``, ``instance``, ``weight``, ``kept``, ``faithfulness`` and ``nodes``.
    """
    nodes = circuit_nodes(material) if material.metric.n else []
    if len(_places(nodes)) < 2 or material.metric.n < 2:
        return pd.DataFrame(columns=COLUMNS)
    weights = edge_weights(material, nodes)
    effects = material.effects.set_index(["layer", "feature"])["attributed"]
    least = material.asked.edge * max(abs(effects[node]) for node in nodes)
    kept = np.abs(weights[::2].mean(0)) > least
    connected = kept.any(0) | kept.any(1)
    others = [node for node, inside in zip(nodes, connected, strict=True) if not inside]
    tested = range(1, len(weights), 2)
    conditions = [{}, by_layer(others), by_layer(nodes)]
    model, without_others, nothing = numbers_without(material, conditions)[:, tested].mean(1)
    whole = model - nothing
    faithfulness = float((without_others - nothing) / whole) if whole else float("nan")
    rows = [
        pd.DataFrame({"instance": tested, "weight": weights[tested, i, j]}).assign(
            layer=nodes[i][0], feature=nodes[i][1], to_layer=nodes[j][0], to_feature=nodes[j][1],
            kept=bool(kept[i, j]), faithfulness=faithfulness, nodes=len(nodes),
        )
        for i in range(len(nodes)) for j in range(len(nodes)) if nodes[i][0] < nodes[j][0]
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True)[list(COLUMNS)]
