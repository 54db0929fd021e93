"""Resume points of training: of our loops, and of transformers' trainers.

A loop that draws its randomness from (seed, step) and restores weights, optimizer and counters from
here ends with the same result whether or not it was killed in between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lfp.files.resume import check_finite, load_tensors, save_tensors
from lfp.finetune import adapters
from lfp.models.loading import load_model
from lfp.settings import Lora

#: Weights of a checkpoint that holds adapters alone.
ADAPTERS = "adapter_model.safetensors"


def save_state(
    path: str | Path, module: nn.Module, optimizer: torch.optim.Optimizer, counters: dict[str, Any]
) -> None:
    """Write `module`'s weights, `optimizer`'s moments and the JSON-able `counters` to `path`.

    On a CPU they are written from where they lie: a copy would be more than half of what training
    holds.
    """
    tensors, places = {}, set()
    for name, value in module.state_dict().items():
        # The file holds tied weights under each of their names, which must not share their memory.
        tensors[f"module.{name}"] = value.clone() if value.data_ptr() in places else value
        places.add(value.data_ptr())
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    save_tensors(path, tensors, counters)


def load_state(
    path: str | Path, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the state that :func:`save_state` wrote and return its counters.

    Returns None and restores nothing where there is no such file or a damaged one: training starts
    again.
    """
    loaded = load_tensors(path)
    if loaded is None:
        return None
    tensors, counters = loaded
    module.load_state_dict(
        {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return counters


# ------------------------------------------------------------ checkpoints of transformers' trainers


def newest_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete ``checkpoint-N`` of a trainer, or None.

    A complete one holds weights (or adapters), optimizer and state.
    """
    needed = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
    weights = ("model.safetensors", "model.safetensors.index.json", ADAPTERS)
    complete = [
        path
        for path in Path(folder).glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
        and all((path / name).exists() for name in needed)
        and any((path / name).exists() for name in weights)
    ]
    return max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def resumable_model(
    base: str | Path, checkpoint: Path | None, lora: Lora | None, device: str
) -> tuple[nn.Module, Any]:
    """The model that a trainer starts or resumes with, and the configuration of its adapters.

    The trainer is to add these adapters; the configuration is None without any.

    A checkpoint's weights are loaded here, by name: the trainer of transformers 5.23 loads the
    output head of GPT-NeoX under another name and silently keeps the base model's. The trainer
    itself loads adapters: a model that came with some would make it take those, not the base, as
    the reference.
    """
    if lora:
        return load_model(base, device), adapters.lora_config(lora)
    return load_model(checkpoint or base, device), None


def run_trainer(trainer: Any, checkpoint: Path | None, lora: Lora | None) -> nn.Module:
    """Run a transformers trainer to its end; the model comes back with its adapters merged."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the curve has the printed numbers
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    return (model.merge_and_unload() if lora else model).eval()


def trainer_callbacks(what: str) -> list[Any]:
    """Callbacks of a transformers trainer that end training where a logged number is not finite."""
    from transformers import TrainerCallback

    class StopOnNonFinite(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rows = [{"step": 0, **row} for row in state.log_history]
            if rows:
                check_finite(what, rows)

    return [StopOnNonFinite()]
