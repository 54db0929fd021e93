"""Training of sparse autoencoders of any architecture, with resume points and a curve."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from lfp.files.resume import Clock, check_finite, load_tensors, save_tensors
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.sae.architectures import ARCHITECTURES, check_registered
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.training.collector import Collector
from lfp.sae.training.mutual import Pull, check_twin
from lfp.sae.training.scaling import Scale
from lfp.sae.training.schedule import Schedule
from lfp.sae.training.trainer import LOOK_EVERY, Trainer
from lfp.settings import Autoencoder

log = logging.getLogger(__name__)

#: One token of so many is held out of training, up to the number below.
HELD_OUT_SHARE, HELD_OUT_MOST = 16, 8192
#: Columns of a curve; an architecture without a penalty has no ``l1``.
COLUMNS = ("step", "autoencoder", "loss", "fvu", "l0", "dead", "l1")
#: Looks at the held-out activations between two searches for dead latents.
RESAMPLE_EVERY = 2


@dataclass
class Trained:
    """The outcome of a training.

    ``autoencoders`` are in the order of the sizes; behind them is one of the first size from
    another seed, where the settings ask for it. ``l1`` has the penalty of each at the end, on
    scaled activations, None of one from elsewhere. Rows of the ``curve`` have losses and sparsity
    on held-out activations at every look (:data:`COLUMNS`). ``flat`` says whether the held-out loss
    had become flat, None where no gradient trains, and ``steps`` how many steps were taken.
    """

    autoencoders: list[SparseAutoencoder]
    l1: list[float | None]
    curve: list[dict[str, Any]]
    flat: bool | None
    steps: int

    @classmethod
    def elsewhere(cls, sae: SparseAutoencoder, width: int) -> Self:
        """A dictionary that was trained elsewhere, for activations of a `width`.

        Raises ValueError where it reads another width.
        """
        if sae.d_in != width:
            raise ValueError(
                f"the dictionary from {sae.metadata['origin']} reads {sae.d_in} dimensions, and the"
                f" site has {width}; take one of this model, or correct the variant's `site`"
            )
        return cls([sae], [None], [], flat=None, steps=0)

    @property
    def about(self) -> dict[str, Any]:
        """What autoencoders on disk say of their training, or of where they come from."""
        about = {"flat": self.flat, "steps": self.steps}
        elsewhere = self.autoencoders[0].metadata.get("origin")
        return about if elsewhere is None else about | {"origin": elsewhere, "tied": False}

    @property
    def headline(self) -> str:
        """The end of the training in a few words."""
        ends = {True: ", held-out loss flat", False: ", held-out loss not yet flat", None: ""}
        return f"{self.steps} steps{ends[self.flat]}"

    def table(self) -> pd.DataFrame:
        """The curve as a table, whose columns are there without a row, too."""
        return pd.DataFrame(self.curve, columns=list(COLUMNS))


def train(
    activations: np.ndarray,
    sizes: Sequence[int],
    settings: Autoencoder,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    state_path: str | Path | None = None,
    rows: np.ndarray | None = None,
) -> Trained:
    """Train autoencoders of several sizes on the same activations with Adam (paper section 3.2).

    Activations are read a batch at a time, once for all sizes; an epoch has its order of batches.
    The last tokens are held out (:data:`HELD_OUT_SHARE`), and the training ends where the loss on
    them is flat (:class:`~lfp.sae.training.schedule.Schedule`).

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
        Seed of the order of batches; weights start from it plus the autoencoder's place.
    device, threads
        Device of the training, and threads of the sparse kernels on a CPU.
    state_path
        A resume point, kept once a minute: training goes on behind it to the same result.
    rows
        Indices of the activations that are learned from, ascending; None for all of them.

    Raises
    ------
    DivergedError
        Where a loss is not finite at a look at the held-out activations.
    """
    data = _Data(activations, rows, settings, device)
    schedule = Schedule(settings, _passes(settings) * data.batches)
    group = _trainers(data, sizes, settings, seed, device, threads)
    trainers = group.all
    curve: list[dict[str, Any]] = []
    first = _restore(trainers, schedule, curve, state_path) if state_path else 0
    clock, tracker, order = Clock(), Tracker(), _Order(data.batches, seed)
    with Progress(total=schedule.steps, initial=first, desc=group.title) as bar:
        step = first
        while step < schedule.steps:
            batch = data.batch(order.place(step))
            rate, warmth = schedule.learning_rate(step), schedule.warmth(step)
            for trainer in trainers:
                trainer.step(batch, step, rate, warmth)
            step += 1
            bar.update()
            if step % settings.check_steps == 0 or step == schedule.steps:
                _check(trainers, schedule, data.held_out, step, curve, tracker)
                if _resamples(settings, schedule, step):
                    group.resample(batch, (seed, step))
            if state_path and clock.due():
                _keep(trainers, schedule, curve, state_path, step)
        bar.total = step
    log.info("%d steps; the held-out loss is %s", step, "flat" if schedule.flat else "not yet flat")
    group.finish(curve)
    return _trained(group.kept, data, curve, schedule)


def _passes(settings: Autoencoder) -> int:
    """Passes over the activations, at most."""
    return settings.epochs if ARCHITECTURES[settings.architecture].by_gradients else 1


class _Data:
    """The activations of a training: batches, and a part that is held out, on one scale."""

    def __init__(
        self, activations: np.ndarray, rows: np.ndarray | None, settings: Autoencoder, device: str
    ) -> None:
        self.activations, self.rows, self.device = activations, rows, device
        total, self.width = len(activations if rows is None else rows), activations.shape[1]
        #: Tokens that are learned from.
        spared = min(HELD_OUT_MOST, total // HELD_OUT_SHARE)
        self.tokens = total - spared if spared > 1 else total  # of one token nothing varies
        self.scale = (
            Scale.of(activations, rows, device)
            if settings.normalise
            else Scale.none(self.width, device)
        )
        self.batch_size = settings.batch_size
        #: Number of batches of an epoch.
        self.batches = -(-self.tokens // self.batch_size)
        # Of a handful of tokens none can be spared.
        held_out = slice(self.tokens, total) if self.tokens < total else slice(0, total)
        self.held_out = self._read(held_out)

    def batch(self, number: int) -> torch.Tensor:
        """The batch of a number, in float32 and scaled."""
        start = number * self.batch_size
        return self._read(slice(start, min(start + self.batch_size, self.tokens)))

    def _read(self, part: slice) -> torch.Tensor:
        source = self.activations
        read = np.array(source[part] if self.rows is None else source[self.rows[part]])
        # A GPU receives float16 as on disk, half the bytes.
        return self.scale.applied(torch.from_numpy(read).to(self.device).float())


class _Order:
    """The order of an epoch's batches, which depends on the seed and the epoch alone."""

    def __init__(self, batches: int, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.epoch, self.places = -1, np.zeros(0, int)

    def place(self, step: int) -> int:
        """The batch of a step."""
        epoch, index = divmod(step, self.batches)
        if epoch != self.epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self.epoch, self.places = epoch, rng.permutation(self.batches)
        return int(self.places[index])


@dataclass
class _Trainers:
    """The autoencoders in training: those that are kept, and those beside them.

    ``kept`` are one of each size, and one of the first size from another seed. ``partners`` are
    those of mutual feature regularisation, and ``twins`` by the name of the kept one have its seed
    and no partner.
    """

    kept: list[Trainer | Collector]
    partners: list[Trainer]
    twins: dict[str, Trainer]

    @property
    def title(self) -> str:
        """The name of the work on all of them."""
        return f"autoencoders of {', '.join(trainer.name for trainer in self.all)}"

    @property
    def all(self) -> list[Trainer | Collector]:
        """All of them, the kept ones first."""
        return [*self.kept, *self.partners, *self.twins.values()]

    def resample(self, batch: torch.Tensor, seed: tuple[int, int]) -> None:
        """Let dead latents begin anew; a twin has the draws of the kept one."""
        names = [trainer.name for trainer in self.kept]
        places = list(enumerate([*self.kept, *self.partners]))
        places += [(names.index(name), twin) for name, twin in self.twins.items()]
        for place, trainer in places:
            trainer.resample(batch, np.random.default_rng((*seed, place)))

    def finish(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """End the work of all, and hold those with partners against their twins."""
        for trainer in self.all:
            trainer.finish()
        for name, twin in self.twins.items() if curve else ():  # without a token no step was taken
            check_twin(name, curve, twin.name)


def _trainers(
    data: _Data,
    sizes: Sequence[int],
    settings: Autoencoder,
    seed: int,
    device: str,
    threads: int,
) -> _Trainers:
    """A trainer of each size, one of the first size from another seed, and those beside them."""
    kind, mutual = ARCHITECTURES[settings.architecture], settings.mutual
    tokens = data.tokens * settings.epochs

    def of_seed(size: int, name: str, start: int) -> Trainer | Collector:
        torch.manual_seed(start)
        sae = kind.of_settings(data.width, size, settings)
        check_registered(sae)
        if not kind.by_gradients:
            return Collector(sae, name, settings, start, device)
        return Trainer(sae, name, settings, tokens, device, threads)

    names = [f"{size} latents" for size in sizes]
    if settings.other_seed:
        sizes, names = [*sizes, sizes[0]], [*names, f"{sizes[0]} latents, other seed"]
    kept = [
        of_seed(size, name, seed + i)
        for i, (size, name) in enumerate(zip(sizes, names, strict=True))
    ]
    result = _Trainers(kept, [], {})
    for i, trainer in enumerate(kept if mutual else []):
        size, others = sizes[i], range(1, mutual.partners)
        beside = [
            of_seed(size, f"{trainer.name}, partner {j}", seed + j * len(kept) + i) for j in others
        ]
        group = [trainer, *beside]
        for one in group:
            partners = [other.sae for other in group if other is not one]
            one.pull = Pull(one.sae, partners, mutual)
        result.partners += beside
        if i < len(kept) - settings.other_seed:
            twin = of_seed(size, f"{trainer.name}, without partners", seed + i)
            result.twins[trainer.name] = twin
    return result


def _check(
    trainers: Sequence[Trainer | Collector],
    schedule: Schedule,
    held_out: torch.Tensor,
    step: int,
    curve: list[dict[str, Any]],
    tracker: Tracker,
) -> None:
    """Add a row for each autoencoder to the `curve`, and let the schedule look at them."""
    measured = [trainer.measured(held_out) for trainer in trainers]
    for trainer, row in zip(trainers, measured, strict=True):
        curve.append({"step": step, "autoencoder": trainer.name, **row})
        tracker.add({"step": step, **row}, trainer.name.replace(" ", "_").replace(",", ""))
        log.info(
            "step %d, %s: %s", step, trainer.name,
            ", ".join(f"{name} {value:.4g}" for name, value in row.items()),
        )  # fmt: skip
        check_finite(f"autoencoder of {trainer.name}", curve)
    pairs = list(zip(trainers, measured, strict=True))
    objectives = [trainer.objective(row) for trainer, row in pairs]
    schedule.note(step, objectives, all(trainer.settled(row) for trainer, row in pairs))


def _resamples(settings: Autoencoder, schedule: Schedule, step: int) -> bool:
    """Whether dead latents begin anew behind `step`: never while the training cools down."""
    due = step % max(RESAMPLE_EVERY * settings.check_steps, LOOK_EVERY) == 0
    return settings.resample and due and step < schedule.cooling_from


def _trained(
    trainers: Sequence[Trainer | Collector],
    data: _Data,
    curve: list[dict[str, Any]],
    schedule: Schedule,
) -> Trained:
    """The outcome, with autoencoders of activations as they were before they were scaled."""
    for trainer in trainers:
        trainer.sae.eval().requires_grad_(False)
        trainer.sae.calibrate(data.held_out)
        data.scale.fold(trainer.sae)
    saes, penalties = [t.sae for t in trainers], [t.l1.item() for t in trainers]
    trained = all(sae.by_gradients for sae in saes)
    flat = schedule.flat if trained else None
    return Trained(saes, penalties, curve, flat=flat, steps=schedule.steps)


def _keep(
    trainers: Sequence[Trainer | Collector],
    schedule: Schedule,
    curve: list[dict[str, Any]],
    state_path: str | Path,
    step: int,
) -> None:
    """Write a resume point behind `step`."""
    tensors = {
        f"{i}.{name}": value
        for i, trainer in enumerate(trainers)
        for name, value in trainer.tensors().items()
    }
    counters = [trainer.counters() for trainer in trainers]
    state = {"step": step, "schedule": schedule.state(), "curve": curve, "trainers": counters}
    save_tensors(state_path, tensors, state)


def _restore(
    trainers: Sequence[Trainer | Collector],
    schedule: Schedule,
    curve: list[dict[str, Any]],
    state_path: str | Path,
) -> int:
    """Put everything at the resume point, and return the number of steps before it."""
    loaded = load_tensors(state_path)
    if loaded is None:
        return 0
    tensors, state = loaded
    for i, trainer in enumerate(trainers):
        for name, value in trainer.tensors().items():
            value.copy_(tensors[f"{i}.{name}"])
        trainer.restore(state["trainers"][i])
    schedule.restore(state["schedule"])
    curve.extend(state["curve"])
    log.info("resuming behind step %d", state["step"])
    return state["step"]
