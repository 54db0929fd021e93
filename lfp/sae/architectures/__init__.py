"""Architectures of sparse autoencoders.

Each has a file of its own and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfp.registry import Registry

if TYPE_CHECKING:
    from lfp.sae.architectures.base import SparseAutoencoder

ARCHITECTURES = Registry(
    "architecture",
    {
        "standard": "lfp.sae.architectures.standard:Standard",
        "topk": "lfp.sae.architectures.topk:TopK",
        "batchtopk": "lfp.sae.architectures.batchtopk:BatchTopK",
        "jumprelu": "lfp.sae.architectures.jumprelu:JumpReLU",
        "gated": "lfp.sae.architectures.gated:Gated",
        "matryoshka": "lfp.sae.architectures.matryoshka:Matryoshka",
        "itda": "lfp.sae.architectures.itda:ITDA",
    },
)


def check_registered(sae: SparseAutoencoder) -> None:
    """Raise TypeError unless the class of `sae` is the registered one of its ``architecture``.

    A subclass that inherits the name would be saved, and loaded again, as its parent.
    """
    name, kind = sae.architecture, type(sae)
    if name not in ARCHITECTURES or ARCHITECTURES[name] is not kind:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__}: its architecture is {name!r}, which is not this"
            " class in lfp.sae.architectures.ARCHITECTURES; give the class an `architecture` of"
            " its own and register it under that name"
        )
