"""The optimizer of autoencoders, and the recording of a step on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.optim.adam import adam

#: Steps that a GPU takes before one is recorded: its libraries set themselves up in the first ones.
WARM_UP = 3


def can_capture(device: str) -> bool:
    """Whether `device` records steps and replays them."""
    return device == "cuda"


class Adam:
    """The fused Adam of torch by its functional form.

    The class would first import torch's compiler, for a second. The learning rate is a tensor, so
    that a recorded step reads the current one.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], learning_rate: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate = torch.tensor(float(learning_rate), device=self.parameters[0].device)
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

    def forget(self, parameter: torch.Tensor, place: tuple[object, ...]) -> None:
        """Set the moments of the entries of `parameter` at `place` to 0: they start again."""
        index = next(i for i, other in enumerate(self.parameters) if other is parameter)
        self.means[index][place] = 0
        self.squares[index][place] = 0


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
