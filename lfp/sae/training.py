"""Training of sparse autoencoders, with the gradients of the loss written out (paper section 3.2).

With f = ReLU(x W_enc + b_enc), e = f W_dec + b_dec - x, n tokens of d dimensions and g = 2 e / (n
d), the loss mean(e^2) + l1 mean_t |f| has the gradients

    by b_dec   sum_t g              by W_dec   f^T g
    by b_enc   sum_t h              by W_enc   x^T h        where h = (g W_dec^T + l1 / n) [f > 0]

which a tied autoencoder adds up, and which lose their part along a row of the decoder, whose norm
is fixed. That is five matrix products; automatic differentiation takes the same five and keeps what
it needs in fresh memory. Where few features are active, four of the five cost in proportion to the
active ones (:mod:`~lfp.sae.kernels`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.optim.adam import adam

from lfp.files.resume import Clock, check_finite, load_tensors, save_tensors
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.sae.autoencoder import SparseAutoencoder
from lfp.settings import Autoencoder

log = logging.getLogger(__name__)

#: Steps between two looks at how many features are active.
LOOK_EVERY = 50
#: Weights above which the sparse path, which gathers their rows, leaves the cache and pays off at a
#: lower density.
CACHED_WEIGHTS = 2**21
#: Steps that a GPU takes before one is recorded: its libraries set themselves up in the first ones.
WARM_UP = 3
#: Floating-point operations of a training from which on the kernels are worth the half second that
#: loading them takes.
KERNELS_PAY = 3e10


def sparse_pays(density: float, weights: int) -> bool:
    """Whether the sparse path is the faster one on a CPU at this share of active features;
    `weights` is d_in d_sae.
    """
    return density < (0.25 if weights <= CACHED_WEIGHTS else 0.16)


def can_capture(device: str) -> bool:
    """Whether `device` records steps and replays them."""
    return device == "cuda"


class Gradients:
    """Closed-form gradients of an autoencoder's loss, written into its parameters' ``grad``.

    Buffers are kept between batches: fresh memory of this size costs as much as a matrix product.

    Parameters
    ----------
    sae
        The autoencoder; its parameters may have any floating type.
    l1
        Weight of the L1 norm.
    precision
        Type of the matrix products of the dense path.
    threads
        Threads of the sparse path, each with a share of the tokens.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        l1: float,
        precision: torch.dtype = torch.float32,
        threads: int = 1,
    ) -> None:
        self.sae, self.l1, self.precision, self.threads = sae, l1, precision, threads
        self._buffers: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def dense(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in] by matrix products over all features."""
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
        penalty = torch.full_like(sae.b_enc, self.l1 / n, dtype=kind)
        sent = torch.addmm(
            penalty, error, low.T, alpha=scale, out=self._buffer("sent", n, sae.d_sae, kind)
        )
        torch.ops.aten.threshold_backward.grad_input(
            sent, code, 0, grad_input=sent
        )  # 0 where no feature was active
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
        """Gradients for `x` [token, d_in] on a CPU, at a cost in proportion to active features."""
        from lfp.sae import kernels

        sae, (n, d) = self.sae, x.shape
        norms = sae.decoder.norm(dim=1, keepdim=True)
        w_dec = sae.decoder / norms
        w_enc = w_dec.T if sae.encoder is None else sae.encoder
        pre = torch.mm(x, w_enc, out=self._buffer("code", n, sae.d_sae, x.dtype)).numpy()
        scalar = pre.dtype.type
        tied, b_enc = sae.encoder is None, sae.b_enc.detach().numpy()
        fixed = (
            w_dec.numpy(),
            sae.b_dec.detach().numpy(),
            scalar(self.l1 / n),
            scalar(2 / (n * d)),
        )

        def part(rows: np.ndarray) -> list[np.ndarray]:
            decoder = np.zeros((sae.d_sae, d), scalar)
            encoder = decoder if tied else np.zeros_like(decoder)
            grads = [decoder, encoder, np.zeros(sae.d_sae, scalar), np.zeros(d, scalar)]
            chosen = slice(rows[0], rows[-1] + 1)
            kernels.gradients(pre[chosen], b_enc, x.numpy()[chosen], *fixed, *grads)
            return grads

        parts = [rows for rows in np.array_split(np.arange(n), self.threads) if len(rows)]
        if len(parts) == 1:
            found = [part(parts[0])]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                found = list(pool.map(part, parts))
        d_dec, d_enc, d_b_enc, d_b_dec = (
            torch.from_numpy(sum(arrays[1:], arrays[0])) for arrays in zip(*found, strict=True)
        )
        if not tied:
            sae.encoder.grad = d_enc.T.contiguous()
        sae.b_enc.grad, sae.b_dec.grad = d_b_enc, d_b_dec
        sae.decoder.grad = _on_the_sphere(d_dec, w_dec, norms)

    def _buffer(self, name: str, rows: int, columns: int, kind: torch.dtype) -> torch.Tensor:
        """Memory for [rows, columns] that is kept until more rows are asked for."""
        found = self._buffers.get(name)
        if found is None or len(found) < rows or found.dtype != kind:
            found = torch.empty(rows, columns, dtype=kind, device=self.sae.b_dec.device)
            self._buffers[name] = found
        return found[:rows]


def _on_the_sphere(
    gradient: torch.Tensor, directions: torch.Tensor, norms: torch.Tensor
) -> torch.Tensor:
    """The gradient by rows before their normalisation, from that by the unit rows `directions`."""
    along = torch.linalg.vecdot(gradient, directions)[:, None]
    return torch.addcmul(gradient, along, directions, value=-1).div_(norms)


class Adam:
    """torch's fused Adam by its functional form: the class would first import torch's compiler, for
    a second.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], learning_rate: float) -> None:
        self.parameters, self.learning_rate = list(parameters), learning_rate
        self.means, self.squares = (
            [torch.zeros_like(p) for p in self.parameters] for _ in range(2)
        )
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters against their gradients."""
        adam(
            self.parameters, [p.grad for p in self.parameters], self.means, self.squares, [],
            self.steps,
            fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=self.learning_rate,
            weight_decay=0.0, eps=1e-8,
            maximize=False,
        )  # fmt: skip


class Captured:
    """A step that a GPU records and replays: starting its twenty kernels one by one takes longer
    than they do.

    A batch smaller than the others, as the last of an epoch may be, is computed without the
    recording.

    Parameters
    ----------
    step
        Of a batch [token, d_in]. It waits for nothing that the device computes, and reads and
        writes what lies in the same place every time.
    batch_size
        Tokens of the batches that replay it.
    """

    def __init__(self, step: Callable[[torch.Tensor], None], batch_size: int) -> None:
        self.step, self.batch_size, self.warm = step, batch_size, 0
        self.x: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> None:
        """Do the step for `x`."""
        if len(x) != self.batch_size or self.warm < WARM_UP:
            self.warm += len(x) == self.batch_size
            self.step(x)
            return
        if self.x is None:
            self.x, self.graph = x.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # which computes nothing
                self.step(self.x)
        self.x.copy_(x)
        self.graph.replay()


#: What a resume point keeps of a trainer beside its tensors.
_COUNTERS = ("step_number", "sparse", "density")


class _Trainer:
    """One autoencoder on its way: its weights, Adam, and the path that its density asks for."""

    def __init__(
        self,
        shape: tuple[int, int],
        d_sae: int,
        settings: Autoencoder,
        seed: int,
        device: str,
        threads: int,
    ) -> None:
        tokens, d_in = shape
        torch.manual_seed(seed)
        self.sae = SparseAutoencoder(d_in, d_sae, settings.tied).to(device)
        self.sae.requires_grad_(False)
        self.optimizer = Adam(self.sae.parameters(), settings.learning_rate)
        self.gradients = Gradients(
            self.sae, settings.l1, getattr(torch, settings.precision), threads
        )
        work = 10 * tokens * settings.epochs * d_in * d_sae
        self.may_be_sparse = (
            device == "cpu" and settings.precision == "float32" and work > KERNELS_PAY
        )
        self.step_number, self.sparse, self.density = 0, False, 1.0
        self.compute = (
            Captured(self._compute, settings.batch_size) if can_capture(device) else self._compute
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name."""
        moments = {
            "mean": self.optimizer.means,
            "square": self.optimizer.squares,
            "step": self.optimizer.steps,
        }
        found = dict(self.sae.named_parameters())
        return found | {
            f"{kind}.{i}": value
            for kind, values in moments.items()
            for i, value in enumerate(values)
        }

    def report(self, epoch: int, batch: torch.Tensor, l1: float) -> dict[str, float]:
        """Log the losses on a batch, and return them."""
        loss, error, sparsity = (value.item() for value in self.sae.loss(batch, l1))
        log.info(
            "epoch %d, %d features: loss %.5f, squared error %.5f, L1 %.3f, %.1f %% active, %s",
            epoch, self.sae.d_sae, loss, error, sparsity, 100 * self.density,
            "sparse" if self.sparse else "dense",
        )  # fmt: skip
        return {
            "step": epoch,
            "features": self.sae.d_sae,
            "loss": loss,
            "squared_error": error,
            "l1_norm": sparsity,
        }

    def step(self, x: torch.Tensor) -> None:
        if self.step_number % LOOK_EVERY == 0:
            self.density = (self.sae.encode(x) > 0).float().mean().item()
            self.sparse = self.may_be_sparse and sparse_pays(
                self.density, self.sae.d_in * self.sae.d_sae
            )
        self.compute(x)
        self.step_number += 1

    def _compute(self, x: torch.Tensor) -> None:
        (self.gradients.sparse if self.sparse else self.gradients.dense)(x)
        self.optimizer.step()


def train(
    activations: np.ndarray,
    sizes: Sequence[int],
    settings: Autoencoder,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    state_path: str | Path | None = None,
) -> list[SparseAutoencoder]:
    """Train autoencoders of `sizes` features on `activations` [token, d_in] with Adam (paper
    section 3.2).

    The activations are read as they lie, a batch at a time and once for all sizes; they may be a
    file, of float16 or float32, whose tokens :func:`~lfp.sae.harvest.harvest` has shuffled. Every
    epoch takes the batches in another order. Weights start from `seed` plus the size's place in
    `sizes`. With `state_path` the state is kept there once a minute, and training resumes from it
    to the same result.

    Raises
    ------
    DivergedError
        Where a loss is not finite at the end of an epoch.
    """
    trainers = [
        _Trainer(activations.shape, size, settings, seed + i, device, threads)
        for i, size in enumerate(sizes)
    ]
    starts = np.arange(0, len(activations), settings.batch_size)
    rng, clock, curve, tracker = np.random.default_rng(seed), Clock(), [], Tracker()
    order = [start for _ in range(settings.epochs) for start in rng.permutation(starts)]
    first = _restore(trainers, state_path) if state_path else 0
    with Progress(
        total=len(order), initial=first, desc=f"autoencoders of {', '.join(map(str, sizes))}"
    ) as bar:
        for number, start in enumerate(order[first:], first + 1):
            rows = np.array(activations[start : start + settings.batch_size])
            batch = (
                torch.from_numpy(rows).to(device).float()
            )  # a GPU receives what lies on disk, half the bytes
            for trainer in trainers:
                trainer.step(batch)
            bar.update()
            if number % len(starts) == 0:
                for trainer in trainers:
                    curve.append(trainer.report(number // len(starts) - 1, batch, settings.l1))
                    tracker.add(curve[-1], f"features_{trainer.sae.d_sae}")
                    check_finite(f"autoencoder of {trainer.sae.d_sae} features", curve)
            if state_path and clock.due():
                _keep(trainers, state_path, number)
    if state_path:
        Path(state_path).unlink(missing_ok=True)
    return [trainer.sae.eval() for trainer in trainers]


def _keep(trainers: Sequence[_Trainer], state_path: str | Path, number: int) -> None:
    """Write a resume point behind batch `number`."""
    tensors = {
        f"{i}.{name}": value
        for i, trainer in enumerate(trainers)
        for name, value in trainer.tensors().items()
    }
    counters = [{name: getattr(trainer, name) for name in _COUNTERS} for trainer in trainers]
    save_tensors(state_path, tensors, {"number": number, "trainers": counters})


def _restore(trainers: Sequence[_Trainer], state_path: str | Path) -> int:
    """Put `trainers` where the resume point says, and return the number of batches that are behind
    it.
    """
    found = load_tensors(state_path)
    if found is None:
        return 0
    tensors, counters = found
    for i, trainer in enumerate(trainers):
        for name, value in trainer.tensors().items():
            value.copy_(tensors[f"{i}.{name}"])
        for name, value in counters["trainers"][i].items():
            setattr(trainer, name, value)
    log.info("resuming behind batch %d", counters["number"])
    return counters["number"]
