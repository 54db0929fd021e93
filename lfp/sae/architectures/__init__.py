"""Architectures of sparse autoencoders, by SAELens's names.

Each has a file of its own and a line here.
"""

from lfp.registry import Registry

ARCHITECTURES = Registry(
    "architecture",
    {
        "standard": "lfp.sae.architectures.standard:Standard",
        "topk": "lfp.sae.architectures.topk:TopK",
    },
)
