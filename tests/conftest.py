"""Shared fixtures: small texts, tokenizers and randomly initialised models of every
architecture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.organisms.configs import organism_config
from lfp.organisms.reviews import film_facts, generate_reviews, sentiment_vocabulary
from lfp.organisms.tokenizers import train_tokenizer
from lfp.planning import ALONE, LAUNCHER
from lfp.running import fork_server

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
FAMILIES = ("gpt_neox", "gpt_neo", "gemma")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long tests of whole runs begin first: no process waits for them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session", autouse=True)
def forking() -> None:
    """Jobs of the tests, of whichever run, are forked from one process, as those of one run are."""
    fork_server.begin(str(ROOT))


#: Paths of a job by the names that they have in its rule; a list has any number of them.
Named = Mapping[str, str | Sequence[str]]


@pytest.fixture(scope="session")
def reviews() -> list[str]:
    """Generated reviews."""
    rng = np.random.default_rng(0)
    words, facts = sentiment_vocabulary(8, rng), film_facts(rng)
    return list(generate_reviews(150, rng, words, facts, sentences=(2, 4))["text"])


@pytest.fixture(scope="session")
def tokenizer(reviews):
    """A byte-level BPE tokenizer of the reviews."""
    return train_tokenizer(reviews, 420)


def make_model(family: str, tokenizer, seed: int = 0, n_layers: int = 3):
    """A small random model of `family` for `tokenizer`."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = organism_config(
        family, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, n_layers, 16, 2, 64
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture(params=FAMILIES)
def model(request, tokenizer):
    """A small random model, once for every family."""
    return make_model(request.param, tokenizer)


@pytest.fixture
def neox(tokenizer):
    """A small random GPT-NeoX."""
    return make_model("gpt_neox", tokenizer)


@pytest.fixture(scope="session")
def pairs() -> dict[str, pd.DataFrame]:
    """Generated replies with labels, training and held-out ones."""
    from lfp.organisms.generate import generate_corpus

    splits = {"train": 40, "test": 16}
    return generate_corpus("replies", splits, 0, {"noise": 0.0, "preferred": "positive"})[0]


@pytest.fixture
def base(tokenizer, tmp_path) -> Path:
    """A small GPT-NeoX on disk: the family whose output head the trainer loses on resume."""
    # Here, for the check of interoperation has another release of transformers.
    from lfp.models.loading import save_model

    save_model(make_model("gpt_neox", tokenizer), tokenizer, tmp_path / "base")
    return tmp_path / "base"


def job_arguments(
    settings: Mapping[str, Any], inputs: Named, outputs: Named, log: str = "job.log"
) -> list[str]:
    """The arguments of a script, as the workflow's own command writes them."""
    # Here, for the check of interoperation loads this file where planning cannot be loaded.
    from lfp.planning import counted

    paths = []
    for value in (*inputs.values(), *outputs.values()):
        paths += [value] if isinstance(value, str) else value
    names = f"{counted(inputs)} -- {counted(outputs)}"
    return [
        "--settings", json.dumps(settings), "--log", log, "--names", names, "--paths", *paths,
    ]  # fmt: skip


def run_job(
    script: str,
    settings: Mapping[str, Any],
    inputs: Named,
    outputs: Named,
    folder: Path,
    launcher: Sequence[str] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess:
    """Run the job of a rule in `folder`, where its log is ``job.log``.

    Parameters
    ----------
    script
        The name of the rule.
    settings, inputs, outputs
        Settings of the job, and its paths by their names in the rule.
    folder
        The working directory.
    launcher
        What Python runs the script by; None for the launcher of its rule.
    environment
        Variables beside those of this process; the user's own of the hub do not count.
    """
    alone = ALONE if script.startswith("fetch_") else LAUNCHER
    launcher = alone.split()[1:] if launcher is None else launcher
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    search = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *launcher, f"workflow_scripts.{script}",
         *job_arguments(settings, inputs, outputs)],
        cwd=folder, text=True, capture_output=True, timeout=120,
        env=kept | {"PYTHONPATH": search} | environment,
    )  # fmt: skip
