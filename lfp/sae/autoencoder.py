"""Sparse autoencoders on MLP outputs: the paper's tied ReLU autoencoder, what it keeps, and the
SAELens layout.

Paper section 3.2, Eq. 1-2, with the authors' scaling of the loss (mean over tokens *and*
dimensions) and their decoder bias, both of which the equations leave out (paper_vs_code 2a-9,
2a-10).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lfp.files.artefacts import readable


class SparseAutoencoder(nn.Module):
    """f = ReLU(x W_enc + b_enc), x_hat = f W_dec + b_dec, with unit-norm rows of W_dec.

    Parameters
    ----------
    d_in, d_sae
        Width of the activations and number of features.
    tied
        Whether W_enc is the transpose of W_dec (paper) or a matrix of its own.

    Notes
    -----
    Rows are normalised inside the graph, so a gradient never changes a norm. W_dec starts with
    orthogonal rows (as far as d_in allows).
    """

    def __init__(self, d_in: int, d_sae: int, tied: bool = True) -> None:
        super().__init__()
        self.d_in, self.d_sae, self.tied = d_in, d_sae, tied
        self.decoder = nn.Parameter(nn.init.orthogonal_(torch.empty(d_sae, d_in)))
        # Contiguous: a fused optimizer walks a parameter and its gradient as they lie in memory.
        encoder = F.normalize(self.decoder.detach(), dim=1).T.contiguous()
        self.encoder = None if tied else nn.Parameter(encoder)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @property
    def W_dec(self) -> torch.Tensor:
        """Unit-norm feature directions [d_sae, d_in]."""
        return F.normalize(self.decoder, dim=1)

    @property
    def W_enc(self) -> torch.Tensor:
        """Encoder weights [d_in, d_sae]."""
        return self.W_dec.T if self.encoder is None else self.encoder

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Feature activations [..., d_sae] of `x` [..., d_in]."""
        return F.relu(x @ self.W_enc + self.b_enc)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Reconstruction [..., d_in] of `features` [..., d_sae]."""
        return features @ self.W_dec + self.b_dec

    def loss(self, x: torch.Tensor, l1: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(total, mean squared error over tokens and dimensions, mean over tokens of ||f||_1) for
        `x` [token, d_in].
        """
        w_dec = self.W_dec
        features = F.relu(x @ (w_dec.T if self.encoder is None else self.encoder) + self.b_enc)
        error = F.mse_loss(features @ w_dec + self.b_dec, x)
        sparsity = features.sum(1).mean()
        return error + l1 * sparsity, error, sparsity


def untrained(like: SparseAutoencoder, seed: int) -> SparseAutoencoder:
    """A tied autoencoder of the shape of `like` as it is before training: random unit directions,
    no biases.
    """
    torch.manual_seed(seed)
    return (
        SparseAutoencoder(like.d_in, like.d_sae).to(like.b_dec.device).eval().requires_grad_(False)
    )


def reconstruct(sae: SparseAutoencoder) -> Callable[[torch.Tensor], torch.Tensor]:
    """An edit that replaces an MLP output by the autoencoder's reconstruction: what the error term
    is worth.
    """
    return lambda x: sae.decode(sae.encode(x.float())).to(x.dtype)


# ----------------------------------------------------------------------------------- SAELens layout


def save(sae: SparseAutoencoder, directory: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors`` as SAELens 6 loads them (architecture
    ``standard``).

    `metadata` is kept under the key of that name. Tied weights are written as two contiguous
    copies; ``apply_b_dec_to_input`` must be false explicitly, else SAELens subtracts the decoder
    bias from the input.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    save_file(
        {
            name: value.detach().float().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in weights.items()
        },
        directory / "sae_weights.safetensors",
    )
    config = {
        "architecture": "standard", "d_in": sae.d_in, "d_sae": sae.d_sae, "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.0.0", "tied": sae.tied, **metadata},
    }  # fmt: skip
    (directory / "cfg.json").write_text(
        json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def load(directory: str | Path, device: str = "cpu") -> SparseAutoencoder:
    """Load an autoencoder written by :func:`save`; always untied in memory, with equal encode and
    decode.
    """
    directory = Path(directory)
    with readable(directory) as checked:
        config = json.loads((checked / "cfg.json").read_text(encoding="utf-8"))
        weights = load_file(checked / "sae_weights.safetensors")
    sae = SparseAutoencoder(config["d_in"], config["d_sae"], tied=False)
    with torch.no_grad():
        sae.decoder.copy_(weights["W_dec"])
        sae.encoder.copy_(weights["W_enc"])
        sae.b_enc.copy_(weights["b_enc"])
        sae.b_dec.copy_(weights["b_dec"])
    return sae.to(device).eval().requires_grad_(False)
