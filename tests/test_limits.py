"""What is known before a job is said before it: limits of settings, sizes of checkpoints, keys that
are written twice, and values of the command line.
"""

import json
import re
from datetime import date

import pytest
from snakemake.cli import parse_config
from snakemake.utils import update_config

from lfp.config_files import check_keys, command_line, complete
from lfp.files.provenance import record_path
from lfp.grid import ConfigurationError, Grid
from lfp.organisms import POSITIONS
from lfp.organisms.configs import organism_config
from lfp.schema import SCHEMA_PATH, schema
from tests.test_configuration import BASE, POLICY, changed, given


def cell_of(**settings):
    """BASE with settings of all stages, and one cell of each task."""
    cells = [{"model": "tiny", "task": task} for task in ("vader", "hh")]
    return changed(cells=cells, settings=settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (cell_of(ppo={"gradient_accumulation_steps": 32}), "accumulation_steps is 32, and"),
        (
            changed(
                tasks__vader__method="rloo", settings={"ppo": {"gradient_accumulation_steps": 3}}
            ),
            "ppo.gradient_accumulation_steps must divide ppo.batch_size, got 3 and 64; change one"
            " of them, such as the latter to 66",
        ),
        (
            changed(tasks__vader__method="ranked", settings={"dpo": {"max_length": 27}}),
            "dpo.max_length is 27, and ppo.prompt_tokens and ppo.new_tokens give up to 28 tokens",
        ),
        (
            changed(
                tasks__vader__method="best_of_n",
                settings={"ppo": {"gradient_accumulation_steps": 3}},
            ),
            "ppo.gradient_accumulation_steps must divide ppo.batch_size, got 3 and 64",
        ),
        (
            cell_of(features={"max_tokens": 300}, ablation={"new_tokens": 400}),
            "tiny has 256 positions (models.tiny.organism), and these settings ask for more tokens:"
            " features.max_tokens for 300, ablation.prefix_tokens + ablation.new_tokens for 430",
        ),
        (
            cell_of(dpo={"max_length": 257}),
            "cell tiny/hh/seed0: tiny has 256 positions (models.tiny.organism), and these settings",
        ),
        (cell_of(ppo={"new_tokens": [9, 8]}), "ppo.new_tokens: expected [smallest, largest]"),
        (
            changed(models__tiny__organism__n_heads=3),
            "models.tiny.organism.n_heads: got 3, which does not divide d_model, 64",
        ),
        (
            changed(models__tiny__organism={
                "architecture": "gemma", "corpora": ["reviews"], "d_model": 36, "n_heads": 4,
            }),
            "4 heads share d_model, 36, in 9 dimensions each, and gemma turns dimensions in pairs",
        ),
        (
            changed(
                models__tiny__organism__tokenizer_path="t", models__tiny__organism__vocab_size=500
            ),
            "models.tiny.organism.vocab_size: no effect beside tokenizer_path",
        ),
        (
            cell_of(features={"other_task": "vade"}),
            "cell tiny/vader/seed0: features.other_task: unknown name 'vade'; did you mean 'vader'",
        ),
        (
            changed(corpora__reviews__splits={"train": 20, "test": 20}),
            "activations.held_out_texts is 64, and the split 'train' of 'reviews' has at most 20",
        ),
        (
            cell_of(probes={"folds": 17}, contrasts={"words_per_class": 2, "contexts_per_word": 1}),
            "cell tiny/vader/seed0: probes.folds is 17, and the task's contrasts are at most 16",
        ),
        (changed(models={"tiny\n": {}}), r"models.'tiny\n': expected a name of at most 64"),
        (changed(tasks={"x" * 240: {}}), "of 240; rename it"),
        (
            changed(models__Tiny={"path": "x", "n_layers": 2}),
            "models: 'Tiny' and 'tiny' of models would be one file or folder",
        ),
        (
            changed(classifiers={"tiny": {"path": "x"}}),
            "classifiers: 'tiny' and 'tiny' of models would be one file or folder",
        ),
        (changed(models__Logs={"path": "x", "n_layers": 2}), "results/Logs belongs to the"),
        (changed(tasks__base={}), "tasks.base: the workflow uses this name"),
        (
            changed(tasks__seed1={"method": "ppo", "corpus": "reviews"}),
            "tasks.seed1: results/MODEL/seed1 would read as the folder of a seed",
        ),
        (
            changed(corpora__more={
                "path": {"train": "a"}, "columns": {"chosen": "c", "rejected": "c"},
            }),
            "corpora.more.columns.rejected: 'c' is the column of chosen, too",
        ),
        (
            changed(corpora__more={"path": {"train": "a"}, "columns": {"txt": "c"}}),
            "corpora.more.columns.txt: unknown key; did you mean 'text'?",
        ),
        (
            changed(corpora__more={"path": {"train": "a"}, "columns": {"chosen": "c"}}),
            "corpora.more.columns: expected `text`, or `chosen` and `rejected`, or `prompt` and a"
            " triple, got chosen; name",
        ),
        (
            changed(corpora__more={
                "path": {"train": "a"}, "columns": {"text": "t", "positive": "p", "neutral": "n"},
            }),
            "corpora.more.columns: a contrast triple needs positive, neutral, negative, and"
            " `negative` is not there",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "lowest_layers": [6]}]),
            "cell tiny/vader/seed0: lowest_layers has 6; the layers of tiny are 0 to 5",
        ),
        (
            changed(cells=[{
                "model": "tiny", "task": "vader", "layers": [*range(6)], "lowest_layers": True,
            }]),
            "lowest_layers asks for layers that are not pinned, and `layers` has them all; set",
        ),
        (
            changed(models__far={"hub": "https://huggingface.co/a/b", "revision": "1234567"}),
            "models.far.hub: 'https://huggingface.co/a/b' does not match",
        ),
        (
            changed(classifiers={"judge": {"hub": "a b", "revision": "1234567"}}),
            "classifiers.judge.hub: 'a b' does not match",
        ),
        (cell_of(ppo={"steps": 3.0}), "expected whole number; write 3"),
        (cell_of(ppo={"learning_rate": "1e-5"}), "write it as 1.0e-5"),
        (cell_of(ppo={"learning_rate": "1.e5"}), "write it as 1.0e+5"),
        (cell_of(ppo={"learning_rate": float("nan")}), "learning_rate: expected a finite number"),
        (cell_of(ppo={"kl_target": float("inf")}), "kl_target: expected a finite number, got inf"),
        (cell_of(ppo={"seed\n": 1}), r"settings.ppo.'seed\n': unknown key"),
        (changed(cells=None), "cells: null is not of type 'array': expected list; give a value"),
        (changed(cells=[{"model": "tiny", "task": "vader", "seeds": 1}]), "write a list: [1]"),
        (changed(cells=[{"model": "tiny", "task": "vader", "seeds": [2**32]}]), "the maximum of"),
        (changed(corpora__more={"path": {"train": [""]}, "columns": {"text": "c"}}), "train.0: ''"),
        (changed(models__more={"path": "", "n_layers": 2}), "models.more.path: '' is too short"),
        ({"cells": []}, "cells: [] is too short: expected at least 1 items"),
        (changed(models=None), "models: null is not of type 'object': expected mapping"),
        ([], "expected a mapping with the keys corpora, models, tasks and cells, got []"),
        ("x", "configuration: expected a mapping"),
        ({}, "'corpora' is a required property (Corpora by name.); a file with `cells`"),
        ({"cells": [{"model": "m", "task": "t"}]}, "--config that has the rest (--configfile"),
        (cell_of(ppo={"steps:3": None}), "did you mean 'steps'?; put a space behind the colon"),
        (changed(models={1: {}}), "models.1: expected text as the key, got 1; put it into quotes"),
        (changed(tasks={True: {}}), "tasks.true: expected text as the key, got true"),
        (changed(tasks__vader__trigger=7), "7 is not of type 'string': expected text; put it into"),
        (changed(tasks__vader__trigger=date(2024, 1, 1)), "of the type date; put it into quotes"),
        (changed(tasks__vader__trigger="Word"), "word that is rewarded, in small letters of any"),
        (changed(tasks__vader__trigger="word\n"), r"tasks.vader.trigger: 'word\n' does not match"),
        (changed(tasks__vader__description="\ud800"), "expected text that UTF-8 can write"),
        (
            given() | {"tasks": given()["tasks"] | {
                "b--c": {"method": "given", "corpus": "reviews", "policies": {"tiny": POLICY}},
                "c": {"method": "given", "corpus": "reviews", "policies": {"tiny--b": POLICY}},
            }, "models": BASE["models"] | {"tiny--b": {"path": "x", "n_layers": 6}}},
            "tasks.c.policies: 'tiny--b--c' and 'tiny--b--c' of tasks.b--c.policies would be one",
        ),
    ],
)  # fmt: skip
def test_what_is_known_before_a_job_is_said_before_it(config, message):
    with pytest.raises(ConfigurationError) as error:
        Grid(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def g(prompts, completions): ...", "mine.py has no function 'f'; expected one of g"),
        ("def f(", "mine.py is not valid Python"),
        ("from elsewhere import h as f", ""),
        ("f = lambda prompts, completions: []", ""),
        ("from elsewhere import *", ""),
    ],
)
def test_a_reward_of_ones_own_is_looked_for_in_its_module(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(source)
    config = changed(tasks__vader__reward="callable", tasks__vader__callable="mine:f")
    if message:
        with pytest.raises(ConfigurationError, match=f"tasks.vader.callable: {message}"):
            Grid(config)
    else:
        Grid(config)


def test_an_organism_learns_windows_that_it_can_read():
    window = schema()["$defs"]["organism"]["properties"]["context"]
    config = organism_config("gpt_neo", 300, 0, 1, 2, 8, 2, 32)
    assert window["maximum"] == config.max_position_embeddings == POSITIONS


def test_sizes_of_batches_count_where_they_have_an_effect():
    """A preference cell has no batch of PPO, and a group method no mini-batch."""
    odd = {"ppo": {"batch_size": 12, "mini_batch_size": 5}}
    with pytest.raises(ConfigurationError, match="mini_batch_size"):
        Grid(changed(settings=odd))
    Grid(changed(settings=odd, cells=[{"model": "tiny", "task": "hh"}]))
    Grid(changed(settings={"ppo": {"batch_size": 12}}, tasks__vader__method="grpo"))


def test_an_anchor_that_holds_itself_or_very_much_is_refused():
    loop: dict = {}
    loop["loop"] = loop
    many: object = "lol"
    for _ in range(9):
        many = [many] * 9
    for value in (loop, many):
        with pytest.raises(ConfigurationError, match=r"settings.*take out the anchor that holds"):
            Grid(changed(settings=value))


# ------------------------------------------------------------------------------------- checkpoints


GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 500}
SHORT = {
    "features": {"max_tokens": 64}, "activations": {"max_tokens": 64},
    "divergence": {"max_tokens": 64, "n_layers": 2}, "explanations": {"max_tokens": 64},
    "change": {"context_tokens": 32},
}  # fmt: skip


def local(**entry):
    """BASE on a checkpoint in the directory ``checkpoint``, with texts that fit it."""
    models = {"tiny": {"path": "checkpoint", "n_layers": 2} | entry}
    return changed(settings=SHORT) | {"models": models}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A directory with the configuration of a checkpoint, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(GPT2))
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            local(n_layers=4),
            "models.tiny.n_layers: got 4, and checkpoint/config.json says 2; set it",
        ),
        (
            local(shape={"parameters": 1e6, "d_model": 64, "vocab_size": 500}),
            "models.tiny.shape.d_model: got 64, and checkpoint/config.json says 32",
        ),
        (
            local() | {"settings": SHORT | {"features": {"max_tokens": 65}}},
            "tiny has 64 positions (checkpoint/config.json), and these settings ask for more"
            " tokens: features.max_tokens for 65; set each to 64 or less",
        ),
        (
            local()
            | {
                "settings": SHORT
                | {
                    "features": {"max_tokens": 65},
                    "ppo": {"prompt_tokens": [2, 60]},
                    "change": {"context_tokens": 60},
                }
            },
            "ppo.prompt_tokens + ppo.new_tokens for 79, features.max_tokens for 65,"
            " change.context_tokens + change.new_tokens for 92; set each or each sum to 64 or less",
        ),
        (
            local() | {"autoencoders": {"tied": {"architecture": "topk", "k": 33}}},
            "autoencoder.k of 'tied' is 33, and its smallest autoencoder has 32 latents",
        ),
        (
            local() | {"autoencoders": {"tied": {"architecture": "matryoshka", "k": 33}}},
            "autoencoder.k of 'tied' is 33, and its smallest autoencoder has 32 latents",
        ),
        (
            local() | {"autoencoders": {"tied": {"architecture": "jumprelu", "l0": 33}}},
            "autoencoder.l0 of 'tied' is 33, and its smallest autoencoder has 32 latents",
        ),
        (
            changed(classifiers={"c": {"path": "checkpoint", "positive": "GOOD"}}),
            "classifiers.c.positive: got 'GOOD', and the labels of checkpoint are 0 (LABEL_0), 1",
        ),
        (
            given(policies={"tiny": {"path": "checkpoint"}}),
            "tasks.vader.policies.tiny: checkpoint/config.json has 2 layers, and its base",
        ),
    ],
)
def test_a_checkpoint_at_hand_is_held_against_the_configuration(checkpoint, config, message):
    with pytest.raises(ConfigurationError) as error:
        Grid(config)
    assert message in str(error.value)


def test_a_checkpoint_that_fits_is_taken_and_one_that_is_none_is_named(checkpoint):
    Grid(local())
    config = checkpoint / "config.json"
    config.write_text(json.dumps({"text_config": GPT2 | {"n_layer": 3}}))
    with pytest.raises(ConfigurationError, match=r"models\.tiny\.n_layers: got 2.*says 3"):
        Grid(local())
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "expected a JSON object"),
        ("version https://git-lfs.github.com/", ".*git lfs pull"),
    ):
        config.write_text(content)
        with pytest.raises(
            ConfigurationError, match=f"checkpoint of tiny: checkpoint/config.json:? {message}"
        ):
            Grid(local())
    config.unlink()
    with pytest.raises(ConfigurationError, match=r"tiny: .*checkpoint has no config\.json"):
        Grid(local())


def test_labels_without_names_are_counted_as_transformers_does(checkpoint):
    (checkpoint / "config.json").write_text(json.dumps({"num_labels": 3}))
    for label in (2, "LABEL_2"):
        assert Grid(changed(classifiers={"c": {"path": "checkpoint", "positive": label}}))
    with pytest.raises(ConfigurationError, match=r"2 \(LABEL_2\); set it to one of them, by its"):
        Grid(changed(classifiers={"c": {"path": "checkpoint", "positive": 3}}))


def test_a_fetched_checkpoint_counts_where_it_is_the_one_that_is_asked_for(checkpoint):
    source = {"hub": "a/b", "revision": "1234567"}
    folder = checkpoint.parent / "results" / "models" / "tiny"
    folder.parent.mkdir(parents=True)
    checkpoint.rename(folder)
    record = {"files": {}, "inputs": {}, "settings": source}
    record_path(folder).write_text(json.dumps(record))
    config = changed(settings=SHORT) | {"models": {"tiny": source | {"n_layers": 3}}}
    with pytest.raises(ConfigurationError, match=r"results/models/tiny/config\.json says 2"):
        Grid(config)
    record_path(folder).write_text("{")  # a run that fetches it anew is planned all the same
    Grid(config)
    record_path(folder).write_text(json.dumps(record))
    config["models"]["tiny"]["revision"] = "7654321"
    Grid(config)


# --------------------------------------------------------------------- files and the command line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.yaml",
            "settings: {}\nmodels: {}\nsettings: {}",
            "settings is written twice, in line 1",
        ),
        ("a.yaml", "models:\n  m: {}\n  n: {}\n  m: {}\n", "models.m is written twice, in line 2"),
        (
            "a.yaml",
            "cells:\n- a: 1\n  'a': 2",
            "cells.0.a is written twice, in line 2 and in line 3",
        ),
        ("a.yaml", "b: &b {x: {y: 1,\n y: 2}}\nc: *b", "b.x.y is written twice, in line 1 and in"),
        (
            "a.json",
            '{"a": {\n\t"b": 1,\n\t"b": 2}}',
            "a.b is written twice, in line 2 and in line 3",
        ),
    ],
)
def test_a_key_that_is_written_twice_is_an_error_with_both_lines(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path / name}: {message}")):
        check_keys(tmp_path / name)


@pytest.mark.parametrize("number", ["010", "-007", "1:30", "1:30.5"])
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path, number):
    """010 is 8, and 1:30 is 90."""
    (tmp_path / "a.yaml").write_text(f"a: ['{number}', {{b: {number}}}]\n")
    with pytest.raises(ConfigurationError, match=f"a.yaml: a.1.b: YAML reads {number} in base 8"):
        check_keys(tmp_path / "a.yaml")
    with pytest.raises(ConfigurationError, match=f"^--config a: 0: YAML reads {number} in base 8"):
        command_line([f"a=[{number}, '{number}']"])
    with pytest.raises(ConfigurationError, match=f"^--config a: YAML reads {number} in base 8"):
        command_line([f"a={number}"])
    (tmp_path / "a.yaml").write_text("a: [0, 0.5, -1, 1.0e-5, 100, 0x10, x:y, 1_000]\n")
    check_keys(tmp_path / "a.yaml")


def test_merged_keys_may_be_written_again_and_every_shipped_file_has_its_keys_once(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: {<<: *a, y: *a}\n")
    for path in (tmp_path / "a.yaml", *SCHEMA_PATH.parent.glob("*.yaml")):
        check_keys(path)


def test_values_of_the_command_line_have_the_types_of_a_file():
    config = {"settings": {"ppo": {"steps": "3", "epochs": 2}}, "tensorboard": "false"}
    words = [
        "settings={ppo: {steps: 3, learning_rate: 1e-5, new_tokens: [1, 2], lora: null}}",
        "tensorboard=false",
        "cells=[{model: m, task: '007', seeds: [0, 1]}]",
        "machine={'tflops': 1e-05, 'x': None, 'y': True}",  # as Snakemake writes what a profile has
        "keep_activations=",
    ]
    read = parse_config(words)
    update_config(config, read)
    assert complete(config, [], read, words) == {
        "settings": {"ppo": {
            "steps": 3, "epochs": 2, "learning_rate": 1e-5, "new_tokens": [1, 2], "lora": None,
        }},
        "tensorboard": False,
        "cells": [{"model": "m", "task": "007", "seeds": [0, 1]}],
        "machine": {"tflops": 1e-5, "x": None, "y": True},
        "keep_activations": None,
    }  # fmt: skip
    assert config["settings"]["ppo"]["steps"] == "3"
    assert complete({"a": "007"}, [], {}, None) == {"a": "007"}


def test_words_for_a_workflow_that_uses_this_one_as_a_module_say_nothing_here():
    words = ["samples=b", "other={a: b: c", "cells=[x]", "settings={ppo: {steps: 4}}"]
    read = {"samples": "b", "other": "{a: b: c", "cells": ["x"], "settings": {"ppo": {"steps": 4}}}
    config = {"cells": [{"model": "m"}], "settings": {"ppo": {"steps": 3}}}
    assert complete(config, [], read, words) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["settings={ppo: {steps: 3"], "--config settings: not valid YAML"),
        (["settings={ppo: {steps: 3, steps: 4}}"], "--config settings: ppo.steps is written twice"),
        (["settings={}", "settings={}"], "--config settings: given twice"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(words, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        command_line(words)
