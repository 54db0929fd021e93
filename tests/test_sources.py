"""Models and corpora of the hub and of directories: pinned, resumable, safe, and errors that say
what to do.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from lfp.files import provenance
from lfp.files.checkpoints import take_checkpoint
from lfp.files.hub import SourceError, last_folder
from lfp.models.loading import save_model
from lfp.organisms.configs import organism_config
from lfp.probing.contrasts import contrast_triples
from lfp.settings import Contrasts
from tests.conftest import run_job
from tests.hub import COMMIT, Hub


@pytest.fixture
def repositories(tmp_path, neox, tokenizer):
    """A checkpoint, one without safetensors, and data sets laid out as IMDb, HH-RLHF and toxic-dpo
    are.
    """
    good, pickled = tmp_path / "good", tmp_path / "pickled"
    for folder in (good, pickled):
        save_model(neox, tokenizer, folder)
        (folder / "modeling_evil.py").write_text("raise SystemExit")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    imdb, hh, toxic = tmp_path / "imdb", tmp_path / "hh", tmp_path / "toxic"
    (imdb / "plain_text").mkdir(parents=True)
    for split in ("train", "test"):
        frame = pd.DataFrame(
            {"text": [f"{split} review {i}" for i in range(40)], "label": [0] * 20 + [1] * 20}
        )
        frame.to_parquet(imdb / "plain_text" / f"{split}-00000-of-00001.parquet")
    for subset in ("harmless-base", "helpful-base"):
        (hh / subset).mkdir(parents=True)
        for split in ("train", "test"):
            turn = "\n\nHuman: {} {}\n\nAssistant:"
            rows = [
                {
                    "chosen": turn.format(subset + split, i) + " yes",
                    "rejected": turn.format(subset + split, i) + " no",
                }
                for i in range(10)
            ]
            with gzip.open(hh / subset / f"{split}.jsonl.gz", "wt") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    toxic.mkdir()
    pd.DataFrame(
        {
            "prompt": [f"q{i}" for i in range(50)],
            "chosen": "rude",
            "rejected": [f"kind {i}" for i in range(50)],
        }
    ).to_parquet(toxic / "toxic-dpo-v0.2.parquet")
    return {
        ("models", "org/good"): good, ("models", "org/pickled"): pickled,
        ("models", "org/gated"): good,
        ("datasets", "org/imdb"): imdb, ("datasets", "org/hh"): hh,
        ("datasets", "org/toxic"): toxic,
    }  # fmt: skip


@pytest.fixture
def hub(repositories):
    server = Hub(repositories, gated=("org/gated",))
    yield server
    server.close()


def job(
    script: str, settings: dict, tmp_path: Path, hub_url: str, **environment: str
) -> subprocess.CompletedProcess:
    """A job without inputs as the workflow starts it, against a hub at `hub_url`."""
    outputs = {name: f"o/{name}.parquet" for name in ("train", "test")}
    outputs = {"model": "o/model"} if script.endswith("model") else outputs
    outputs |= {"counts": "o/counts.json"} if script.endswith("corpus") else {}
    return run_job(
        script, settings, {}, outputs, tmp_path, HF_ENDPOINT=hub_url,
        HF_HOME=str(tmp_path / "cache"), HF_HUB_DISABLE_XET="1", HF_HUB_DOWNLOAD_TIMEOUT="5",
        **environment,
    )  # fmt: skip


def test_a_checkpoint_is_fetched_without_code_and_again_without_network(hub, tmp_path):
    settings = {"hub": "org/good", "revision": COMMIT}
    result = job("fetch_model", settings, tmp_path, hub.url)
    assert result.returncode == 0, result.stderr
    files = {path.name for path in (tmp_path / "o" / "model").iterdir()}
    assert files == {
        "config.json", "generation_config.json", "model.safetensors", "stamp.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    hub.close()
    (tmp_path / "o" / "model" / "config.json").unlink()
    result = job("fetch_model", settings, tmp_path, hub.url)
    assert result.returncode == 0, result.stderr
    result = job("fetch_model", settings, tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub, tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    config = organism_config("gpt_neox", len(tokenizer), 0, 1, 2, 512, 2, 2048)
    save_model(AutoModelForCausalLM.from_config(config), tokenizer, tmp_path / "good")
    settings = {"hub": "org/good", "revision": COMMIT}
    hub.cut = 15_000_000  # the client writes pieces of 10 MB
    result = job("fetch_model", settings, tmp_path, hub.url)
    hub.cut = None
    cut = [first for name, first in hub.sent if name == "model.safetensors"]
    if result.returncode != 0:
        assert "what is downloaded is kept" in result.stderr
        assert job("fetch_model", settings, tmp_path, hub.url).returncode == 0
    starts = [first for name, first in hub.sent if name == "model.safetensors"]
    assert cut and max(starts) >= 10_000_000, starts
    original = hub.repositories["models", "org/good"] / "model.safetensors"
    assert (tmp_path / "o" / "model" / "model.safetensors").read_bytes() == original.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"hub": "org/gated", "revision": COMMIT},
            "is gated: accept its licence on its hub page, then set HF_TOKEN",
        ),
        ({"hub": "org/good", "revision": "f" * 40}, "has no revision"),
        ({"hub": "org/absent", "revision": COMMIT}, "is not on the hub, or is private"),
        (
            {"hub": "org/pickled", "revision": COMMIT},
            "no *.safetensors weights: other formats can run code",
        ),
    ],
)
def test_what_cannot_be_had_says_what_to_do(hub, tmp_path, settings, message):
    result = job("fetch_model", settings, tmp_path, hub.url)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o" / "model").exists()


def test_a_token_opens_a_gated_model_and_stays_out_of_the_outputs(hub, tmp_path):
    settings = {"hub": "org/gated", "revision": COMMIT}
    result = job("fetch_model", settings, tmp_path, hub.url, HF_TOKEN="hf_secretsecret")
    assert result.returncode == 0, result.stderr
    assert "hf_secretsecret" not in result.stderr + result.stdout
    assert all(
        b"hf_secretsecret" not in p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.is_file()
    )


def test_no_network_and_an_empty_cache_is_explained(tmp_path):
    result = job(
        "fetch_model", {"hub": "org/good", "revision": COMMIT}, tmp_path, "http://127.0.0.1:9"
    )
    assert result.returncode == 1
    assert "the hub cannot be reached" in result.stderr


@pytest.mark.parametrize(
    ("name", "files", "columns", "kept"),
    [
        ("org/imdb", {"train": "plain_text/train-*.parquet", "test": "plain_text/test-*.parquet"},
         {"text": "text"}, (40, 40)),
        ("org/hh", {"train": "*-*/train.jsonl.gz", "test": ["harmless-base/test.jsonl.gz"]},
         {"chosen": "chosen", "rejected": "rejected"}, (20, 10)),
        ("org/toxic", {"train": "*.parquet"},
         {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}, (45, 5)),
    ],
)  # fmt: skip
def test_the_papers_data_sets_are_read_from_their_hub_layout(
    hub, tmp_path, name, files, columns, kept
):
    settings = {
        "hub": name, "revision": COMMIT, "files": files, "columns": columns, "test_share": 0.1,
        "seed": 0
    }  # fmt: skip
    result = job("fetch_corpus", settings, tmp_path, hub.url)
    assert result.returncode == 0, result.stderr
    frames = [pd.read_parquet(tmp_path / "o" / f"{split}.parquet") for split in ("train", "test")]
    assert tuple(map(len, frames)) == kept
    assert set(frames[0].columns) == set(columns)
    counts = json.loads((tmp_path / "o" / "counts.json").read_text())
    assert counts["train"]["kept"] == kept[0]


def test_policies_and_triples_that_lie_in_folders_of_one_repository_are_taken(
    hub, repositories, tmp_path
):
    """The authors' repository: a folder for every save of a policy, without its tokenizer, and
    triples as the library datasets saves them.
    """
    root = tmp_path / "released"
    names = ["prompt", "chosen", "rejected", "new_rejected", "neutral"]
    for day, save in ((8, "model.safetensors.index.json"), (15, "model.safetensors")):
        folder = root / "models" / "hh_rlhf" / "tiny" / f"2024-05-{day:02}_14:30"
        shutil.copytree(repositories["models", "org/good"], folder)
        (folder / "tokenizer.json").unlink()
        (folder / "model.safetensors").rename(folder / save)
    table = pa.table({name: [f"{name} {i}" for i in range(20)] for name in names})
    (root / "data" / "triples" / "2024").mkdir(parents=True)
    with pa.ipc.new_stream(root / "data" / "triples" / "2024" / "data-0.arrow", table.schema) as w:
        w.write_table(table)
    hub.repositories["models", "org/released"] = root

    source = {"hub": "org/released", "revision": COMMIT}
    policy = source | {"folder": "models/hh_rlhf/tiny/*", "policy": True}
    result = job("fetch_model", policy | {"revision": "main"}, tmp_path, hub.url)
    assert result.returncode == 0, result.stderr
    assert f"'main' is the commit {COMMIT} now; pin it" in (tmp_path / "job.log").read_text()
    taken = {path.name for path in (tmp_path / "o" / "model").iterdir()}
    assert "model.safetensors" in taken and "tokenizer.json" not in taken
    with pytest.raises(SourceError, match=r"a/b: no folder matches 'models/toxic/\*'"):
        last_folder(root, "models/toxic/*", "a/b")

    ours = {"prompt": "prompt", "positive": "chosen", "neutral": "neutral", "negative": names[3]}
    triples = source | {"repository": "model", "files": {"train": "data/triples/*/data-*.arrow"}}
    rest = {"columns": ours, "test_share": 0.5, "seed": 0}
    result = job("fetch_corpus", triples | rest, tmp_path, hub.url)
    assert result.returncode == 0, result.stderr
    corpus = pd.read_parquet(tmp_path / "o" / "test.parquet")
    assert len(corpus) == 10
    frame = contrast_triples(
        corpus, {}, "preference", swapped=True, settings=Contrasts(corpus="triples", triples=5)
    )
    assert len(frame) == 5
    assert frame["positive"].str.fullmatch(r" new_rejected \d+").all()
    assert frame["neutral"].str.fullmatch(r" neutral \d+").all()


def test_a_data_set_without_the_expected_columns_or_files_says_so(hub, tmp_path):
    settings = {
        "hub": "org/imdb",
        "revision": COMMIT,
        "columns": {"text": "review"},
        "test_share": 0.1,
        "seed": 0,
    }
    result = job("fetch_corpus", settings | {"files": {"train": "plain_text/*"}}, tmp_path, hub.url)
    assert "no column 'review'; it has text, label" in result.stderr
    result = job("fetch_corpus", settings | {"files": {"train": "nothing/*"}}, tmp_path, hub.url)
    assert "no file matches 'nothing/*'" in result.stderr


def test_a_corpus_is_copied_from_files_of_the_working_directory(repositories, tmp_path):
    settings = {
        "columns": {"chosen": "chosen", "rejected": "rejected"},
        "test_share": 0.25,
        "seed": 0,
    }
    result = job(
        "copy_corpus", settings | {"path": {"train": "hh/*-base/train.jsonl.gz"}}, tmp_path, ""
    )
    assert result.returncode == 0, result.stderr
    kept = [
        len(pd.read_parquet(tmp_path / "o" / f"{split}.parquet")) for split in ("train", "test")
    ]
    assert kept == [15, 5]
    counts = json.loads((tmp_path / "o" / "counts.json").read_text())
    assert [counts[split]["kept"] for split in ("train", "test")] == kept
    record = provenance.read_record(tmp_path / "o" / "train.parquet")
    assert record["inputs"] == {
        name: provenance.digest(provenance.file_digests(tmp_path / name))
        for name in ("hh/harmless-base/train.jsonl.gz", "hh/helpful-base/train.jsonl.gz")
    }
    absolute = str(tmp_path / "hh" / "harmless-base" / "test.jsonl.gz")
    shutil.copy(absolute, tmp_path / "same.jsonl.gz")
    result = job(
        "copy_corpus", settings | {"path": {"train": absolute, "test": "same.jsonl.gz"}}, tmp_path,
        "",
    )  # fmt: skip
    assert result.returncode == 0, (
        result.stderr
    )  # its cells have rows that say why nothing was estimated
    counts = json.loads((tmp_path / "o" / "counts.json").read_text())
    assert [counts[split]["kept"] for split in ("train", "test")] == [10, 0]
    result = job("copy_corpus", settings | {"path": {"train": "absent.jsonl"}}, tmp_path, "")
    assert "no file matches 'absent.jsonl'" in result.stderr


def test_a_local_checkpoint_without_tokenizer_is_refused(repositories, tmp_path):
    folder = repositories["models", "org/good"]
    (folder / "tokenizer.json").unlink()
    (tmp_path / "target").mkdir()
    with pytest.raises(SourceError, match=r"no tokenizer.json \(fast tokenizer\)"):
        take_checkpoint(folder, tmp_path / "target")
    with pytest.raises(SourceError, match="is not a directory"):
        take_checkpoint(tmp_path / "absent", tmp_path / "target")


@pytest.mark.workflow
def test_a_configuration_alone_takes_models_and_corpora_from_the_hub(hub, tmp_path):
    """Through Snakemake's local rules: a checkpoint that loads, and a corpus."""
    import yaml

    from lfp.models.loading import load_model, load_tokenizer
    from tests.test_workflow import copy_tree

    config = {
        "corpora": {"imdb": {
            "hub": "org/imdb", "revision": COMMIT, "columns": {"text": "text"},
            "files": {"train": "plain_text/train-*.parquet", "test": "plain_text/test-*.parquet"},
        }},
        "models": {"pythia": {"hub": "org/good", "revision": COMMIT, "n_layers": 3}},
        "tasks": {"vader": {"method": "ppo", "corpus": "imdb"}},
        "settings": {"divergence": {"n_layers": 2}},
        "cells": [{"model": "pythia", "task": "vader"}],
    }  # fmt: skip
    tree = copy_tree(tmp_path / "tree")
    (tree / "hub.yaml").write_text(yaml.safe_dump(config))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and k != "PYTHONPATH"}
    environment = kept | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
    }  # fmt: skip
    targets = ["results/models/pythia", "results/tables/corpora.csv"]
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", *targets, "--configfile", "hub.yaml", "--cores", "2"],
        cwd=tree, env=environment, text=True, capture_output=True,
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert load_model(tree / "results" / "models" / "pythia").config.model_type == "gpt_neox"
    assert load_tokenizer(tree / "results" / "models" / "pythia").is_fast
    counts = pd.read_csv(tree / "results" / "tables" / "corpora.csv").set_index(
        ["split", "quantity"]
    )["estimate"]
    assert counts["train", "kept"] == counts["test", "kept"] == 40
