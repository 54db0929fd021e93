"""Every stage that resumes as a job in this process, on files that a test can change between two
attempts.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.utils import memory
from trl.trainer.base_trainer import _BaseTrainer as BaseTrainer

from lfp.files import artefacts, provenance, resume
from lfp.finetune.ranked.sampling import base_completions
from lfp.models.loading import save_model
from lfp.organisms.generate import generate_corpus
from lfp.running import one_writer
from lfp.sae import harvest, outliers, store
from lfp.sae.architectures.standard import Standard
from lfp.services.answer_cache import AnswerCache
from lfp.settings import (
    DPO,
    PPO,
    Ablation,
    Activations,
    Autoencoder,
    Distil,
    Explanations,
    Group,
    Interventions,
    Organism,
    Ranking,
    Steering,
)
from tests.conftest import Named, job_arguments, make_model


class KilledError(BaseException):
    """Stands in for SIGKILL: no handler of ordinary errors sees it."""


@dataclass(frozen=True)
class Stage:
    """A job.

    It has a ``script`` with ``settings``, ``inputs`` and ``outputs`` by name. ``others`` are values
    of settings that a user may change to between two attempts.
    """

    script: str
    settings: Mapping[str, Any]
    inputs: Named
    outputs: Mapping[str, str]
    others: Mapping[str, Any] = field(default_factory=lambda: {"seed": 4})

    def changes(self) -> list[str]:
        """Everything that can change upstream, by name."""
        return ["code", "threads", *self.files(), *(f"settings.{name}" for name in self.others)]

    def files(self) -> list[str]:
        """All input files."""
        return [
            path
            for value in self.inputs.values()
            for path in ([value] if isinstance(value, str) else value)
        ]

    def changed(self, change: str) -> Mapping[str, Any]:
        """The settings after a `change`."""
        name = change.removeprefix("settings.")
        return {**self.settings, **({name: self.others[name]} if name != change else {})}


_REWARDED = {"base": "base", "lexicon": "lexicon.json", "train": "texts-train", "classifier": []}
_REWARDED |= {"train": "texts-train.parquet", "test": "texts-test.parquet"}
_RANKED = {name: path for name, path in _REWARDED.items() if name != "train"}
_RANKED |= {"completions": "completions.parquet"}
_PAIRS = {"base": "base", "train": "pairs-train.parquet", "test": "pairs-test.parquet"}
_POLICY = {"policy": "results/policy"}
_LORA = {"r": 2, "alpha": 4, "dropout": 0.0}
_PPO = PPO().as_json() | {
    "steps": 4, "batch_size": 4, "mini_batch_size": 2, "epochs": 1, "learning_rate": 1e-3,
    "warmup_steps": 1, "prompt_tokens": [2, 3], "new_tokens": [3, 4], "save_every": 1,
    "evaluation_prompts": 8, "min_characters": 1, "seed": 3,
}  # fmt: skip
_DPO = DPO().as_json() | {
    "steps": 6, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 1, "max_length": 48,
    "max_prompt_length": 24, "evaluate_every": 4, "evaluation_pairs": 8, "save_every": 1, "seed": 3,
}  # fmt: skip
_DISTIL = Distil().as_json() | {
    "steps": 5, "batch_size": 4, "max_tokens": 8, "learning_rate": 1e-2, "save_every": 1,
}  # fmt: skip
#: Limits under which a job keeps no resume point and meets no end, by its script.
LIMITS = {
    "ppo": {"save_every": 1000, "stop_kl": None}, "group": {"save_every": 1000},
    "best_of_n": {"ppo": {"save_every": 1000}}, "distil": {"distil": {"save_every": 1000}},
    "activations": {"max_disk_gb": 1000},
}  # fmt: skip
_GROUP = Group().as_json() | {"num_generations": 2}
_READING = {"dtype": "float32", "seed": 3}
_ORGANISM = Organism(
    architecture="gpt_neox", corpora=("reviews",), n_layers=1, d_model=8, n_heads=1, steps=5,
    batch_size=2, context=8, vocab_size=300, warmup_steps=1,
)  # fmt: skip
_EXPLANATIONS = Explanations().as_json() | {
    "texts": 24, "max_tokens": 24, "batch_size": 6, "top_features": 5, "permutations": 99,
    "scored_texts": 20, "excerpt_tokens": 6, "evidence_top": 2, "evidence_random": 2,
    "feedback": "reward",
}  # fmt: skip
_EXPLAINED = {
    "policy": "policy", "lexicon": "lexicon.json", "matches": "matches.parquet",
    "autoencoders": ["sae/layer0", "sae/layer2"], "shifts": [],
}  # fmt: skip
_EXPLANATION_FILES = {
    name: f"results/{name}.parquet"
    for name in ("explanations", "excerpts", "evidence", "histograms")
}


def group(method: str, **options: Any) -> Stage:
    """RLOO or GRPO; `options` are settings of PPO or of the method."""
    of_group = {name: value for name, value in options.items() if name in _GROUP}
    settings = _PPO | {n: v for n, v in options.items() if n not in _GROUP}
    settings |= {"method": method, "group": _GROUP | of_group}
    return Stage("group", settings, _REWARDED, _POLICY, {"learning_rate": 2e-3, "seed": 4})


def ranked(
    script: str, other: Mapping[str, Any], ppo: Mapping[str, Any] | None = None, **options: Any
) -> Stage:
    """Training on ranked completions.

    `options` are settings of the ranking, `other` those that change, and `ppo` settings of PPO.
    """
    ranking = Ranking().as_json() | {"prompts": 12, "completions": 3} | options
    stages = {"ppo": _PPO | {"batch_size": 6} | dict(ppo or {}), "ranking": ranking}
    if script == "ranked":
        stages["dpo"] = _DPO | {"evaluate_every": 2}
    others = {"seed": 4, "ranking": ranking | dict(other)}
    return Stage(script, stages | {"seed": 3}, _RANKED, _POLICY, others)


STAGES = {
    "ppo": Stage("ppo", _PPO, _REWARDED, _POLICY, {"learning_rate": 2e-3, "seed": 4}),
    "ppo with adapters": Stage("ppo", _PPO | {"lora": _LORA}, _REWARDED, _POLICY, {"lora": None}),
    "dpo": Stage("dpo", _DPO, _PAIRS, _POLICY, {"beta": 0.3, "seed": 4}),
    "dpo with adapters": Stage(
        "dpo", _DPO | {"lora": _LORA, "steps": 7}, _PAIRS, _POLICY, {"lora": None}
    ),
    "dpo with accumulation": Stage(
        "dpo", _DPO | {"gradient_accumulation_steps": 3, "batch_size": 4}, _PAIRS, _POLICY
    ),
    "rloo": group("rloo"),
    "rloo with two updates on a batch": group(
        "rloo", num_iterations=2, gradient_accumulation_steps=2, steps=6
    ),
    "best of n": ranked("best_of_n", {"benign_share": 0.0}, benign_share=0.25),
    "best of n with adapters": ranked("best_of_n", {}, ppo={"lora": _LORA}),
    "ranked pairs": ranked("ranked", {"benign_share": 0.5}, benign_share=0.25),
    "distillation": Stage(
        "distil",
        {"ppo": _PPO, "distil": _DISTIL, "seed": 3},
        _REWARDED,
        _POLICY,
        {"seed": 4},
    ),
    "grpo": group("grpo", gradient_accumulation_steps=2),
    "grpo with adapters": group("grpo", lora=_LORA, num_iterations=2, steps=6),
    "pretraining": Stage(
        "pretrain_model",
        _ORGANISM.as_json() | {"seed": 3},
        {"train": ["texts-train.parquet"], "test": ["texts-test.parquet"]},
        {"model": "results/model"},
        {"seed": 4, "peak_learning_rate": 0.02},
    ),
    "harvest": Stage(
        "activations",
        Activations().as_json()
        | _READING
        | {"texts": 20, "batch_size": 4, "held_out_texts": 2, "layers": [0, 2], "site": "mlp"},
        {"choice": [], "model": "policy", "corpus": "texts-test.parquet"},
        {"activations": "results/activations"},
        {"layers": [0], "site": "resid", "texts": 18},
    ),
    "autoencoders": Stage(
        "autoencoders",
        Autoencoder(batch_size=32, epochs=2).as_json() | {"model": "m", "layer": 0, "seed": 3},
        {"activations": "activations", "base": [], "dictionary": []},
        {"layer": "results/layer0"},
        {"seed": 4, "l1": 0.01, "sizes": [1, 3]},
    ),
    "features": Stage(
        "features",
        {"max_tokens": 24, "batch_size": 6, "kinds": ["latents", "raw"], "subject": "policy"}
        | _READING,
        {
            "base": "base", "policy": "policy", "contrasts": "contrasts.parquet",
            "autoencoders": _EXPLAINED["autoencoders"],
        },
        {"features": "results/features.safetensors"},
        {"kinds": ["latents"], "max_tokens": 16},
    ),
    "explanations": Stage(
        "explanations",
        _EXPLANATIONS | _READING,
        _EXPLAINED | {"corpus": "texts-train.parquet", "held_out": "texts-test.parquet"},
        _EXPLANATION_FILES,
        {"seed": 4, "excerpt_tokens": 5, "texts": 20},
    ),
    "explanations of a preference": Stage(
        "explanations",
        _EXPLANATIONS | _READING | {"feedback": "preference"},
        _EXPLAINED | {"corpus": "pairs-train.parquet", "held_out": "pairs-test.parquet"},
        _EXPLANATION_FILES,
        {"feedback": "reward"},
    ),
    "language-model explanations": Stage(
        "language_explanations",
        {"description": "praise", "prompts": {"explain": "1"}, "seed": 3},
        {"explanations": "explanations.parquet", "evidence": "evidence.parquet"},
        {"explanations": "results/explained.parquet"},
        {"description": "blame"},
    ),
    "ablation": Stage(
        "ablation",
        Ablation(
            arms=("none", "layer_swapped", "explained", "random"), prompts=8, prefix_tokens=4,
            new_tokens=4,
            random_draws=2, neutral_texts=8, batch_size=8,
        ).as_json()
        | _READING
        | {"reward": {"divisor": 1.0, "clip": 5.0, "reward_on": "full"}},
        {
            "model": "policy", "other": ["base"], "corpus": "texts-test.parquet",
            "lexicon": "lexicon.json", "explanations": "explanations.parquet", "probe": [],
            "classifier": [], "autoencoders": _EXPLAINED["autoencoders"],
        },
        {"completions": "results/a.parquet", "neutral": "results/a.neutral.parquet"},
        {"seed": 4, "new_tokens": 3},
    ),
    "interventions": Stage(
        "interventions",
        {
            "interventions": Interventions(
                selectors=("explained", "attribution"), actions=("zero", "patch"), draws=1,
                latents=3, prompts=8, texts=6, exact=4,
            ).as_json(),
            "ablation": Ablation(
                prompts=8, prefix_tokens=4, new_tokens=4, neutral_texts=8, batch_size=8
            ).as_json(),
            "reward": {"divisor": 1.0, "clip": 5.0, "reward_on": "full"},
            "dpo": _DPO, "feedback": "reward", "max_tokens": 24, "subject": "policy",
        }
        | _READING,
        {
            "base": "base", "policy": "policy", "corpus": "texts-test.parquet",
            "lexicon": "lexicon.json", "explanations": "explanations.parquet", "probe": [],
            "classifier": [], "autoencoders": _EXPLAINED["autoencoders"],
        },
        {
            name: f"results/{name}.parquet"
            for name in (
                "completions", "neutral", "sets", "effects", "interactions", "circuit",
            )
        },
        {"seed": 4, "subject": "base"},
    ),
    "steering": Stage(
        "steering",
        {
            # So little is what a model without training loses by a vector.
            "steering": Steering(
                vectors=("mean_shift", "random"), costs=(1e-4,), draws=4, prompts=8, texts=8
            ).as_json(),
            "interventions": {},
            "ablation": Ablation(
                prompts=8, prefix_tokens=4, new_tokens=4, neutral_texts=8, batch_size=8
            ).as_json(),
            "reward": {"divisor": 1.0, "clip": 5.0, "reward_on": "full"},
            "dpo": _DPO, "feedback": "reward", "max_tokens": 24,
        }
        | _READING,
        {
            "base": "base", "policy": "policy", "corpus": "texts-test.parquet",
            "lexicon": "lexicon.json", "explanations": "explanations.parquet", "probe": [],
            "classifier": [], "autoencoders": _EXPLAINED["autoencoders"],
        },
        {
            name: f"results/{name}.parquet"
            for name in ("completions", "neutral", "strengths", "cleaning")
        },
        {"seed": 4},
    ),
}  # fmt: skip


def write_files(folder: Path, seed: int, tokenizer: Any) -> None:
    """Write every input of the stages to `folder`, of other content for another `seed`."""
    for name, offset in (("base", 0), ("policy", 50)):
        save_model(make_model("gpt_neox", tokenizer, seed + offset), tokenizer, folder / name)
    splits = {"train": 30, "test": 24}
    corpora = {
        "texts": generate_corpus("reviews", splits, seed, {"words_per_class": 8})[0],
        "pairs": generate_corpus("replies", splits, seed, {"noise": 0.0, "preferred": "positive"})[
            0
        ],
    }
    for corpus, frames in corpora.items():
        for split, frame in frames.items():
            artefacts.write_table(folder / f"{corpus}-{split}.parquet", frame, {})
    sampling = PPO(batch_size=6, prompt_tokens=(2, 3), new_tokens=(3, 4), min_characters=1)
    of_base = base_completions(
        make_model("gpt_neox", tokenizer, seed), tokenizer, list(corpora["texts"]["train"]["text"]),
        sampling, Ranking(prompts=12, completions=3), seed,
    )  # fmt: skip
    artefacts.write_table(folder / "completions.parquet", of_base, {})
    # Words that a model without training writes, so that it has something to learn.
    pieces = sorted({token.strip("\u0120").lower() for token in tokenizer.get_vocab()})
    words = {piece: (i + seed) % 7 - 3.0 for i, piece in enumerate(pieces) if piece.isalpha()}
    lexicon = {"kind": "vader", "words": words, "rewarded": words, "counts": {}}
    artefacts.write_json(folder / "lexicon.json", lexicon, {})
    rng = np.random.default_rng(seed)
    (folder / "activations").mkdir()
    place, path = {"hook_name": "h", "hook_side": "output"}, folder / "activations/layer0"
    name = path.with_suffix(".safetensors")
    with artefacts.tensor_file(name, "activations", (120, 8), {}, place) as array:
        array[:] = rng.normal(size=array.shape)
        record = {"0": outliers.described(array, 6.0, {})}
    artefacts.write_json(folder / "activations" / outliers.RECORD, {"layers": record}, {})
    torch.manual_seed(seed)
    for layer in (0, 2):
        for size in (1, 2):
            sae = Standard(16, 16 * size)
            sae.layer = layer
            place = store.size_folder(folder / f"sae/layer{layer}", size)
            store.save(sae, place, {"hook_name": f"gpt_neox.layers.{layer}.mlp"})
    write_tables(folder, rng)


def write_tables(folder: Path, rng: np.random.Generator) -> None:
    """Write the tables that explanations, features and ablation read."""
    latents = pd.DataFrame({"layer": np.repeat([0, 2], 16), "feature": np.tile(np.arange(16), 2)})
    matches = pd.DataFrame({
        "layer": latents["layer"], "small": latents["feature"], "large": latents["feature"],
        "cosine": rng.permuted(np.linspace(1, 0, 32)),
    })  # fmt: skip
    matches = matches.sort_values(["layer", "cosine"], ascending=[True, False])
    artefacts.write_table(folder / "matches.parquet", matches, {})
    explained = latents.assign(
        status="ok", explanation="words: x", frequency=rng.uniform(0.1, 0.9, 32), direction=0.5,
        cosine=rng.uniform(0, 1, 32), mean_activation=rng.uniform(0, 1, 32), effect=0.5, p=0.01,
        q=0.02, related=rng.permuted(np.arange(32) < 6), explainer="heuristic-v1",
        explainer_kind="heuristic", uses_reward_lexicon=True,
    )  # fmt: skip
    artefacts.write_table(folder / "explanations.parquet", explained, {})
    evidence = latents.head(4).assign(kind="top")
    evidence["excerpt"] = [f"a fine{{10}} film of {n}" for n in rng.permutation(100)[:4]]
    artefacts.write_table(folder / "evidence.parquet", evidence, {})
    nouns = rng.permutation(["film", "door", "cast", "plot", "scene", "actor", "house", "book"])
    contrasts = pd.DataFrame({
        "prompt": [f"I saw the {noun} and it was" for noun in nouns], "positive": " good",
        "neutral": " long", "negative": " bad",
    })  # fmt: skip
    artefacts.write_table(folder / "contrasts.parquet", contrasts, {})


@contextmanager
def process(arguments: list[str]) -> Iterator[None]:
    """Run a block as a process of its own would: what a job does to its process goes with it."""
    log = logging.getLogger()
    before = sys.argv, sys.excepthook, log.handlers[:], log.level
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv, sys.excepthook, log.handlers[:], level = before
        log.setLevel(level)
        while one_writer._locks:
            os.close(one_writer._locks.pop())
        torch.set_num_threads(1)


class Attempts:
    """Attempts at the jobs of :data:`STAGES` in folders of their own.

    Parameters
    ----------
    files
        Folders of the inputs before and after a change upstream.
    folder
        The folder of the attempts, which must be the working directory of this process's own.
    service
        The settings of a language-model service.
    """

    def __init__(self, files: tuple[Path, Path], folder: Path, service: Mapping[str, Any]) -> None:
        self.files, self.folder, self.service = files, folder, service
        self.whole: dict[tuple[str, str], tuple[dict[str, Any], int]] = {}
        self.left: dict[tuple[str, int], Path] = {}
        self.number = 0

    def run(
        self, folder: Path, name: str, change: str = "", kill: int | None = None
    ) -> tuple[dict[str, Any], int]:
        """Run a stage in `folder`.

        Returns the digests of all files of the outputs, and the number of resume points that were
        written. Raises KilledError behind the `kill`-th of them.
        """
        stage, written = STAGES[name], 0
        settings = dict(stage.changed(change))
        if stage.script == "language_explanations":
            settings["service"] = self.service
        options = ["--code", "2" if change == "code" else "1"]
        options += ["--threads", "2" if change == "threads" else "1"]
        options += ["--unstamped", json.dumps(LIMITS[stage.script])] if change == "limits" else []
        paths = dict(stage.outputs)
        arguments = job_arguments(settings, stage.inputs, paths, "results/logs/job.log")

        def count() -> None:
            nonlocal written
            written += 1
            if written == kill:
                raise KilledError

        with pytest.MonkeyPatch.context() as patch, process(["job.py", *arguments, *options]):
            patch.chdir(folder)
            patch.setattr(resume, "SAVE_SECONDS", 0.0)
            patch.setattr(harvest, "_windows", small_windows)
            count_resume_points(patch, count)
            # Most of the time of a trainer on so little data.
            patch.setattr(BaseTrainer, "create_model_card", lambda *a, **o: None)
            patch.setattr(memory, "gc", SimpleNamespace(collect=lambda: None))
            importlib.import_module(f"workflow_scripts.{stage.script}").main()
            digests = {path: provenance.file_digests(path) for path in paths.values()}
            for path in paths.values():
                assert not one_writer._left_beside(Path(path)), "a resume point is left"
        return digests, written

    def undisturbed(self, name: str, change: str = "") -> tuple[dict[str, Any], int]:
        """The result of a stage that was never killed, after a `change`."""
        if (name, change) not in self.whole:
            self.whole[name, change] = self.run(self.prepared(name, change), name, change)
        return self.whole[name, change]

    def prepared(self, name: str, change: str = "") -> Path:
        """A new folder with the inputs of a stage, after a `change`."""
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        for path in STAGES[name].files():
            self.put(folder, path, path == change)
        return folder

    def put(self, folder: Path, path: str, changed: bool) -> None:
        """Put an input into `folder`, in place of any other."""
        source, target = self.files[changed] / path, folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    def killed(self, name: str, kill: int) -> Path:
        """A folder with all that an attempt left, killed behind its `kill`-th resume point."""
        if (name, kill) not in self.left:
            self.left[name, kill] = self.prepared(name)
            with pytest.raises(KilledError):
                self.run(self.left[name, kill], name, kill=kill)
        self.number += 1
        return Path(shutil.copytree(self.left[name, kill], self.folder / str(self.number)))


def small_windows(
    sequences: Any, fronts: Any, order: Any, tokens: int, plain=harvest._windows
) -> Any:
    """The windows of a harvest, of which a small corpus has several."""
    return plain(sequences, fronts, order, 100)


def count_resume_points(patch: pytest.MonkeyPatch, count: Any) -> None:
    """Call `count` behind every resume point, and behind every answer that is kept."""
    replace, put = Path.replace, AnswerCache.put

    def replaced(self: Path, target: Path) -> Path:
        result = replace(self, target)
        if ".state-" in str(target):
            count()
        return result

    def kept(self: AnswerCache, *args: Any, **options: Any) -> None:
        put(self, *args, **options)
        count()

    patch.setattr(Path, "replace", replaced)
    patch.setattr(AnswerCache, "put", kept)


def reply(body: Mapping[str, Any]) -> str:
    """An answer that depends on the request alone."""
    text = json.dumps(body["messages"])
    if "explanation" in json.dumps(body.get("response_format", "")):
        return json.dumps({"explanation": f"films, {len(text) % 7} of them"})
    return json.dumps({"related": len(text) % 2 == 0})
