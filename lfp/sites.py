"""Sites: the parts of a transformer block whose activations are read, learned and edited.

A site is a module of the block and the side of it that is read. The paper's is ``mlp``. A new
site is one more entry here; a module that no family names yet is one more field of
:class:`lfp.models.architectures.Architecture`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One part of a block.

    ``module`` is the field of :class:`lfp.models.architectures.Architecture` that names the module
    inside the block, ``side`` the side of the module that is read (``output`` or ``input``), and
    ``meaning`` describes its activations in words.
    """

    module: str
    side: str
    meaning: str


#: The site of which every direction has a part for each head.
HEADS = "heads"
SITES = {
    "mlp": Site("mlp", "output", "the MLP's output, after its down-projection"),
    "resid": Site("block", "output", "the block's output: the residual stream behind it"),
    "attn": Site("attention_output", "output", "the attention's output, after its projection"),
    HEADS: Site("attention_output", "input", "the heads' outputs side by side, before it"),
}
