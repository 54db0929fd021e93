"""Architectures of sparse autoencoders, by SAELens's names: a file each and a line here."""

from lfp.registry import Registry

ARCHITECTURES = Registry(
    "architecture",
    {
        "standard": "lfp.sae.architectures.standard:Standard",
        "topk": "lfp.sae.architectures.topk:TopK",
    },
)
