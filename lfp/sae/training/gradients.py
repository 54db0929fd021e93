"""Gradients of an autoencoder's loss: by autograd, or written out for the paper's architecture.

With f = ReLU(x W_enc + b_enc), e = f W_dec + b_dec - x, n tokens of d dimensions and g = 2 e / (n
d), the loss mean(e^2) + l1 mean_t |f| has the gradients

    by b_dec   sum_t g              by W_dec   f^T g
    by b_enc   sum_t h              by W_enc   x^T h        where h = (g W_dec^T + l1 / n) [f > 0]

which a tied autoencoder adds up, and which lose their part along a row of the decoder, whose norm
is fixed. That is five matrix products; automatic differentiation takes the same five and keeps
their operands in fresh memory. Where few latents are active, four of the five cost in proportion to
the active ones (:mod:`~lfp.sae.training.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.architectures.standard import Standard
from lfp.settings import Autoencoder

#: Weights above which the sparse path, which gathers their rows, leaves the cache and pays off at a
#: lower density.
CACHED_WEIGHTS = 2**21
#: Floating-point operations of a training from which on the kernels are worth the half second that
#: loading them takes.
KERNELS_PAY = 3e10


def sparse_pays(density: float, weights: int) -> bool:
    """Whether the sparse path is the faster one on a CPU at this share of active latents.

    `weights` is d_in d_sae.
    """
    return density < (0.25 if weights <= CACHED_WEIGHTS else 0.16)


def may_be_sparse(sae: SparseAutoencoder, settings: Autoencoder, tokens: int) -> bool:
    """Whether the kernels can compute a training of so many `tokens`, and are worth loading."""
    on_cpu = sae.b_dec.device.type == "cpu" and settings.precision == "float32"
    return on_cpu and 10 * tokens * sae.d_in * sae.d_sae > KERNELS_PAY


class Autograd:
    """Gradients of any architecture's loss by automatic differentiation.

    Parameters
    ----------
    sae
        The autoencoder; its parameters' ``grad`` is set.
    settings
        Settings of its loss, and the ``precision`` of its matrix products.
    penalty
        The current weight of the L1 norm, a tensor without axes that training changes.
    """

    def __init__(
        self, sae: SparseAutoencoder, settings: Autoencoder, penalty: torch.Tensor
    ) -> None:
        self.sae, self.settings, self.penalty = sae.requires_grad_(True), settings, penalty
        #: All that decides the course of later steps beside the weights, for a resume point.
        self.counters: dict[str, float] = {}

    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of `x` on which each latent is active [d_sae]."""
        return self.sae.active_tokens(x)

    def look(self, density: torch.Tensor) -> None:
        """Nothing about the way of computing depends on the data."""

    def __call__(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in]."""
        low = self.settings.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if low else nullcontext():
            loss, _, _ = self.sae.loss(x, self.settings, self.penalty)
        parameters = list(self.sae.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient


class Sums(NamedTuple):
    """What threads add up.

    ``decoder`` and ``encoder`` [d_sae, d_in] are one array of a tied autoencoder, the latter
    transposed; ``b_enc`` [d_sae] and ``b_dec`` [d_in] are by the biases, and ``in_band``
    [2, d_sae] is of latents with thresholds (:func:`lfp.sae.training.kernels.jump_gradients`).
    """

    decoder: np.ndarray
    encoder: np.ndarray
    b_enc: np.ndarray
    b_dec: np.ndarray
    in_band: np.ndarray


class Gradients:
    """Closed-form gradients of the standard autoencoder's loss; they set its parameters' ``grad``.

    Buffers are kept between batches: fresh memory of this size costs as much as a matrix product.

    Parameters
    ----------
    sae
        The autoencoder; its parameters may have any floating type.
    penalty
        Weight of the L1 norm, a tensor without axes that training changes.
    precision
        Type of the matrix products of the dense path.
    threads
        Threads of the sparse path, each with a share of the tokens.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        penalty: torch.Tensor,
        precision: torch.dtype = torch.float32,
        threads: int = 1,
    ) -> None:
        self.sae, self.penalty, self.precision, self.threads = sae, penalty, precision, threads
        self._buffers: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def dense(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in] by matrix products over all latents."""
        sae, (n, d), kind = self.sae, x.shape, self.precision
        norms = sae.decoder.norm(dim=1, keepdim=True)
        w_dec = sae.decoder / norms
        low = w_dec.to(kind)
        w_enc = low.T if sae.encoder is None else sae.encoder.to(kind)
        x = x.to(kind)
        code = torch.addmm(
            sae.b_enc.to(kind), x, w_enc, out=self._buffer("code", n, sae.d_sae, kind)
        ).relu_()
        error = torch.addmm(
            sae.b_dec.to(kind), code, low, out=self._buffer("error", n, d, kind)
        ).sub_(x)
        # 2 / (n d) goes into the products that read the error, where it costs nothing.
        scale = 2 / (n * d)
        penalty = (self.penalty / n).to(kind).expand(sae.d_sae)
        sent = torch.addmm(
            penalty, error, low.T, alpha=scale, out=self._buffer("sent", n, sae.d_sae, kind)
        )
        torch.ops.aten.threshold_backward.grad_input(
            sent, code, 0, grad_input=sent
        )  # 0 where no latent was active
        d_dec = torch.mm(code.T, error, out=self._buffer("decoder", sae.d_sae, d, kind))
        if sae.encoder is None:
            d_dec.addmm_(sent.T, x, beta=scale)
        else:
            d_dec.mul_(scale)
            sae.encoder.grad = torch.mm(
                x.T, sent, out=self._buffer("encoder", d, sae.d_sae, kind)
            ).to(sae.encoder)
        sae.b_enc.grad, sae.b_dec.grad = (
            sent.sum(0).to(sae.b_enc),
            error.sum(0).to(sae.b_dec).mul_(scale),
        )
        sae.decoder.grad = _on_the_sphere(d_dec.to(w_dec), w_dec, norms)

    @torch.no_grad()
    def sparse(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in] on a CPU, at a cost in proportion to active latents."""
        from lfp.sae.training import kernels

        sae, (n, d) = self.sae, x.shape
        norms = sae.decoder.norm(dim=1, keepdim=True)
        w_dec = sae.decoder / norms
        w_enc = w_dec.T if sae.encoder is None else sae.encoder
        pre = torch.mm(x, w_enc, out=self._buffer("code", n, sae.d_sae, x.dtype)).numpy()
        scalar = pre.dtype.type
        b_enc, b_dec = sae.b_enc.detach().numpy(), sae.b_dec.detach().numpy()
        l1, scale = scalar(self.penalty.item() / n), scalar(2 / (n * d))

        def part(tokens: slice, sums: Sums) -> None:
            kernels.gradients(
                pre[tokens], b_enc, x.numpy()[tokens], w_dec.numpy(), b_dec, l1, scale,
                sums.decoder, sums.encoder, sums.b_enc, sums.b_dec,
            )  # fmt: skip

        self._summed(part, n, w_dec, norms)

    def _summed(
        self,
        part: Callable[[slice, Sums], None],
        n: int,
        w_dec: torch.Tensor,
        norms: torch.Tensor,
    ) -> torch.Tensor:
        """Set the gradients that all threads come to together.

        Parameters
        ----------
        part
            Adds the gradients of a slice of the tokens to sums.
        n
            Number of tokens.
        w_dec, norms
            Unit rows of the decoder [d_sae, d_in], and their norms before [d_sae, 1].

        Returns
        -------
        Tensor
            The sum ``in_band`` of :class:`Sums`.
        """
        sae, scalar = self.sae, w_dec.numpy().dtype
        tied = sae.encoder is None
        for parameter in sae.parameters():
            parameter.grad = None  # those of the last step would be held beside these

        def of_rows(rows: np.ndarray) -> Sums:
            decoder = np.zeros((sae.d_sae, sae.d_in), scalar)
            encoder = decoder if tied else np.zeros_like(decoder)
            shapes = ((sae.d_sae,), (sae.d_in,), (2, sae.d_sae))
            b_enc, b_dec, in_band = (np.zeros(shape, scalar) for shape in shapes)
            sums = Sums(decoder, encoder, b_enc, b_dec, in_band)
            part(slice(rows[0], rows[-1] + 1), sums)
            return sums

        parts = [rows for rows in np.array_split(np.arange(n), self.threads) if len(rows)]
        if len(parts) == 1:
            of_parts = [of_rows(parts[0])]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                of_parts = list(pool.map(of_rows, parts))
        d_dec, d_enc, d_b_enc, d_b_dec, in_band = (
            torch.from_numpy(sum(arrays[1:], arrays[0])) for arrays in zip(*of_parts, strict=True)
        )
        if not tied:
            sae.encoder.grad = d_enc.T.contiguous()
        sae.b_enc.grad, sae.b_dec.grad = d_b_enc, d_b_dec
        sae.decoder.grad = _on_the_sphere(d_dec, w_dec, norms)
        return in_band

    def _buffer(self, name: str, rows: int, columns: int, kind: torch.dtype) -> torch.Tensor:
        """Memory for [rows, columns] that is kept until more rows are asked for."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows or buffer.dtype != kind:
            buffer = torch.empty(rows, columns, dtype=kind, device=self.sae.b_dec.device)
            self._buffers[name] = buffer
        return buffer[:rows]


def _on_the_sphere(
    gradient: torch.Tensor, directions: torch.Tensor, norms: torch.Tensor
) -> torch.Tensor:
    """The gradient by rows before their normalisation, from that by the unit rows `directions`.

    It takes the place of the `gradient` that is given.
    """
    along = torch.linalg.vecdot(gradient, directions)[:, None]
    return gradient.addcmul_(along, directions, value=-1).div_(norms)


class WrittenOut:
    """:class:`Gradients` on the path, dense or sparse, that the measured density asks for.

    Parameters
    ----------
    sae, settings
        The autoencoder and the settings of its loss.
    penalty
        The current weight of the L1 norm, a tensor without axes that training changes.
    tokens
        Tokens that training reads in all; a short training is not worth loading the kernels.
    threads
        Threads of the sparse path.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        settings: Autoencoder,
        penalty: torch.Tensor,
        tokens: int,
        threads: int,
    ) -> None:
        self.sae = sae.requires_grad_(False)
        precision = getattr(torch, settings.precision)
        self.gradients = Gradients(sae, penalty, precision, threads)
        self.may_be_sparse = may_be_sparse(sae, settings, tokens)
        self.counters = {"sparse": False, "density": 1.0}

    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of `x` on which each latent is active [d_sae]."""
        return self.sae.active_tokens(x)

    def look(self, density: torch.Tensor) -> None:
        """Choose the path by the `density`, the share of latents that are active on a batch."""
        if self.may_be_sparse:
            share = density.item()
            sparse = sparse_pays(share, self.sae.d_in * self.sae.d_sae)
            self.counters |= {"density": share, "sparse": sparse}

    def __call__(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in]."""
        (self.gradients.sparse if self.counters["sparse"] else self.gradients.dense)(x)


def gradients_of(
    sae: SparseAutoencoder,
    settings: Autoencoder,
    penalty: torch.Tensor,
    tokens: int,
    threads: int,
) -> Autograd | WrittenOut:
    """The computation of gradients in training.

    It is written out for the paper's architecture of one model's activations, and for those that
    choose few latents (:mod:`lfp.sae.training.chosen`) where the kernels pay; it is automatic for
    any other.

    Parameters
    ----------
    sae, settings
        The autoencoder and the settings of its loss.
    penalty
        The current weight of the L1 norm, a tensor without axes that training changes.
    tokens, threads
        Tokens that training reads in all, and threads of the sparse path.
    """
    if type(sae) is Standard and sae.sides == 1:
        return WrittenOut(sae, settings, penalty, tokens, threads)
    if sae.sides == 1 and may_be_sparse(sae, settings, tokens):
        from lfp.sae.training.chosen import CHOSEN

        if sae.architecture in CHOSEN:
            return CHOSEN[sae.architecture](sae, settings, penalty, threads)
    return Autograd(sae, settings, penalty)
