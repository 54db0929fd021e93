"""The base class of sparse autoencoders: an encoder, a decoder with unit directions, and a loss.

The latents of an autoencoder come from :meth:`SparseAutoencoder.encode`; nothing else computes them
from the weights. Stages that read latents ask :meth:`SparseAutoencoder.latents`, which leaves
outliers out. A subclass defines how latents come from pre-activations, and its loss.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from lfp.settings import Autoencoder

#: Tokens of a batch whose active latents are counted at once.
PART = 512


class SparseAutoencoder(nn.Module):
    """Latents f = activation(x W_enc + b_enc) and reconstruction x_hat = f W_dec + b_dec.

    Parameters
    ----------
    d_in, d_sae
        Width of the activations and number of latents.
    tied
        Whether W_enc is the transpose of W_dec (paper) or a matrix of its own.

    Notes
    -----
    Rows of W_dec have unit norm: they are normalised inside the graph, so a gradient never changes
    a norm. W_dec starts with orthogonal rows (as far as d_in allows). ``site``, ``layer``
    and ``metadata`` tell the origin of a loaded autoencoder and its training. ``largest_norm`` is
    the largest norm of the activations that it stands for (:mod:`lfp.sae.outliers`). ``reads`` is
    the setting of that name. One that reads a ``pair`` of models has their activations side by side
    as x, the base's first: the two halves of a row of W_dec have one unit norm together, and how
    they share it is free.
    """

    #: The name in :data:`lfp.sae.architectures.ARCHITECTURES`; SAELens's unless ``opened_as`` is.
    architecture: ClassVar[str]
    #: Entries of SAELens's configuration that the architecture has beside those of all.
    options: ClassVar[tuple[str, ...]] = ()
    #: SAELens's name of what it computes once it is trained, where that is another one.
    opened_as: ClassVar[str | None] = None
    #: Parameters that have an entry, or a row, for each latent.
    per_latent: ClassVar[tuple[str, ...]] = ("decoder", "b_enc")
    #: Weights of penalties that the loss has; tables show them beside the options. ``l1`` is found
    #: by training where the settings give a target of sparsity in its place.
    penalties: ClassVar[tuple[str, ...]] = ("l1",)
    #: Whether gradients train it; if not, it is collected in one pass over the activations.
    by_gradients: ClassVar[bool] = True
    #: Whether an encoder gives the code, so that other directions would leave it as it is.
    encodes_apart: ClassVar[bool] = True

    def __init__(self, d_in: int, d_sae: int, tied: bool = True) -> None:
        super().__init__()
        self.d_in, self.d_sae, self.tied = d_in, d_sae, tied
        self.site, self.layer, self.reads = "mlp", 0, "policy"
        self.metadata: dict[str, Any] = {}
        self.largest_norm = math.inf
        self.decoder = nn.Parameter(nn.init.orthogonal_(torch.empty(d_sae, d_in)))
        # Contiguous: a fused optimizer walks a parameter and its gradient as they lie in memory.
        encoder = F.normalize(self.decoder.detach(), dim=1).T.contiguous()
        self.encoder = None if tied else nn.Parameter(encoder)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @classmethod
    def of_settings(cls, d_in: int, d_sae: int, settings: Autoencoder) -> Self:
        """An untrained autoencoder as a variant's `settings` describe it."""
        options = {name: getattr(settings, name) for name in cls.options}
        sae = cls(d_in, d_sae, tied=settings.tied, **options)
        sae.site = settings.site
        return sae.reading(settings.reads)

    @torch.no_grad()
    def reading(self, reads: str) -> Self:
        """This untrained autoencoder as one of the activations that `reads` names.

        Directions of a pair begin alike in both models: a latent that learns nothing is of neither.
        """
        self.reads = reads
        if self.sides > 1:
            half = nn.init.orthogonal_(torch.empty(self.d_sae, self.width))
            self.decoder.copy_(half.repeat(1, self.sides))
            if self.encoder is not None:
                self.encoder.copy_(self.W_dec.T)
        return self

    @property
    def sides(self) -> int:
        """Number of models whose activations stand side by side in x."""
        return 2 if self.reads == "pair" else 1

    @property
    def width(self) -> int:
        """Width of the activations of one model."""
        return self.d_in // self.sides

    def halves(self) -> torch.Tensor:
        """Directions of the latents in each model [d_sae, side, width], the base first."""
        return self.W_dec.unflatten(1, (self.sides, self.width))

    def weighed(self, latents: torch.Tensor) -> torch.Tensor:
        """How much `latents` [..., d_sae] write: each times the norms of its directions, summed.

        Sparsity counts that, so that one in both models is as dear as one in either
        (arXiv:2504.02922). Of one model the norm is 1.
        """
        return latents if self.sides == 1 else latents * self.halves().norm(dim=2).sum(1)

    @property
    def W_dec(self) -> torch.Tensor:
        """Unit-norm directions of the latents [d_sae, d_in]."""
        return F.normalize(self.decoder, dim=1)

    @property
    def W_enc(self) -> torch.Tensor:
        """Encoder weights [d_in, d_sae]."""
        return self.W_dec.T if self.encoder is None else self.encoder

    @abstractmethod
    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents [..., d_sae] of `x` [..., d_in], or those of the indices `columns` alone."""

    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of a batch `x` [token, d_in] on which each latent is active [d_sae].

        They are counted in parts of the batch, which takes less memory than all latents at once.
        """
        counts = torch.zeros(self.d_sae, device=x.device)
        for part in x.split(PART):
            counts += (self.encode(part) > 0).sum(0)
        return counts

    def within(self, x: torch.Tensor) -> torch.Tensor:
        """Whether each of the activations `x` [..., d_in] is one that the autoencoder stands for.

        Those beyond ``largest_norm`` are outliers, of which it has learned nothing.
        """
        if self.reads == "difference":  # outliers are those of the activations that it is between
            return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        norms = x.float().unflatten(-1, (self.sides, -1)).norm(dim=-1)
        return ~(norms > self.largest_norm).any(-1)  # a value that is no number is within

    def latents(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """What :meth:`encode` gives of `x`; an outlier has no latents: all are 0."""
        code = self.encode(x, columns)
        if math.isinf(self.largest_norm):
            return code
        return code.masked_fill(~self.within(x)[..., None], 0.0)

    def text_latents(self, x: torch.Tensor, mask: torch.Tensor, added: int) -> torch.Tensor:
        """:meth:`latents` [token, d_sae] of the tokens of texts `x` [text, token, d_in] in `mask`.

        The first `added` tokens of each text, which the tokenizer adds, have none: no autoencoder
        has learned from them.
        """
        code, front = self.latents(x[mask].float()), torch.zeros_like(mask, dtype=torch.bool)
        front[:, :added] = True
        return code.masked_fill(front[mask][:, None], 0.0)

    def spliced(self, x: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """`changed` in the place of the activations `x`; outliers stay as they are."""
        if math.isinf(self.largest_norm):
            return changed
        return torch.where(self.within(x)[..., None], changed, x)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Reconstruction [..., d_in] of `latents` [..., d_sae]."""
        return latents @ self.W_dec + self.b_dec

    @abstractmethod
    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The total loss of activations `x` [token, d_in] and its parts.

        `penalty` is the current weight of the sparsity penalty, for architectures that have one.
        The parts are the mean squared error over tokens and dimensions, and the mean over tokens of
        what is penalised, the L1 norm of the latents in most.
        """

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Take from scaled held-out activations `x` [token, d_in] what no gradient gives.

        Training calls it at its end; most architectures leave nothing open.
        """

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by the names that SAELens gives them."""
        return {
            "W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc, "b_dec": self.b_dec
        }  # fmt: skip

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the :meth:`weights` of an autoencoder of the same class; this one must be untied."""
        self.decoder.copy_(weights["W_dec"])
        self.encoder.copy_(weights["W_enc"])
        self.b_enc.copy_(weights["b_enc"])
        self.b_dec.copy_(weights["b_dec"])

    @torch.no_grad()
    def fold(self, scale: float) -> None:
        """Take a division of the activations by `scale` (above 0) into the weights.

        An autoencoder that was trained on x / scale becomes one of x whose latents and
        reconstructions are `scale` times as large; directions keep their unit norm.
        """
        self.b_enc *= scale
        self.b_dec *= scale
        self.largest_norm *= scale

    @torch.no_grad()
    def shift(self, mean: torch.Tensor) -> None:
        """Take a subtraction of `mean` [d_in] from the activations into the biases.

        An autoencoder that was trained on x - mean becomes one of x with the same latents. Where
        outliers begin is not moved: that is a norm of the activations themselves.
        """
        self.b_enc -= mean @ self.W_enc
        self.b_dec += mean

    @torch.no_grad()
    def restart(self, latents: torch.Tensor, directions: torch.Tensor, x: torch.Tensor) -> None:
        """Let the `latents` (indices) begin anew with unit `directions` [latent, d_in].

        `x` [token, d_in] are activations, for architectures whose latents begin with a bias.
        """
        self.decoder[latents] = directions
        if self.encoder is not None:
            self.encoder[:, latents] = directions.T
        self.b_enc[latents] = 0.0

    @torch.no_grad()
    def usual_level(self, directions: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What `x` @ `directions`.T exceeds on as many tokens as a latent is active on, on average.

        `directions` are [latent, d_in], `x` [token, d_in]; the levels are [latent]. A latent that
        begins anew without one would be active on half of the tokens, and disturb all others.
        """
        share = (self.encode(x) > 0).float().mean().item()
        active = max(1, round(share * len(x)))
        largest = (x @ directions.T).topk(min(active + 1, len(x)), dim=0).values
        return largest[-2:].mean(0)

    def untrained(self, seed: int) -> Self:
        """An autoencoder of the same class, size and options before training.

        It has random unit directions and no biases, so that its L0 is another one, but for TopK.
        """
        torch.manual_seed(seed)
        options = {name: getattr(self, name) for name in self.options}
        fresh = type(self)(self.d_in, self.d_sae, **options).reading(self.reads)
        fresh.site, fresh.layer = self.site, self.layer
        return fresh.to(self.b_dec.device).eval().requires_grad_(False)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `x` [..., d_in] in its own precision: an edit of a site.

        Outliers stay as they are.
        """
        return self.spliced(x, self.decode(self.encode(x.float())).to(x.dtype))


def site_of(autoencoders: Mapping[Any, SparseAutoencoder]) -> str:
    """The site of all `autoencoders`; ``mlp`` where there are none.

    Raises ValueError where they differ.
    """
    sites = sorted({sae.site for sae in autoencoders.values()})
    if len(sites) > 1:
        raise ValueError(f"autoencoders of one site are expected, got those of {', '.join(sites)}")
    return sites[0] if sites else "mlp"
