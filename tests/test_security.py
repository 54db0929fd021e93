"""Nothing from data, models or configuration runs, steers a terminal, breaks a table, or leaves the
results folder.
"""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.files import artefacts, provenance, resume
from lfp.grid import ConfigurationError, Grid
from lfp.models.loading import load_model, save_model
from lfp.reporting.escapes import plain
from lfp.sae import store
from lfp.sae.architectures.standard import Standard
from lfp.tables import rendering
from lfp.tables.pages import parts
from tests.conftest import make_model

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for folder in ("lfp", "workflow_scripts") for path in (ROOT / folder).rglob("*.py")
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
#: The script that sorts and searches the rows of every page of tables.
OWN_SCRIPT = f"<script>{parts.SCRIPT}</script>"
HOSTILE = (
    "<script>document.title = 'PLANTED'</script>",
    "<img src=x onerror=\"document.title = 'PLANTED'\">",
    "</td></tr></table><h1>PLANTED</h1>",
    "a | b `c` \x1b[31mred\x1b[0m \x1b]0;title\x07 \u202etxet",
)


def calls(tree: ast.AST) -> set[str]:
    """Names of everything that is called, as written."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_module_can_run_what_a_file_says(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    imported |= {
        (n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    forbidden = {
        "eval",
        "exec",
        "torch.load",
        "yaml.load",
        "pd.read_pickle",
        "os.system",
    }
    assert not calls(tree) & forbidden
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        if ast.unparse(call.func) == "np.load":
            assert ("allow_pickle", "False") in {
                (k.arg, ast.unparse(k.value)) for k in call.keywords
            }
    keywords = {
        (k.arg, ast.unparse(k.value))
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        for k in n.keywords
    }
    dangerous = {
        ("shell", "True"),
        ("trust_remote_code", "True"),
        ("weights_only", "False"),
        ("allow_pickle", "True"),
    }
    assert not keywords & dangerous


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (self.target, "ran"))


@pytest.fixture
def bomb(tmp_path):
    """A pickle that leaves a mark when it is loaded, and the mark."""
    mark = tmp_path / "mark"
    path = tmp_path / "bomb.pt"
    torch.save(Bomb(mark), path)
    return path, mark


@pytest.mark.parametrize(
    "read",
    [artefacts.read_json, artefacts.read_table, artefacts.read_tensors, artefacts.read_metadata],
)
def test_a_pickle_under_another_name_is_refused(bomb, read):
    path, mark = bomb
    with pytest.raises(provenance.ArtefactError, match=str(path)):
        read(path)
    assert not mark.exists()


def test_a_pickle_as_a_resume_point_is_left_aside(bomb):
    path, mark = bomb
    assert resume.load_tensors(path) is None
    assert not mark.exists()


def test_a_pickle_as_weights_of_an_autoencoder_or_a_model_is_refused(
    bomb, neox, tokenizer, tmp_path
):
    path, mark = bomb
    store.save(Standard(4, 8), tmp_path, {})
    shutil.copyfile(path, tmp_path / "sae_weights.safetensors")
    with pytest.raises(provenance.ArtefactError):
        store.load(tmp_path)
    save_model(neox, tokenizer, tmp_path / "model")
    shutil.copyfile(path, tmp_path / "model" / "model.safetensors")
    with pytest.raises(provenance.ArtefactError):
        load_model(tmp_path / "model")
    assert not mark.exists()


def test_code_that_comes_with_a_checkpoint_does_not_run(tokenizer, tmp_path):
    mark = tmp_path / "mark"
    save_model(make_model("gpt_neox", tokenizer), tokenizer, tmp_path)
    (tmp_path / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(mark)!r}).write_text('ran')\n"
    )
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "model_type": "evil",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(provenance.ArtefactError):
        load_model(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/b", "a b", "", ".hidden", "$(touch x)", "x;y", "tables"]
)
def test_a_name_that_would_be_another_path_is_refused(name):
    organism = {"architecture": "gpt_neox", "corpora": ["reviews"]}
    config = {
        "corpora": {"reviews": {"organism": "reviews"}}, "models": {name: {"organism": organism}},
        "tasks": {"vader": {"method": "ppo", "corpus": "reviews"}},
        "cells": [{"model": name, "task": "vader"}],
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="model"):
        Grid(config)


def test_text_cannot_steer_a_terminal():
    for text in HOSTILE:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain(text))
    assert plain("a\tb\nç\u00e9 \u4e2d") == "a\tb\nç\u00e9 \u4e2d"


def test_planted_text_stays_text_in_every_table(tmp_path):
    frame = pd.DataFrame({"word": HOSTILE, "estimate": np.arange(4.0)})
    paths = {kind: tmp_path / f"t.{kind}" for kind in rendering.FORMATS}
    rendering.write_formats(frame, paths, "Caption", {})
    rows = paths["md"].read_text().splitlines()[4:]
    assert len(rows) == len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    for kind in ("md", "tex", "html"):
        assert "\x1b" not in paths[kind].read_text()
    page = without_script(paths["html"].read_text())
    assert page.count("<tr>") == 1 + len(HOSTILE)
    assert not re.search(r"<(script|img|h1)", page)
    # The data formats keep what was there.
    assert list(artefacts.read_table(paths["parquet"])["word"]) == list(HOSTILE)


def without_script(page: str) -> str:
    """A page of tables without its own script, which it has once and as it was written."""
    assert page.count(OWN_SCRIPT) == 1
    return page.replace(OWN_SCRIPT, "")


def opened(page: Path, profile: Path) -> str:
    """The page as headless Chromium has it once its scripts ran."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-quic",
    ]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [
        f"--user-data-dir={profile}",
        "--virtual-time-budget=8000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_chromium_shows_planted_text_and_runs_none_of_it(tmp_path):
    frame = pd.DataFrame({"word": HOSTILE, "estimate": np.arange(4.0)})
    paths = {kind: tmp_path / f"t.{kind}" for kind in rendering.FORMATS}
    rendering.write_formats(frame, paths, "Caption", {})
    found = opened(paths["html"], tmp_path / "profile")
    assert "<title>Caption</title>" in found
    assert len(re.findall("<tr>", found)) == 1 + len(HOSTILE)
    # Nor would it run where nothing escaped it: the page's policy knows its own script alone.
    raw = paths["html"].read_text().replace("<section>", f"{HOSTILE[0]}{HOSTILE[1]}<section>")
    (tmp_path / "raw.html").write_text(raw)
    assert "<title>Caption</title>" in opened(tmp_path / "raw.html", tmp_path / "profile")
    # The browser can run scripts at all.
    (tmp_path / "bad.html").write_text(f"<title>t</title>{HOSTILE[0]}")
    assert "<title>PLANTED</title>" in opened(tmp_path / "bad.html", tmp_path / "profile")
