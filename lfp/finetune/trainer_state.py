"""Resume points of transformers' trainers: their checkpoints, exact or not taken.

A trainer goes on to the same bytes as one that was let be where a checkpoint is whole, holds all
that the next steps depend on, and where the reference stays the base. The rest of this module sees
to that.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from lfp.files.artefacts import read_json, write_json
from lfp.files.provenance import ArtefactError, file_digests
from lfp.files.resume import check_finite
from lfp.finetune import adapters
from lfp.models.loading import load_model
from lfp.settings import Lora

log = logging.getLogger(__name__)

#: Weights of a checkpoint that holds adapters alone.
ADAPTERS = "adapter_model.safetensors"
#: Counts of the words that were written until a checkpoint.
WRITTEN = "written.json"
#: The digests of a checkpoint's files, which are written last: the trainer writes in place.
RECORD = "files.json"


def newest_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest ``checkpoint-N`` of a trainer whose files are those that were written, or None."""
    numbered = [
        path
        for path in Path(folder).glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
    ]
    for path in sorted(numbered, key=lambda p: int(p.name.removeprefix("checkpoint-")))[::-1]:
        if _is_complete(path):
            return path
        log.warning("%s: a damaged or unfinished resume point, which is not taken", path)
    return None


def _is_complete(checkpoint: Path) -> bool:
    """Whether the files of a checkpoint are those of its record."""
    try:
        files = read_json(checkpoint / RECORD)["files"]
    except (FileNotFoundError, ArtefactError, KeyError):
        return False
    return {n: d for n, d in file_digests(checkpoint).items() if n != RECORD} == files


def checkpoint_to_resume(config: Any) -> Path | None:
    """The checkpoint that a trainer with `config` goes on from, the same in all its processes.

    They wait for the first, which may wait for another job that still writes checkpoints.
    """
    config.distributed_state.wait_for_everyone()
    return newest_complete_checkpoint(config.output_dir)


def resumable_model(
    base: str | Path, checkpoint: Path | None, lora: Lora | None, device: str
) -> tuple[nn.Module, Any]:
    """The model that a trainer starts or resumes with, and the configuration of its adapters.

    The trainer is to add these adapters; the configuration is None without any.

    The model is the base with a checkpoint's weights, put in by name. Were it the checkpoint, the
    trainers of RLOO and GRPO would take that as the reference: they read it again from where the
    model came from. Were the weights left to the trainer of transformers 5.23, it would look for
    the output head of GPT-NeoX under another name and silently keep the base's. The trainer itself
    loads adapters: a model that came with some would make it take those, not the base, as the
    reference. Dropout is off, that of attributes, which the trainers leave on, as well.
    """
    model = load_model(base, device)
    adapters.disable_dropout(model)
    if lora:
        return model, adapters.lora_config(lora)
    if checkpoint:
        model.load_state_dict(load_model(checkpoint).state_dict())
    return model, None


def run_trainer(trainer: Any, checkpoint: Path | None, lora: Lora | None) -> nn.Module:
    """Run a transformers trainer to its end; the model comes back with its adapters merged."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the curve has the printed numbers
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    return (model.merge_and_unload() if lora else model).eval()


def restored_counts(checkpoint: Path | None, config: Any) -> Counter[str]:
    """The counts of words that a `checkpoint` holds of all processes, for the first of them."""
    if checkpoint is None or not config.should_save:
        return Counter()
    return Counter(read_json(checkpoint / WRITTEN)["words"])


def all_counts(of_process: Counter[str]) -> Counter[str]:
    """The sum over all processes of what each of them counted; all must ask for it."""
    from accelerate.utils import gather_object

    return sum(gather_object([of_process]), Counter())


def trainer_callbacks(what: str, written: Counter[str] | None = None) -> list[Any]:
    """Callbacks of a transformers trainer.

    They make its resume points exact, and end training where a logged number is not finite. The
    words that this process has `written` so far are kept in resume points.
    """
    from transformers import TrainerCallback

    class ExactCheckpoints(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # A trainer that goes on behind its last step takes one more.
            control.should_save &= state.global_step < state.max_steps
            # A checkpoint lacks the losses since the last row of the curve: a row ends at it.
            control.should_log |= control.should_save

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each process writes its random state
            words = all_counts(written) if written is not None else None
            if args.should_save:
                checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                if words is not None:
                    write_json(checkpoint / WRITTEN, {"words": words}, {})
                files = {n: d for n, d in file_digests(checkpoint).items() if n != RECORD}
                write_json(checkpoint / RECORD, {"files": files}, {})

    class StopOnNonFinite(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rows = [{"step": 0, **row} for row in state.log_history]
            if rows:
                check_finite(what, rows)

    return [ExactCheckpoints(), StopOnNonFinite()]
