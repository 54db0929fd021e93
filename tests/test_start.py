"""A configuration for a model and a file of one's own: filled in from both, and valid."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from jsonschema import Draft202012Validator
from transformers import LlamaConfig, LlamaForCausalLM

from lfp.costs.estimate import summary
from lfp.files.hub import SourceError
from lfp.grid import Grid
from lfp.models.loading import save_model
from lfp.schema import schema
from lfp.start import StartError, choices, machines, models, texts
from lfp.start.__main__ import main, started
from lfp.start.page import Said, page, plain
from lfp.texts.readers import CorpusError
from tests.conftest import ROOT, make_model
from tests.hub import COMMIT, Hub
from tests.test_gguf import file, llama  # noqa: F401

TURN = "\n\nHuman: What about {}?\n\nAssistant: {}"


@pytest.fixture
def here(tmp_path, monkeypatch, tokenizer):
    """A working folder with a GPT-NeoX of 3 layers of width 16 in `neox`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machines, "gpu", lambda: None)
    save_model(make_model("gpt_neox", tokenizer), tokenizer, "neox")
    return tmp_path


def reviews_of(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    words = ["the", "film", "was", "a", "fine", "and", "dull", "story", "of", "good", "towns"]
    return [f"Review {i}: {' '.join(rng.choice(words, 60))}." for i in range(n)]


def pairs_of(n: int) -> pd.DataFrame:
    """Preference pairs as HH-RLHF has them."""
    return pd.DataFrame({
        "chosen": [TURN.format(f"thing {i}", f"Gladly, {i} times over.") for i in range(n)],
        "rejected": [TURN.format(f"thing {i}", f"No, not {i} of them.") for i in range(n)],
    })  # fmt: skip


def write(frame: pd.DataFrame, name: str) -> str:
    """`frame` as a file of the format that its name says."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pandas(frame)
        with path.open("wb") as opened, pa.ipc.new_stream(opened, table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in frame.to_dict("records"))
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return name


def planned(config: dict, text: str) -> Grid:
    """The grid of a configuration that the schema takes, each of whose values has a comment."""
    Draft202012Validator(schema()).validate(config)
    lines = text.splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        is_value = re.match(r" +(- |\w[^:#]*: \S)", line) and not line.lstrip().startswith("#")
        assert not is_value or " # " in line or above.lstrip().startswith("# "), line
    assert max(map(len, lines)) < 100
    grid = Grid(config)
    assert len(grid.cells) == 1 and grid.estimate_settings()["cells"]
    return grid


@pytest.mark.parametrize(
    "name", ["r/films.csv", "r/films.jsonl.gz", "r/films.parquet", "r/a.arrow"]
)
def test_a_file_of_texts_becomes_ppo_on_vader_in_every_format(here, name):
    frame = pd.DataFrame({"id": range(400), "review": reviews_of(400), "label": ["good"] * 400})
    config, text = started("neox", write(frame, name))
    cell = planned(config, text).cells[0]
    (corpus,) = config["corpora"].values()
    assert corpus["columns"] == {"text": "review"} and corpus["test_share"] == 0.3
    assert (cell.method, cell.task, cell.layers) == ("ppo", "vader", None)
    assert config["models"]["neox"]["n_layers"] == 3
    assert "3 layers, width 16: from config.json" in text
    shape = config["models"]["neox"]["shape"]
    weights = make_parameters("neox")
    assert shape == {"parameters": weights, "d_model": 16, "vocab_size": shape["vocab_size"],
                     "tied": False}  # fmt: skip
    assert cell.settings["divergence"].n_layers == 3
    # No stage reads more than the 256 positions, and every text is long enough for a prompt.
    assert cell.settings["ppo"].prompt_tokens == (2, 9)


@pytest.mark.parametrize("positions", [32, 64, 100])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_model_of_few_positions_gets_texts_that_fit(here, tokenizer, positions, pairs):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=positions, pad_token_id=1,
    )  # fmt: skip
    save_model(LlamaForCausalLM(config), tokenizer, "short")
    frame = pairs_of(400) if pairs else pd.DataFrame({"review": reviews_of(400)})
    config, text = started("short", write(frame, "r.csv"))
    cell = planned(config, text).cells[0]
    change = cell.settings["change"]
    assert change.context_tokens + change.new_tokens == min(positions, 80)


def make_parameters(folder: str) -> int:
    """Weights of the checkpoint in `folder`, tied ones once."""
    from lfp.models.loading import load_model

    return sum(weights.numel() for weights in load_model(folder).parameters())


def test_a_twentieth_of_the_latents_of_a_real_model_is_active():
    for width, active in ((576, 28), (768, 38), (2048, 102), (16, 1)):
        model = models.Model(
            name="m", source={"path": "m"}, origin="o", n_layers=2, d_model=width, vocab_size=9,
            parameters=9, tied=True, positions=None,
            tokenizer=lambda texts, **_: {"input_ids": [[1] * 20]},
        )  # fmt: skip
        corpus = texts.Corpus(
            name="c", path={"train": "c"}, columns={"text": "t"}, test_share=None,
            clean=texts.Clean(), texts=["x" * 300] * 500, held_out=99,
            why=dict.fromkeys(("path", "columns"), "w"),
        )  # fmt: skip
        variant = plain(choices.grid(model, corpus, "t", "vader", {}))["autoencoders"]["topk"]
        assert (variant["architecture"], variant["k"]) == ("topk", active)


def test_transcripts_of_preferences_become_dpo(here):
    config, text = started("neox", write(pairs_of(300), "hh/train.jsonl"), task="harmless")
    grid = planned(config, text)
    cell = grid.cells[0]
    assert (cell.method, cell.address) == ("dpo", "neox/harmless/seed0")
    assert config["corpora"]["hh"]["columns"] == {"chosen": "chosen", "rejected": "rejected"}
    assert grid.task_settings("contrasts", "harmless").source == "pairs"
    assert cell.settings["dpo"].max_prompt_length < cell.settings["dpo"].max_length


def test_answers_get_their_prompts_column(here):
    answers = pairs_of(300).map(lambda text: text.rpartition("Assistant: ")[2])
    prompts = [f"What about thing {i}, then?" for i in range(300)]
    asked = write(answers.assign(question=prompts, kind="a"), "answers.csv")
    columns = texts.described(asked).columns
    assert columns == {"prompt": "question", "chosen": "chosen", "rejected": "rejected"}
    two = write(answers.assign(question=prompts, context=prompts), "two.csv")
    with pytest.raises(StartError, match="no transcripts.*'question', 'context': name that of"):
        texts.described(two)
    assert texts.described(two, "context").columns["prompt"] == "context"
    with pytest.raises(StartError, match="there is no other"):
        texts.described(write(answers, "bare.csv"))
    lists = [[{"role": "user", "content": "a"}]] * 300
    with pytest.raises(StartError, match=r"'chosen' of .* holds values of the type list, expected"):
        texts.described(write(answers.assign(chosen=lists), "messages.jsonl"))


def test_the_held_out_file_beside_is_taken(here):
    write(pd.DataFrame({"text": reviews_of(500)[300:]}), "imdb/test.jsonl")
    corpus = texts.described(write(pd.DataFrame({"text": reviews_of(300)}), "imdb/train.jsonl"))
    assert corpus.path == {"train": "imdb/train.jsonl", "test": "imdb/test.jsonl"}
    assert (corpus.name, corpus.test_share, len(corpus.texts)) == ("imdb", None, 300)
    assert corpus.held_out == 200
    write(pd.DataFrame({"other": ["x"]}), "imdb/test.jsonl")
    assert texts.described("imdb/train.jsonl").path == {"train": "imdb/train.jsonl"}


def test_tags_are_taken_out_where_there_are_some(here):
    tagged = [f"{text}<br /><br />" for text in reviews_of(300)]
    assert texts.described(write(pd.DataFrame({"text": tagged}), "tags.csv")).clean.html
    hearts = [f"{text} I <3 it, a < b" for text in reviews_of(300)]
    assert not texts.described(write(pd.DataFrame({"text": hearts}), "hearts.csv")).clean.html


def test_short_texts_get_short_prompts_and_are_not_left_out(here):
    short = [f"Note {i} was good." for i in range(400)]
    config, text = started("neox", write(pd.DataFrame({"text": short}), "notes.csv"))
    ppo = planned(config, text).cells[0].settings["ppo"]
    assert ppo.min_characters <= min(map(len, short)) + 2
    assert ppo.prompt_tokens[1] <= 9


def test_texts_in_scripts_without_spaces_are_texts(here):
    chinese = [f"这部电影的故事很好看演员也很出色我非常喜欢它的结尾第{i}次" for i in range(300)]
    frame = pd.DataFrame({"评论": chinese, "id": [f"a-{i}-{'0' * 30}" for i in range(300)]})
    assert texts.described(write(frame, "films.parquet")).columns == {"text": "评论"}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"review": 1, "summary": 1}, "2 columns of texts: 'review', 'summary'; say which by"),
        ({"question": 1, "response_j": 1, "response_k": 1}, "name the columns prompt, chosen"),
        ({"label": "good", "stars": 5}, r"no column of texts.*'label' \(short texts\), 'stars'"),
    ],
)  # fmt: skip
def test_a_file_without_one_column_of_texts_is_named(here, frame, message):
    values = {
        name: reviews_of(300) if value == 1 else [value] * 300 for name, value in frame.items()
    }
    name = write(pd.DataFrame(values), "data.jsonl")
    with pytest.raises(StartError, match=message):
        texts.described(name)
    with pytest.raises(StartError, match="no column 'reviw'; "):
        texts.described(name, "reviw")


def test_text_wins_and_a_column_may_be_named(here):
    frame = pd.DataFrame({"title": reviews_of(300), "text": reviews_of(300)[::-1]})
    corpus = texts.described(write(frame, "both.csv"))
    assert corpus.columns == {"text": "text"}
    assert corpus.why["columns"] == "of the columns title, text"
    assert texts.described("both.csv", "title").columns == {"text": "title"}


def test_too_few_rows_an_empty_file_and_one_that_is_not_there_are_named(here):
    few = write(pd.DataFrame({"text": reviews_of(90) + reviews_of(50)}), "few.csv")
    with pytest.raises(StartError, match=r"few.csv gives \d+ texts.*50 duplicates.*at least 100"):
        texts.described(few)
    Path("empty.jsonl").touch()
    with pytest.raises(StartError, match="empty.jsonl has no row"):
        texts.described("empty.jsonl")
    Path("empty.csv").touch()
    with pytest.raises(CorpusError, match="empty.csv: empty, expected a line with the names"):
        texts.described("empty.csv")
    with pytest.raises(StartError, match="none.parquet has no row"):
        texts.described(write(pd.DataFrame({"text": pd.Series([], dtype=str)}), "none.parquet"))
    with pytest.raises(SourceError, match=r"--data: no file matches 'empty.jsnl'; .*empty.jsonl"):
        texts.described("empty.jsnl")
    Path("semi.csv").write_text("text;label\na;b\n")
    with pytest.raises(CorpusError, match="parted by semicolons"):
        texts.described("semi.csv")


def test_a_gguf_file_is_read_from_its_header(file, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"text": reviews_of(300)})
    config, text = started("source/tiny.gguf", write(frame, "films.csv"))
    planned(config, text)
    model = config["models"]["tiny"]
    assert (model["path"], model["n_layers"]) == ("source/tiny.gguf", 2)
    assert model["shape"]["d_model"] == 32
    assert "2 layers, width 32: from the GGUF file's header" in text


def test_checkpoints_that_cannot_be_taken_are_named(here):
    config = json.loads(Path("neox/config.json").read_text())
    for changed, message in (
        ({"model_type": "mamba"}, "neox cannot be taken.*'mamba' is not supported; expected one"),
        ({"model_type": "no_such"}, "neox cannot be taken.*no_such"),
    ):
        Path("neox/config.json").write_text(json.dumps(config | changed))
        with pytest.raises(StartError, match=message):
            models.described("neox")
    Path("neox/config.json").write_text(json.dumps(config))
    Path("neox/tokenizer.json").unlink()
    with pytest.raises(SourceError, match="neox has no tokenizer.json"):
        models.described("neox")
    with pytest.raises(
        StartError, match="no folder or file 'a/b/neox', and it is no id of the hub"
    ):
        models.described("a/b/neox")
    with pytest.raises(SourceError, match="absent.gguf is not a file"):
        models.described("absent.gguf")


def start_on_hub(url: str, asked: str, folder: Path) -> subprocess.CompletedProcess:
    """The command on a model of a hub, which reads the address at its first import."""
    environment = {
        "PATH": "", "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "cache"), "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "lfp.start", "--model", asked, "--data", "films.csv"]
    return subprocess.run(
        [*command, "--output", "mine.yaml", "--force"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_an_id_of_the_hub_is_pinned_and_without_a_network_says_what_to_do(here):
    write(pd.DataFrame({"text": reviews_of(300)}), "films.csv")
    hub = Hub({("models", "org/neox"): here / "neox"})
    result = start_on_hub(hub.url, "org/neox", here)
    assert result.returncode == 0, result.stderr
    config = yaml.safe_load(Path("mine.yaml").read_text())
    planned(config, Path("mine.yaml").read_text())
    model = config["models"]["neox"]
    assert (model["hub"], model["revision"], model["n_layers"]) == ("org/neox", COMMIT, 3)
    assert "model.safetensors" not in {name for name, _ in hub.sent}
    hub.close()
    result = start_on_hub(hub.url, "org/other", here)
    assert result.returncode == 1
    assert "no folder or file 'org/other' is here" in result.stderr
    assert "run `hf download org/other" in result.stderr


def test_a_file_is_never_replaced_without_being_asked(here, capsys):
    write(pd.DataFrame({"text": reviews_of(300)}), "films.csv")
    arguments = ["--model", "neox", "--data", "films.csv"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "snakemake -n --configfile config/mine.yaml" in printed
    assert "neox/vader/seed0" in printed and "on one core" in printed
    written = Path("config/mine.yaml").read_text()
    Path("config/mine.yaml").write_text("kept")
    assert main(arguments) == 1
    assert "config/mine.yaml is there" in capsys.readouterr().err
    assert Path("config/mine.yaml").read_text() == "kept"
    assert main([*arguments, "--force"]) == 0
    assert Path("config/mine.yaml").read_text() == written
    assert main([*arguments, "--output", "other.yaml", "--column", "no"]) == 1
    assert not Path("other.yaml").exists()


def test_a_reward_of_ones_own_is_named_and_checked(here, capsys):
    write(pd.DataFrame({"text": reviews_of(300)}), "films.csv")
    Path("kind.py").write_text("def brevity(prompts, completions):\n    return [0.0]\n")
    config, text = started("neox", "films.csv", reward="kind:brevity")
    assert planned(config, text).tasks["brevity"]["callable"] == "kind:brevity"
    assert started("neox", "films.csv", reward="length")[0]["tasks"]["length"]["reward"] == "length"
    for reward, message in (
        ("lenght", "did you mean 'length'"),
        ("kind:brevty", "did you mean 'brevity'"),
        ("absent:brevity", "absent.py in the working directory"),
    ):
        arguments = ["--model", "neox", "--data", "films.csv", "--reward", reward]
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(StartError, match="--reward: preference pairs are learned from as they are"):
        started("neox", write(pairs_of(300), "hh.csv"), reward="length")


def test_what_lies_among_the_results_is_not_written_over(here):
    for folder in ("results/models", "results/corpora/films"):
        Path(folder).mkdir(parents=True)
    Path("neox").rename("results/models/neox")
    frame = pd.DataFrame({"text": reviews_of(300)})
    asked = write(frame, "results/corpora/films/train.parquet")
    config, _ = started("results/models/neox", asked)
    assert set(config["models"]) == {"neox-mine"} and set(config["corpora"]) == {"films-mine"}
    assert models.plain_name("Models", "m") == "models-mine"


def test_jobs_ask_for_what_the_estimate_says(here):
    config, _ = started("neox", write(pd.DataFrame({"text": reviews_of(300)}), "films.csv"))
    frame = machines.costs(config)
    model = config["models"]["neox"]
    stages = frame[frame["stage"] != "total"]
    assert model["mem_mb"] >= 1500 * stages["cpu_memory_gb"].max() + 350
    assert model["runtime"] >= 60 and model["gpus"] == 0
    on_gpu = machines.demands(frame, "a card")
    assert on_gpu["gpus"] == Said(1, "torch sees a card here")
    assert on_gpu["mem_mb"].value <= model["mem_mb"]
    assert "neox/vader/seed0" in summary(frame)


def test_a_page_reads_as_what_it_says_whatever_columns_are_called():
    name = "te\u2028xt: # {a}\n\x07"
    tree = {
        "a": {"b": Said({"text": name, "n": [1, None, 1e-5]}, f"of {name}"), "c": Said("yes", "")},
        "d": [Said({"e": "010"}, "x " * 80)],
    }
    text = page(tree, "A header\nof two lines.")
    assert yaml.safe_load(text) == plain(tree)
    assert text.startswith("# A header of two lines.\n\na:\n")
