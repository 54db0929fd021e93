"""Training of sparse autoencoders of any architecture, with resume points and a curve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.optim.adam import adam

from lfp.files.resume import Clock, check_finite, load_tensors, save_tensors
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.sae.architectures import ARCHITECTURES, check_registered
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.gradients import gradients_of
from lfp.settings import Autoencoder

log = logging.getLogger(__name__)

#: Steps that a GPU takes before one is recorded: its libraries set themselves up in the first ones.
WARM_UP = 3


def can_capture(device: str) -> bool:
    """Whether `device` records steps and replays them."""
    return device == "cuda"


class Adam:
    """The fused Adam of torch by its functional form.

    The class would first import torch's compiler, for a second.
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
            self.steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=self.learning_rate,
            weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip


class Captured:
    """A step that a GPU records and replays.

    Starting its twenty kernels one by one takes longer than running them.

    A batch smaller than the others, as the last of an epoch may be, is computed without the
    recording.

    Parameters
    ----------
    step
        The step for a batch [token, d_in]. It waits for nothing that the device computes, and
        reads and writes the same places in memory every time.
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
            with torch.cuda.graph(self.graph):  # recording computes nothing
                self.step(self.x)
        self.x.copy_(x)
        self.graph.replay()


class _Trainer:
    """One autoencoder in training: its weights, Adam, and the computation of its gradients."""

    def __init__(
        self, sae: SparseAutoencoder, settings: Autoencoder, tokens: int, device: str, threads: int
    ) -> None:
        self.sae, self.settings, self.step_number = sae.to(device), settings, 0
        self.gradients = gradients_of(self.sae, settings, tokens, threads)
        self.optimizer = Adam(self.sae.parameters(), settings.learning_rate)
        captured = can_capture(device)
        self.compute = Captured(self._compute, settings.batch_size) if captured else self._compute

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that training changes, by name."""
        moments = {
            "mean": self.optimizer.means,
            "square": self.optimizer.squares,
            "step": self.optimizer.steps,
        }
        named = {name: value.detach() for name, value in self.sae.named_parameters()}
        return named | {
            f"{kind}.{i}": value
            for kind, values in moments.items()
            for i, value in enumerate(values)
        }

    @torch.no_grad()
    def report(self, epoch: int, batch: torch.Tensor) -> dict[str, float]:
        """Log the losses on a batch, and return them."""
        loss, error, sparsity = (value.item() for value in self.sae.loss(batch, self.settings))
        active = (self.sae.encode(batch) > 0).float().mean().item()
        log.info(
            "epoch %d, %d latents: loss %.5f, squared error %.5f, L1 %.3f, %.1f %% active, %s",
            epoch, self.sae.d_sae, loss, error, sparsity, 100 * active, self.gradients.counters,
        )  # fmt: skip
        return {
            "step": epoch,
            "latents": self.sae.d_sae,
            "loss": loss,
            "squared_error": error,
            "l1_norm": sparsity,
        }

    def step(self, x: torch.Tensor) -> None:
        """Move the weights by one batch."""
        self.gradients.look(x, self.step_number)
        self.compute(x)
        self.step_number += 1

    def _compute(self, x: torch.Tensor) -> None:
        self.gradients(x)
        self.optimizer.step()


def train(
    activations: np.ndarray,
    sizes: Sequence[int],
    settings: Autoencoder,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    state_path: str | Path | None = None,
    rows: np.ndarray | None = None,
) -> list[SparseAutoencoder]:
    """Train autoencoders of several sizes on the same activations with Adam (paper section 3.2).

    Activations are read a batch at a time, once for all sizes; an epoch has its order of batches.

    Parameters
    ----------
    activations
        Activations [token, d_in], of float16 or float32; they may be a file whose tokens
        :func:`~lfp.sae.harvest.harvest` has shuffled.
    sizes
        Number of latents of each autoencoder.
    settings
        Architecture, loss, learning rate, batches and epochs.
    seed
        Seed of the order of batches; weights start from it plus the size's place in `sizes`.
    device, threads
        Device of the training, and threads of the sparse kernels on a CPU.
    state_path
        A resume point, kept once a minute: training goes on behind it to the same result.
    rows
        Indices of the activations that are learned from, ascending; None for all of them.

    Returns
    -------
    list
        The autoencoders in the order of `sizes`.

    Raises
    ------
    DivergedError
        Where a loss is not finite at the end of an epoch.
    """
    tokens = len(activations if rows is None else rows)
    trainers = _trainers((tokens, activations.shape[1]), sizes, settings, seed, device, threads)
    starts = np.arange(0, tokens, settings.batch_size)
    rng, clock, curve, tracker = np.random.default_rng(seed), Clock(), [], Tracker()
    order = [start for _ in range(settings.epochs) for start in rng.permutation(starts)]
    first = _restore(trainers, state_path) if state_path else 0
    title = f"autoencoders of {', '.join(map(str, sizes))}"
    with Progress(total=len(order), initial=first, desc=title) as bar:
        for number, start in enumerate(order[first:], first + 1):
            batch = _batch(activations, rows, slice(start, start + settings.batch_size), device)
            for trainer in trainers:
                trainer.step(batch)
            bar.update()
            if number % len(starts) == 0:
                for trainer in trainers:
                    curve.append(trainer.report(number // len(starts) - 1, batch))
                    tracker.add(curve[-1], f"latents_{trainer.sae.d_sae}")
                    check_finite(f"autoencoder of {trainer.sae.d_sae} latents", curve)
            if state_path and clock.due():
                _keep(trainers, state_path, number)
    return [trainer.sae.eval().requires_grad_(False) for trainer in trainers]


def _batch(
    activations: np.ndarray, rows: np.ndarray | None, part: slice, device: str
) -> torch.Tensor:
    """A part of the activations, or of their `rows`, in float32."""
    read = np.array(activations[part] if rows is None else activations[rows[part]])
    # A GPU receives float16 as on disk, half the bytes.
    return torch.from_numpy(read).to(device).float()


def _trainers(
    shape: tuple[int, int],
    sizes: Sequence[int],
    settings: Autoencoder,
    seed: int,
    device: str,
    threads: int,
) -> list[_Trainer]:
    """A trainer of each size for activations of `shape`."""
    trainers = []
    for i, size in enumerate(sizes):
        torch.manual_seed(seed + i)
        sae = ARCHITECTURES[settings.architecture].of_settings(shape[1], size, settings)
        check_registered(sae)
        trainers.append(_Trainer(sae, settings, shape[0] * settings.epochs, device, threads))
    return trainers


def _keep(trainers: Sequence[_Trainer], state_path: str | Path, number: int) -> None:
    """Write a resume point behind batch `number`."""
    tensors = {
        f"{i}.{name}": value
        for i, trainer in enumerate(trainers)
        for name, value in trainer.tensors().items()
    }
    counters = [{"step": t.step_number, "gradients": t.gradients.counters} for t in trainers]
    save_tensors(state_path, tensors, {"number": number, "trainers": counters})


def _restore(trainers: Sequence[_Trainer], state_path: str | Path) -> int:
    """Put `trainers` at the resume point, and return the number of batches before it."""
    state = load_tensors(state_path)
    if state is None:
        return 0
    tensors, counters = state
    for i, trainer in enumerate(trainers):
        for name, value in trainer.tensors().items():
            value.copy_(tensors[f"{i}.{name}"])
        trainer.step_number = counters["trainers"][i]["step"]
        trainer.gradients.counters |= counters["trainers"][i]["gradients"]
    log.info("resuming behind batch %d", counters["number"])
    return counters["number"]
