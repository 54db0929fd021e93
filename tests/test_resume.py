"""Interrupted anywhere, long work ends as work that was let be; work gone astray ends with its
curve.
"""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.explaining import activations_by_word, excerpts, exemplars, heuristic
from lfp.files import artefacts, provenance, resume, writing
from lfp.finetune import ppo
from lfp.interventions import completions
from lfp.models.hooks import site_activations
from lfp.organisms import pretraining
from lfp.probing import features
from lfp.running import job
from lfp.sae import harvest as harvesting
from lfp.sae.architectures.standard import Standard
from lfp.sae.harvest import harvest
from lfp.sae.training import loop
from lfp.settings import PPO, Autoencoder, Explanations, Organism
from tests.conftest import ROOT, job_arguments


class KilledError(Exception):
    """Stands in for SIGKILL."""


@pytest.fixture(autouse=True)
def save_always(monkeypatch):
    """Keep a resume point whenever there is something to keep."""
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)


def killed_after(calls: int, function):
    """`function`, which is killed at a later call."""
    count = 0

    def wrapped(*args, **options):
        nonlocal count
        count += 1
        if count > calls:
            raise KilledError
        return function(*args, **options)

    return wrapped


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("steps", [1, 7, 14, 23])
def test_autoencoders(tied, steps, tmp_path, monkeypatch):
    data = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float16)
    settings = Autoencoder(tied=tied, batch_size=8, epochs=3)
    whole = loop.train(data, [6, 12], settings, seed=3)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(loop, "_keep", killed_after(steps, loop._keep))
        loop.train(data, [6, 12], settings, seed=3, state_path=tmp_path / "state")
    assert (tmp_path / "state").exists()
    resumed = loop.train(data, [6, 12], settings, seed=3, state_path=tmp_path / "state")
    for ours, theirs in zip(resumed.autoencoders, whole.autoencoders, strict=True):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


@pytest.mark.parametrize("windows", [1, 3])
def test_harvest(windows, neox, tokenizer, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(3, 300, rng.integers(2, 9)).tolist() for _ in range(30)]
    shape = (sum(map(len, sequences)), 16)
    whole, state, progress = (
        np.zeros(shape, np.float16),
        tmp_path / "state",
        tmp_path / "state" / "progress.json",
    )
    how, name = (tokenizer.pad_token_id, 4, 5, 40), "layer1.safetensors"
    harvest(neox, sequences, {1: whole}, *how)

    def attempt() -> None:
        with (
            writing.resumable_directory(tmp_path / "out", state, [name], {}) as folder,
            artefacts.tensor_file(folder / name, "activations", shape, {}) as array,
        ):
            harvest(neox, sequences, {1: array}, *how, progress_path=progress)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(harvesting, "write_json", killed_after(windows, artefacts.write_json))
        attempt()
    assert len(artefacts.read_json(progress)["windows"]) == windows
    seen = []
    with monkeypatch.context() as patch:
        plain = site_activations
        patch.setattr(
            harvesting,
            "site_activations",
            lambda m, part, *a, **o: seen.append(part) or plain(m, part, *a, **o),
        )
        attempt()
    assert sum(map(len, seen)) < len(sequences)  # what was there was not read again
    np.testing.assert_array_equal(
        artefacts.open_tensor(tmp_path / "out" / "layer1.safetensors", "activations"), whole
    )


def test_ablation(neox, tokenizer, tmp_path, monkeypatch):
    prefixes = [tokenizer(f"a film of {n}")["input_ids"] for n in range(6)]
    conditions = [{}, {1: lambda output: output * 0.5}, {0: lambda output: -output}]

    def reward(prompts, texts):
        return np.array([float(len(text)) for text in texts])

    how = (neox, tokenizer, conditions, prefixes, reward, 5, 4, 3)
    whole = completions.completion_rewards(*how)
    state = tmp_path / "state.parquet"
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(completions, "_completions", killed_after(2, completions._completions))
        completions.completion_rewards(*how, state)
    calls = []
    with monkeypatch.context() as patch:
        plain = completions._completions
        patch.setattr(completions, "_completions", lambda *a: calls.append(1) or plain(*a))
        resumed = completions.completion_rewards(*how, state)
        before = len(calls)
        completions.completion_rewards(*how)
    assert before == len(calls) - before - 2
    for ours, theirs in zip(resumed, whole, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    state.write_bytes(b"damaged")
    for ours, theirs in zip(completions.completion_rewards(*how, state), whole, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


# -------------------------------------------------------------------------------------- gone astray


def settings_of_ppo(**options) -> PPO:
    """A few steps of PPO."""
    small = {"steps": 4, "batch_size": 8, "mini_batch_size": 4, "epochs": 1, "warmup_steps": 1}
    return PPO(**(small | options))


def explained_texts(model, tokenizer, texts, folder=None):
    """Everything that explanations read of `texts`, with resume points in `folder`."""
    torch.manual_seed(0)
    saes = {n: Standard(16, 12) for n in (0, 2)}
    settings = Explanations(
        max_tokens=48, batch_size=4, excerpt_tokens=6, evidence_top=2, evidence_random=2
    )
    strongest = exemplars.strongest_windows(tokenizer, saes, texts, settings, seed=0)
    states = [folder / name if folder else None for name in ("words", "windows", "answers")]
    words = activations_by_word.word_activations(
        model, tokenizer, saes, texts, settings, strongest, states[0]
    )
    explained = pd.DataFrame({"layer": [0, 2, 2], "feature": [3, 11, 4]})
    held_out = list(
        excerpts.feature_windows(model, tokenizer, saes, explained, texts, settings, states[1])
    )
    pairs = pd.DataFrame(
        {"prompt": texts, "chosen": " it is good", "rejected": " this was a bad one"}
    )
    by_layer = heuristic.answer_latents(model, tokenizer, saes, pairs, settings, states[2])
    answers = {f"answers.{layer}": np.stack(latents) for layer, latents in by_layer.items()}
    values = {
        f"{layer}.{name}": value
        for layer, activations in words.items()
        for name, value in vars(activations).items()
    }
    values |= {f"windows.{i}": np.concatenate(one.activations) for i, one in enumerate(held_out)}
    return values | answers, exemplars.evidence(strongest, explained, texts)


@pytest.mark.parametrize("module", [activations_by_word, excerpts, features])
@pytest.mark.parametrize("batches", [1, 3])
def test_explanations(module, batches, neox, tokenizer, reviews, tmp_path, monkeypatch):
    texts = reviews[:17]
    values, shown = explained_texts(neox, tokenizer, texts)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(module, "save_tensors", killed_after(batches, resume.save_tensors))
        explained_texts(neox, tokenizer, texts, tmp_path)
    forwards = []
    handle = neox.base_model.register_forward_pre_hook(lambda *a: forwards.append(1))
    again, shown_again = explained_texts(neox, tokenizer, texts, tmp_path)
    handle.remove()
    assert shown_again.equals(shown)
    assert set(again) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    neox.base_model.register_forward_pre_hook(lambda *a: forwards.append(-1))
    explained_texts(neox, tokenizer, texts)
    assert sum(forwards) < 0  # what was there was not read again


def test_ppo_ends_where_the_reward_is_not_a_number(neox, tokenizer, reviews):
    def reward(prompts, texts):
        return np.full(len(texts), np.nan)

    with pytest.raises(
        resume.DivergedError, match="reward.* not finite at step 0; lower the learning rate"
    ) as caught:
        ppo.train(neox, tokenizer, reviews, reward, settings_of_ppo(), seed=0)
    assert len(caught.value.curve) == 1


def test_ppo_ends_where_its_kl_explodes(neox, tokenizer, reviews):
    def reward(prompts, texts):
        return np.array([text.count("e") for text in texts], dtype=float)

    settings = settings_of_ppo(steps=40, learning_rate=0.05, stop_kl=3.0, init_kl_coef=0.0)
    with pytest.raises(resume.DivergedError, match=r"KL of .* is above stop_kl \(3\)") as caught:
        ppo.train(neox, tokenizer, reviews, reward, settings, seed=0)
    curve = caught.value.curve
    assert curve[-1]["kl"] > 3
    assert all(row["kl"] <= 3 for row in curve[:-1])


def test_autoencoders_end_where_activations_are_not_numbers():
    data = np.ones((64, 4), dtype=np.float16)
    data[5, 2] = np.nan
    settings = Autoencoder(batch_size=16, epochs=2)
    with pytest.raises(resume.DivergedError, match="autoencoder of 4 latents: loss"):
        loop.train(data, [4], settings, seed=0)


def test_pretraining_ends_where_its_loss_explodes(tokenizer, reviews, monkeypatch):
    monkeypatch.setattr(
        pretraining,
        "cross_entropies",
        lambda *_: torch.tensor(float("inf"), requires_grad=True),
    )
    organism = Organism(
        architecture="gpt_neox", corpora=(), n_layers=1, d_model=8, n_heads=1, steps=2,
        batch_size=2, context=8,
    )  # fmt: skip
    with pytest.raises(resume.DivergedError, match="pre-training: loss not finite at step 0"):
        pretraining.pretrain(tokenizer, pretraining.packed_tokens(tokenizer, reviews), organism)


# --------------------------------------------------------------------------------- a job as a whole

SCRIPT = """
import sys, time
from pathlib import Path
from lfp.running import job
from lfp.files import artefacts, resume

run = job.start("A job.")
mode = run.settings["mode"]
if mode == "diverge":
    raise resume.DivergedError("KL of 1e9", [{"step": 0, "kl": 1e9}])
if mode == "refused":
    try:
        raise RuntimeError("no such key: sk-planted-123 \\x1b[31m")
    except RuntimeError as error:
        raise ValueError("services.s: 401, sk-planted-123") from error
if mode == "slow":
    print("writing", flush=True)
    time.sleep(60)
artefacts.write_json(run.output.values, {"x": 1}, run.stamp)
run.finish("x 1 \\x1b[31m")
"""


def command(folder: Path, mode: str) -> list[str]:
    """A job that reads ``source.json`` and writes ``out.json``."""
    script = folder / "a_job.py"
    script.write_text(SCRIPT)
    paths = {"source": "source.json"}, {"values": "out.json"}
    arguments = job_arguments({"seed": 3, "mode": mode}, *paths, log="logs/out.log")
    return [sys.executable, str(script), *arguments]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an input, and the package on the path of jobs in it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    artefacts.write_json(tmp_path / "source.json", {"y": 2}, {})
    return tmp_path


def test_a_job_records_where_its_output_comes_from(folder):
    done = subprocess.run(
        command(folder, "quick"), cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("a_job out: x 1 \\x1b[31m (")
    assert "\x1b" not in done.stdout
    record = provenance.read_record(folder / "out.json")
    assert record["settings"] == {"seed": 3, "mode": "quick"}
    assert record["files"] == provenance.file_digests(folder / "out.json")
    source = provenance.digest(provenance.file_digests(folder / "source.json"))
    assert record["inputs"] == {"source.json": source}
    assert {"code", "versions", "device", "threads", "started", "seconds"} <= set(record)
    assert "finished: a_job out: x 1" in (folder / "logs" / "out.log").read_text()


def test_a_diverged_job_keeps_its_curve(folder):
    done = subprocess.run(command(folder, "diverge"), cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "logs/out.curve.csv" in done.stderr
    assert (folder / "logs" / "out.curve.csv").read_text() == "step,kl\n0,1000000000.0\n"
    assert not (folder / "out.json").exists()


def test_a_key_that_a_server_repeats_reaches_no_log(folder, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-planted-123")
    monkeypatch.setenv(
        "LFP_SERVICES", json.dumps({"s": {"api_key_env": "MY_KEY"}, "local": {"api_key_env": None}})
    )
    done = subprocess.run(command(folder, "refused"), cwd=folder, capture_output=True, text=True)
    log = (folder / "logs" / "out.log").read_text()
    assert "services.s: 401, ***" in done.stderr
    assert "no such key: ***" in log
    assert "planted" not in log + done.stdout + done.stderr
    assert "\x1b" not in log


def test_a_second_writer_waits_for_an_orphan_and_clears_what_it_left(folder):
    with subprocess.Popen(
        command(folder, "slow"), cwd=folder, stdout=subprocess.PIPE, text=True
    ) as orphan:
        assert orphan.stdout.readline() == "writing\n"
        left, other = folder / ".out.json.abcd1234", folder / ".other.json.abcd1234"
        left.write_text("half"), other.write_text("another job's")
        (folder / ".out.json.state-0123456789ab").mkdir()
        second = subprocess.Popen(
            command(folder, "quick"), cwd=folder, stderr=subprocess.PIPE, text=True
        )
        assert f"another process ({orphan.pid}) writes out.json" in second.stderr.readline()
        assert left.exists()
        assert '"mode": "slow"' in (folder / "logs" / "out.log").read_text()  # the orphan's log
        orphan.kill()
        second.communicate(timeout=60)
    assert second.returncode == 0
    assert '"mode": "quick"' in (folder / "logs" / "out.log").read_text()
    assert other.exists()
    assert not left.exists()
    assert not (folder / ".out.json.state-0123456789ab").exists()


def test_a_name_with_a_number_is_a_list(monkeypatch, tmp_path):
    inputs = {"base": "a", "train": ["b", "c"], "classifier": [], "probe": ["d"]}
    outputs = {"policy": str(tmp_path / "e"), "parts": [str(tmp_path / "f")]}
    arguments = job_arguments({"seed": 3}, inputs, outputs, str(tmp_path / "log"))
    assert "base train:2 classifier:0 probe:1 -- policy parts:1" in arguments
    monkeypatch.setattr(sys, "argv", ["x.py", *arguments])
    # What a job does to its process goes with the test.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run = job.start(None)
    assert (run.settings, run.seed) == ({"seed": 3}, 3)
    assert vars(run.input) == inputs
    assert vars(run.output) == outputs
    assert run.input.all() == ["a", "b", "c", "d"]
    assert run.output.all() == [str(tmp_path / "e"), str(tmp_path / "f")]


def test_limits_are_settings_of_a_job_and_in_no_stamp(monkeypatch, tmp_path):
    arguments = job_arguments(
        {"seed": 3, "ppo": {"steps": 2}}, {}, {"policy": str(tmp_path / "e")}, str(tmp_path / "log")
    )
    limits = json.dumps({"most": 5, "ppo": {"save_every": 7}})
    log = str(tmp_path / "log")
    monkeypatch.setattr(sys, "argv", ["x.py", "--unstamped", limits, *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run = job.start(None)
    assert run.settings == {"seed": 3, "most": 5, "ppo": {"steps": 2, "save_every": 7}}
    assert run.stamp["settings"] == {"seed": 3, "ppo": {"steps": 2}}
    assert "save_every" in Path(log).read_text()


def test_a_resume_point_is_named_by_all_that_decides_the_result():
    stamp = {"settings": {"layers": [0, 1]}, "code": "1", "versions": {"torch": "2"}}
    one = job.Job(
        settings={}, input=job.Paths(base="a", saes=["b", "c"]), output=job.Paths(policy="p"),
        stamp=stamp, threads=1, gpus=1, hardware="H100", digests={"a": "1", "b": "2", "c": "3"},
        started=datetime.now(UTC),
    )  # fmt: skip
    others = [
        {"stamp": stamp | {"settings": {"layers": [1, 0]}}},
        {"stamp": stamp | {"code": "2"}},
        {"stamp": stamp | {"versions": {"torch": "3"}}},
        {"digests": one.digests | {"c": "4"}},
        {"digests": one.digests | {"b": "3", "c": "2"}},
        {"input": job.Paths(base="a", saes=["c", "b"])},
        {"input": job.Paths(policy="a", saes=["b", "c"])},
        {"input": job.Paths(base="a", saes=["b"])},
        {"threads": 2},
        {"gpus": 2},
        {"hardware": "A100"},
    ]
    names = {replace(one, **other).state_path("p") for other in [{}, *others]}
    assert len(names) == 1 + len(others)
    assert one.state_path("p") == replace(one, started=datetime.now(UTC)).state_path("p")


@pytest.mark.parametrize(
    ("names", "paths", "message"),
    [
        ("a b -- c", ["1", "2"], "--names asks for more paths than the 2 of --paths"),
        ("a:2 -- c", ["1", "2"], "--names asks for more paths than the 2 of --paths"),
        ("a -- c", ["1", "2", "3"], "--paths has 1 more than --names asks for: 3"),
    ],
)
def test_paths_without_a_name_and_names_without_a_path_are_refused(names, paths, message):
    with pytest.raises(ValueError, match=message):
        job.named_paths(names, paths)


def test_a_job_without_inputs_has_outputs_alone():
    inputs, outputs = job.named_paths(" -- csv html", ["1", "2"])
    assert vars(inputs) == {}
    assert vars(outputs) == {"csv": "1", "html": "2"}
