"""A key without an effect is refused by name, and a stage that needs more than there is stops."""

import ast
import copy
import dataclasses
import inspect
import textwrap
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from lfp.configuration import ConfigurationError
from lfp.feedback.rewards import base as rewards
from lfp.finetune import distil, divergence, dpo, given, group, ppo
from lfp.finetune.ranked import best_of_n, completions, sampling
from lfp.grid import Grid
from lfp.probing.data import ProbeData
from lfp.probing.splits import why_untrainable
from lfp.sae.reading import encoded, split_texts
from lfp.settings import (
    DPO,
    METHODS,
    PPO,
    TRAINING_STAGES,
    Activations,
    Distil,
    Divergence,
    Group,
    Lora,
    Probes,
    Ranking,
    Settings,
)
from tests.conftest import ROOT

CONFIG = yaml.safe_load("""
corpora:
  reviews: {organism: reviews}
  help: {organism: help}
  mine: {path: {train: a.jsonl}, columns: {text: text}}
models:
  m: {organism: {architecture: gpt_neox, corpora: [reviews]}}
tasks:
  ppo: {method: ppo, corpus: reviews}
  rloo: {method: rloo, corpus: reviews}
  grpo: {method: grpo, corpus: mine}
  best_of_n: {method: best_of_n, corpus: reviews}
  ranked: {method: ranked, corpus: reviews}
  distil: {method: distil, corpus: reviews}
  dpo: {method: dpo, corpus: help}
  given: {method: given, corpus: reviews, policies: {m: {path: p}}}
  pairs: {method: given, corpus: help, feedback: preference, policies: {m: {path: p}}}
cells: []
""")


def configured(methods: list[str], changes: dict) -> dict:
    """A configuration with a cell for each of `methods`, and `changes` by dotted keys."""
    config = copy.deepcopy(CONFIG)
    config["cells"] = [{"model": "m", "task": method} for method in methods]
    for path, value in changes.items():
        node = config
        *parents, last = path.split(".")
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[last] = value
    return config


@pytest.mark.parametrize(
    ("methods", "key", "value", "message"),
    [
        (["grpo"], "settings.ppo.epochs", 2, "no effect under `grpo`; it is read by `ppo`"),
        (["rloo"], "settings.ppo.kl_target", 2, "no effect under `rloo`"),
        (["rloo"], "models.m.settings.ppo.mini_batch_size", 8, "no effect under `rloo`"),
        (["given"], "settings.ppo.steps", 2, "no effect under `given`"),
        (["ranked"], "settings.ppo.steps", 2, "no effect under `ranked`; it is read by `ppo`"),
        (["ranked"], "settings.dpo.evaluation_pairs", 9, "no effect under `ranked`"),
        (["best_of_n"], "settings.ppo.epochs", 2, "no effect under `best_of_n`"),
        (["best_of_n"], "cells.0.settings.dpo.beta", 0.2, "settings.dpo: no effect under the"),
        (["grpo"], "tasks.grpo.settings.ranking.benign_share", 0.5, "settings.ranking: no effect"),
        (["distil"], "settings.ppo.learning_rate", 2, "no effect under `distil`; it is read by"),
        (["ppo"], "tasks.ppo.settings.distil.strength", 2, "which does not run it; it is read by"),
        (["pairs"], "settings.dpo.learning_rate", 0.1, "no effect under `given on pairs`"),
        (["ppo", "grpo"], "tasks.grpo.settings.ppo.gamma", 0.9, "no effect under `grpo`"),
        (["ppo", "dpo"], "tasks.ppo.settings.dpo.steps", 5, "settings.dpo.steps|settings.dpo: no"),
        (["ppo"], "cells.0.settings.group.beta", 0.1, "settings.group: no effect under the method"),
        (["dpo"], "tasks.dpo.settings.ppo.new_tokens", [1, 2], "settings.ppo: no effect"),
        (["ppo"], "tasks.ppo.settings.contrasts.source", "pairs", "no effect under `ppo`"),
        (["dpo"], "cells.0.settings.probes.alphas", [1.0], "no effect under `dpo`"),
        (["ppo"], "tasks.ppo.settings.tables.seed", 1, "settings.tables: no effect here"),
        (["grpo"], "settings.group.epsilon", 0.1, "group.epsilon: no effect with .*num_iterations"),
        (["ppo"], "tasks.ppo.trigger", "film", "no effect under the reward `vader`"),
        (["dpo"], "tasks.dpo.reward", "vader", "no effect under the method `dpo`; it is read by"),
        (["pairs"], "tasks.pairs.trigger", "soundtrack", "no effect under the method `given on"),
        (["grpo"], "settings.ppo.clip_range", 0.1, "or move it to the `settings` of a task that"),
        (["ppo"], "tasks.ppo.swapped", True, "no effect under the method `ppo`"),
        (["ppo"], "corpora.reviews.noise", 0.2, "no effect for `reviews`"),
        (["ppo"], "corpora.help.clean", {"html": True}, "no effect for `help`"),
        (["ppo"], "corpora.mine.splits", {"train": 10, "test": 10}, "no effect for `path`"),
        (["ppo"], "autoencoders.v.k", 8, "no effect for the architecture `standard`"),
        (["ppo"], "settings.autoencoder.k", 8, "^settings.autoencoder.k: no effect for the arch"),
        (["ppo", "dpo"], "cells.1.settings.autoencoder.k", 8, "^cells.1.settings.autoencoder.k"),
        (["ppo"], "tasks.ppo.settings.autoencoder", {"architecture": "topk", "l1": 0.1}, "l1: no"),
        (["ppo"], "autoencoders.v", {"architecture": "gated", "k": 4}, "v.k: no effect for the"),
        (["ppo"], "autoencoders.v", {"architecture": "batchtopk", "l0": 4}, "v.l0: no effect for"),
        (["ppo"], "autoencoders.v", {"architecture": "jumprelu", "l1": 1}, "v.l1: no effect for"),
        (["ppo"], "autoencoders.v", {"architecture": "batchtopk", "prefixes": 4}, "v.prefixes: no"),
        (["ppo"], "models.m.n_layers", 6, "no effect for `organism`"),
        (["ppo"], "cells.0.settings.steering", {"costs": [0.1]}, "costs: no effect without `vect"),
        (["ppo"], "settings.steering.layer", 3, "steering.layer: no effect without `vectors`"),
        (["ppo"], "settings.steering", {"vectors": ["random"], "clean_l1": 1}, "without `clean`"),
        (["ppo"], "tasks.ppo.settings.interventions.actions", ["zero"], "without `selectors`"),
        (["ppo"], "settings.interventions", {"selectors": ["greedy"], "clamps": [2.0]}, "`clamp`"),
        (["ppo", "dpo"], "cells.0.settings.features.other_task", "dpo", "the subject `other_task`"),
        (["ppo"], "cells.0.settings.account.sites", ["mlp"], "no effect without `strengths`"),
    ],
)
def test_a_key_without_effect_is_refused_by_name(methods, key, value, message):
    Grid(configured(methods, {}))
    with pytest.raises(ConfigurationError, match=message) as refused:
        Grid(configured(methods, {key: value}))
    assert key.rsplit(".", 1)[1] in str(refused.value) or "settings." in str(refused.value)


@pytest.mark.parametrize(
    ("methods", "key", "value"),
    [
        (["ppo", "grpo"], "settings.ppo.epochs", 2),  # one of the cells reads it
        (["ppo"], "settings.dpo.steps", 5),  # no cell runs the stage: it is shared by overlays
        (["ppo"], "settings.probes.Cs", [0.1]),  # likewise, of the other kind of feedback
        # An architecture may be chosen in a file that is laid over settings of another one.
        (["ppo"], "settings.autoencoder", {"architecture": "topk", "l1": 0.1}),
        (["pairs"], "settings.ppo.new_tokens", [4, 8]),
        (["pairs"], "settings.dpo.beta", 0.2),
        (["rloo"], "settings.ppo.batch_size", 24),  # no multiple of the mini-batch it has not
        # A file that is laid over these turns steering off.
        (["ppo"], "settings.steering", {"vectors": [], "costs": [0.1]}),
        # Selectors of steering read the settings of interventions.
        (
            ["ppo"],
            "settings",
            {
                "steering": {"vectors": ["random"], "selectors": ["greedy"]},
                "interventions": {"texts": 16},
            },
        ),
    ],
)
def test_a_key_that_some_cell_reads_is_taken(methods, key, value):
    assert Grid(configured(methods, {key: value})).cells


def test_a_ratio_is_clipped_where_any_cell_has_one():
    """The cells of one place may differ in the updates of a batch."""
    changes = {"settings.group.epsilon": 0.1, "tasks.grpo.settings.group.num_iterations": 2}
    assert Grid(configured(["rloo", "grpo"], changes)).cells
    with pytest.raises(ConfigurationError, match="^settings.group.epsilon: no effect"):
        Grid(configured(["rloo"], changes))
    changes["tasks.rloo.settings.group.epsilon"] = 0.3
    with pytest.raises(ConfigurationError, match="^tasks.rloo.settings.group.epsilon: no effect"):
        Grid(configured(["rloo", "grpo"], changes))


def test_a_place_reaches_the_seeds_of_its_entry_alone():
    group = {"settings": {"group": {"epsilon": 0.1}}}
    twice = {"settings": {"group": {"num_iterations": 2}}}
    config = configured(["rloo", "rloo"], {})
    config["cells"][0] |= group | {"seeds": [0]}
    config["cells"][1] |= twice | {"seeds": [1]}
    with pytest.raises(ConfigurationError, match=r"^cells.0.settings.group.epsilon: no effect"):
        Grid(config)


def test_a_number_of_layers_is_not_given_to_pinned_ones():
    changes = {"cells.0.layers": [1], "settings.divergence.n_layers": 2}
    assert Grid(configured(["ppo"], changes)).cells  # pinned by a file that is laid over it
    changes["cells.0.settings.divergence.n_layers"] = 2
    with pytest.raises(ConfigurationError, match="^cells.0.settings.divergence.n_layers: no eff"):
        Grid(configured(["ppo"], changes))
    assert Grid(configured(["ppo"], changes | {"cells.0.lowest_layers": True})).cells


def test_settings_that_every_variant_overrides_are_refused():
    """The variant of a configuration that names none overrides nothing."""
    changes = {"settings.autoencoder.tied": False}
    grid = Grid(configured(["ppo"], changes))
    assert not grid.autoencoder_settings(grid.cells[0], "tied").tied
    changes["autoencoders"] = {"one": {"tied": True}, "two": {}}
    assert Grid(configured(["ppo"], changes)).cells  # variants that are laid over a file
    changes["cells.0.settings.autoencoder.tied"] = False
    with pytest.raises(ConfigurationError, match="^cells.0.settings.autoenc.*autoencoders.one"):
        Grid(configured(["ppo"], changes))
    assert Grid(configured(["ppo"], changes | {"cells.0.autoencoders": ["one", "two"]})).cells


def test_a_spare_variant_is_checked_as_if_a_cell_trained_it():
    for spare, message in (
        ({"sizes": [2, 1]}, "autoencoder.sizes of 'spare' must be ascending"),
        ({"architecture": "topk", "k": 10**4}, "autoencoder.k of 'spare' is 10000"),
        ({"architecture": "topk", "l0": 4}, "autoencoders.spare.l0: no effect"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Grid(configured(["ppo"], {"autoencoders": {"main": {}, "spare": spare}}))
    spare = {"architecture": "batchtopk", "reads": "pair"}
    assert Grid(configured(["ppo"], {"autoencoders": {"main": {}, "spare": spare}})).cells


def test_a_prompt_leaves_room_for_an_answer():
    for method, length in (("dpo", 128), ("pairs", 200)):
        changes = {"settings.dpo.max_length": 128, "settings.dpo.max_prompt_length": length}
        with pytest.raises(
            ConfigurationError, match=r"dpo.max_prompt_length \(\d+\) must be below"
        ):
            Grid(configured([method], changes))
        assert Grid(configured(["ppo"], changes)).cells


def test_triples_of_pairs_are_never_swapped():
    changes = {"tasks.dpo.swapped": True, "tasks.dpo.settings.contrasts.source": "pairs"}
    with pytest.raises(ConfigurationError, match="^tasks.dpo.swapped: no effect with contrasts"):
        Grid(configured(["dpo"], changes))
    assert Grid(configured(["dpo"], changes | {"tasks.dpo.swapped": False})).cells
    assert Grid(configured(["dpo"], {"tasks.dpo.swapped": True})).cells


def test_transcripts_keep_the_turns_that_they_are_cut_at():
    columns = {"chosen": "chosen", "rejected": "rejected"}
    changes = {"corpora.mine": {"path": {"train": "a.csv"}, "columns": columns}}
    changes |= {"corpora.mine.clean": {"lowercase": True}, "tasks.grpo.method": "dpo"}
    changes |= {"tasks.grpo.settings": {"contrasts": {"source": "pairs"}}}
    with pytest.raises(ConfigurationError, match="corpora.mine.clean.lowercase"):
        Grid(configured(["ppo"], changes))
    assert Grid(configured(["ppo"], changes | {"corpora.mine.columns.prompt": "prompt"})).cells


# ------------------------------------------------------------- what is declared is what is read


def attributes(code: ModuleType | object, *names: str) -> set[str]:
    """Fields of settings that `code` reads from variables of these names."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    }


def script(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(f"workflow_scripts.{name}")


def fields(cls: type[Settings]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def declared(cls: type[Settings], method: str) -> set[str]:
    return {f.name for f in dataclasses.fields(cls) if method in f.metadata["methods"]}


def test_the_methods_of_a_field_are_those_whose_code_reads_it():
    scale, evaluated = (
        attributes(rewards.scale_of, "settings"),
        attributes(ppo.evaluate, "settings"),
    )
    of_group = attributes(group, "settings") | attributes(script("group"), "settings")
    of_ranked = attributes(sampling, "settings") | evaluated | scale
    of_ranking = attributes(completions, "ranking") | attributes(sampling, "ranking")
    by_dpo = attributes(dpo.train_on_tokens, "settings")
    by_dpo |= attributes(dpo._configuration, "settings")
    of_pairs = attributes(given.evaluate_preference, "settings")
    of_pairs |= attributes(dpo.answer_margins, "settings")
    read = {
        ("ppo", PPO): attributes(ppo, "settings") | attributes(script("ppo"), "settings") | scale,
        ("rloo", PPO): of_group | evaluated | scale,
        ("given", PPO): attributes(script("given"), "settings") | evaluated | scale,
        ("best_of_n", PPO): of_ranked
        | attributes(best_of_n, "settings")
        | attributes(script("best_of_n"), "settings"),
        ("ranked", PPO): of_ranked | attributes(script("ranked"), "settings"),
        ("ranked", DPO): by_dpo,
        ("best_of_n", Ranking): of_ranking,
        ("ranked", Ranking): of_ranking,
        ("distil", PPO): attributes(script("distil"), "settings") | evaluated | scale,
        ("distil", Distil): attributes(distil, "settings"),
        ("given on pairs", PPO): {"new_tokens"},
        ("rloo", Group): attributes(group, "group"),
        ("dpo", DPO): attributes(dpo, "settings"),
        ("given on pairs", DPO): of_pairs,
    }
    read[("grpo", PPO)], read[("grpo", Group)] = read[("rloo", PPO)], read[("rloo", Group)]
    for method in METHODS:
        for cls in (PPO, Group, Ranking, Distil, DPO):
            wanted = read.get((method, cls), set()) & fields(cls)
            assert declared(cls, method) == wanted, (method, cls.__name__)


@pytest.mark.parametrize(
    ("methods", "job", "ours", "theirs"),
    [
        (["ppo"], "explanations", "min_valence", "min_auc"),
        (["dpo"], "explanations", "min_auc", "min_valence"),
        (["ppo"], "probes", "alphas", "Cs"),
        (["dpo"], "ablation", "prompt_tokens", "prefix_tokens"),
        (["rloo"], "group", "new_tokens", "value_coef"),
    ],
)
def test_a_job_has_no_setting_that_its_method_does_not_read(methods, job, ours, theirs):
    """So that one of them reruns nothing."""
    grid = Grid(configured(methods, {}))
    values = grid.job_settings(job, grid.cells[0], {"sae": "tied", "subject": "policy"})
    assert ours in values
    assert theirs not in values


@pytest.mark.parametrize(
    ("methods", "ours", "theirs"),
    [(["ppo"], "words_per_class", "triples"), (["dpo"], "triples", "words_per_class")],
)
def test_triples_are_made_by_the_settings_of_their_kind(methods, ours, theirs):
    grid = Grid(configured(methods, {}))
    values = grid.contrast_settings(grid.cells[0].task)
    assert ours in values
    assert theirs not in values


def test_every_field_of_fine_tuning_has_its_methods_in_the_tables_of_keys():
    readme = (ROOT / "config" / "README.md").read_text()
    for stage in TRAINING_STAGES:
        section = readme.split(f"\n### `{stage}`\n")[1].split("\n### ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert rows and all("Read by `" in row for row in rows)


def test_every_key_of_adapters_changes_the_adapters():
    """A dropout would not: trainers switch dropouts off, and the key is gone."""
    from lfp.finetune.adapters import lora_config

    assert fields(Lora) == {"r", "alpha"}
    assert [lora_config(Lora(3, 4)).r, lora_config(Lora(3, 4)).lora_alpha] == [3, 4]
    changes = {"settings.ppo.lora": {"r": 2, "alpha": 4, "dropout": 0.9}}
    with pytest.raises(ConfigurationError, match="settings.ppo.lora.dropout: unknown key"):
        Grid(configured(["ppo"], changes))


# --------------------------------------------------------------------------- fewer than are needed


@pytest.mark.parametrize("count", [1, 63, 64])
def test_a_split_that_is_held_out_whole_stops_with_setting_and_number(count):
    texts = [f"text {i}" for i in range(count)]
    reason = f"held_out_texts is 64, and the split 'train' has {count}"
    with pytest.raises(ValueError, match=reason):
        split_texts(texts, Activations())


def test_what_autoencoders_learn_from_and_are_measured_on_do_not_overlap():
    texts = [f"text {i}" for i in range(65)]
    assert split_texts(texts, Activations()) == (texts[:1], texts[1:])
    # The rows of a corpus without a text say why nothing was estimated (docs/reliability.md).
    assert split_texts([], Activations()) == ([], [])
    assert split_texts(texts, Activations(held_out_texts=0)) == (texts, [])
    learned, _ = split_texts(texts, Activations(texts=10, held_out_texts=5))
    assert learned == texts[:10]


def test_texts_without_tokens_stop_and_no_texts_do_not(tokenizer):
    assert encoded(tokenizer, [], Activations(), least=2) == []
    with pytest.raises(ValueError, match="none of 2 texts has 1 tokens"):
        encoded(tokenizer, ["", ""], Activations())
    one = tokenizer.decode([tokenizer("a")["input_ids"][0]])
    with pytest.raises(ValueError, match="none of 1 texts has 2 tokens"):
        encoded(tokenizer, [one], Activations(), least=2)


def test_a_measure_without_a_token_chooses_no_layer():
    rows = [{"mlp_l2": 1.0, "activation": None}, {"mlp_l2": 2.0, "activation": None}]
    by_tokens = Divergence(measure="activation", n_layers=1)
    with pytest.raises(ValueError, match="divergence.measure is activation, and there is no token"):
        divergence.choose_layers(rows, by_tokens)
    assert divergence.choose_layers(rows, by_tokens, pinned=[0], lowest=[1])["chosen"] == [0]
    assert divergence.choose_layers(rows, Divergence(n_layers=1))["chosen"] == [1]


def test_the_least_changed_layers_are_none_that_is_pinned():
    rows = [{"mlp_l2": change} for change in (1.0, 4.0, 2.0, 3.0)]
    two = Divergence(n_layers=2)
    choice = divergence.choose_layers(rows, two)
    assert (choice["chosen"], choice["lowest"], choice["pinned"]) == ([1, 3], [0, 2], [])
    choice = divergence.choose_layers(rows, two, pinned=[0, 2])
    assert (choice["chosen"], choice["lowest"], choice["pinned"]) == ([0, 2], [1, 3], ["chosen"])
    assert divergence.choose_layers(rows, two, [0], [0])["pinned"] == ["chosen", "lowest"]


def test_inner_folds_of_one_class_are_told_before_training():
    """Each of three outer folds trains on both classes; half of what it trains on has one."""
    rows = pd.DataFrame({"triple": range(6), "word": list("aabbcc"), "context": list("uvwxyz")})
    target = np.array([1, 1, 0, 0, 1, 0])
    data = ProbeData(np.zeros((6, 2)), target, rows)
    settings = Probes(folds=3, inner_folds=2)
    reasons = {why_untrainable(data, "logistic", "by_word", settings, seed) for seed in range(4)}
    assert reasons == {"an inner fold trains on one class only"}
    assert why_untrainable(data, "ridge", "by_word", settings) == ""


def test_dropped_pairs_stand_in_the_record(tokenizer):
    frame = pd.DataFrame(
        {"prompt": ["q"] * 3, "chosen": ["a", "b", " "], "rejected": ["c", "b", "d"]}
    )
    data, dropped = dpo.preference_dataset(frame, tokenizer, 8)
    assert len(data) == 1
    assert (dropped["equal_answers"], dropped["empty_answer"]) == (1, 1)


def test_a_stream_shorter_than_a_window_stops_with_setting_and_number(tokenizer):
    from lfp.organisms import pretraining

    stream = torch.from_numpy(pretraining.packed_tokens(tokenizer, ["one two"]))
    with pytest.raises(ValueError, match=f"have {len(stream)} tokens, .*organism.context"):
        pretraining._check_length(stream, 64)
    assert len(pretraining.packed_tokens(tokenizer, [])) == 0
