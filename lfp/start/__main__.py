"""Write a first configuration for a model and a file of your own, with a comment at every value.

python -m lfp.start --model checkpoints/pythia-70m --data data/reviews.csv

It reads the checkpoint's configuration and the file, asks for what neither says, prints what the
run would cost, and names the next commands (docs/tutorial.md). Nothing is trained or computed.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from lfp.costs.estimate import summary
from lfp.feedback.rewards import TASK_REWARDS
from lfp.files.hub import SourceError
from lfp.files.writing import aside
from lfp.grid import ConfigurationError
from lfp.registry import nearest
from lfp.start import StartError, choices, machines, models, texts
from lfp.start.names import plain_name
from lfp.start.page import page, plain
from lfp.texts.readers import CorpusError

#: Rewards that need nothing but their name.
REWARDS = tuple(name for name in TASK_REWARDS if name not in ("classifier", "callable"))
HEADER = """
A first grid of {model} on {data}, written by lfp.start. Behind every value stands where it comes
from. Sizes are those of a first look: raise steps, texts and prompts for intervals that decide
something (config/README.md has every key and its default). docs/tutorial.md says how to go on.
"""


def started(
    asked: str, data: str, task: str | None = None, reward: str | None = None,
    column: str | None = None,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The configuration of a first grid, and its text with comments.

    Parameters
    ----------
    asked
        The model: a directory, a GGUF file, or an id of the hub.
    data
        The file of texts or of preference pairs.
    task
        Name of the task; None takes that of the reward, or ``dpo``.
    reward
        Name of the reward of texts, or ``module:function``; None takes ``vader``.
    column
        The column of texts, or of the prompts of pairs; None takes the only one.

    Raises StartError, SourceError, CorpusError or ConfigurationError where there is none.
    """
    model = models.described(asked)
    corpus = texts.described(data, column)
    name, reward = _task_of(corpus, task, reward)
    bare = choices.grid(model, corpus, name, reward, {})
    demands = machines.demands(machines.costs(plain(bare)), machines.gpu())
    tree = choices.grid(model, corpus, name, reward, demands)
    text = page(tree, HEADER.format(model=asked, data=data))
    return yaml.safe_load(text), text


def _task_of(corpus: texts.Corpus, task: str | None, reward: str | None) -> tuple[str, str]:
    """The names of the task and of its reward."""
    if corpus.has_pairs:
        if reward is not None:
            raise StartError(
                "--reward: preference pairs are learned from as they are, by DPO; leave it out, or"
                " give a file of texts"
            )
        return task or "dpo", ""
    reward = reward or "vader"
    if ":" not in reward and reward not in REWARDS:
        raise StartError(
            f"--reward: unknown name {reward!r}; {nearest(reward, REWARDS)}, or module:function of"
            " a file in this folder"
        )
    return task or plain_name(reward.rpartition(":")[2], "reward"), reward


def report(config: dict[str, Any], output: Path) -> str:
    """The estimate of a configuration that was written, and the next commands."""
    frame = machines.costs(config)
    total = frame[frame["stage"] == "total"].iloc[0]
    (entry,) = config["models"].values()
    lines = [summary(frame)]
    if not entry["gpus"]:
        hours = machines.core_hours(frame)[total.name]
        time = f"{hours:.1f} hours" if hours > 1 else f"{hours * 60:.1f} minutes"
        lines.append(
            f"on one core these products take about {time} at {machines.CORE / 1e9:.0f} GFLOP/s"
            " (docs/smollm2.md); what is small takes longer than its products"
        )
    there = machines.memory_gb()
    if total["cpu_memory_gb"] > there and not entry["gpus"]:
        lines.append(
            f"WARNING: it needs {total['cpu_memory_gb']:.0f} GB and this machine has {there:.0f};"
            " `lora` takes a fifth of the memory of fine-tuning (docs/finetune.md), or take a GPU"
        )
    (cell,) = config["cells"]
    file, address = shlex.quote(str(output)), f"results/{cell['model']}/{cell['task']}/seed0"
    commands = {
        f"snakemake -n --configfile {file}": "what would run",
        f"snakemake --cores 1 estimate --configfile {file}": "what it costs, by stage",
        f"snakemake --cores 2 {address}/divergence.json --configfile {file}": "up to its layers",
        f"snakemake --cores 2 --configfile {file}": "all of it",
    }
    lines += ["", f"{output} is written: read it, and change what you know better. Then"]
    for command, what in commands.items():
        lines += [f"  # {what}", f"  {command}"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Write the configuration that the `arguments` ask for; 1 where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m lfp.start", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", required=True, help="directory, GGUF file, or id on the hub")
    parser.add_argument("--data", required=True, help="file of texts or of preference pairs")
    parser.add_argument("--task", help="name of the task (the reward's, or dpo)")
    parser.add_argument("--reward", help=f"of texts: {', '.join(REWARDS)}, or module:function")
    parser.add_argument("--column", help="column of the texts, or of the prompts of pairs")
    parser.add_argument("--output", type=Path, default=Path("config/mine.yaml"))
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    asked = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lfp.start").setLevel(logging.INFO)
    try:
        if asked.output.exists() and not asked.force:
            raise StartError(
                f"--output: {asked.output} is there; name another file, or replace it by --force"
            )
        config, text = started(asked.model, asked.data, asked.task, asked.reward, asked.column)
        lines = report(config, asked.output)
        with aside(asked.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (StartError, SourceError, CorpusError, ConfigurationError, OSError) as error:
        print(f"lfp.start: {error}", file=sys.stderr)
        return 1
    print(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
