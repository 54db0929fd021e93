"""Pages of latents: every latent once, with its own numbers, and nothing of data or of the network
runs in them.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import save_file

from lfp.explaining import heuristic
from lfp.explaining.excerpts import BINS, histogram
from lfp.files import artefacts
from lfp.models import residual
from lfp.models.architectures import ARCHITECTURES, Architecture, architecture
from lfp.models.loading import save_model
from lfp.pages import drawing, promoted
from lfp.pages.latents import CellFiles, Excerpt, read_latents
from lfp.pages.readings import ELEMENTS
from lfp.pages.rendering import COLUMNS, INDEX, About, index_row, write_pages
from lfp.probing.features import element_features
from lfp.reporting.escapes import plain
from lfp.sae import store
from lfp.sae.architectures.standard import Standard
from lfp.settings import Explanations
from tests.conftest import make_model, run_job
from tests.test_architectures import CONFIGURATIONS
from tests.test_security import CHROMIUM, HOSTILE

CELL = "results/m/t/seed0"
ABOUT = About("m/t/seed0", "tied", "reward")
#: Ids of the planted direction's token, layer and latent.
TOKEN, LAYER, LATENT = 300, 2, 3
#: Elements that HTML never closes.
EMPTY = {"meta", "input"}


class Page(HTMLParser):
    """The elements of a page in order, with their attributes and the text directly in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.feed(text)
        assert not self.open, "an element is left open"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in EMPTY:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop()[0] == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, tag: str) -> list[tuple[dict, str]]:
        """Attributes and text of every element of a `tag`."""
        return [(attrs, "".join(texts)) for name, attrs, texts in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tokenizer, reviews, tmp_path_factory) -> Path:
    """A small cell: policy, dictionaries, explanations and what else pages are made of."""
    folder = tmp_path_factory.mktemp("cell")
    cell, policy = folder / CELL, make_model("gpt_neox", tokenizer, seed=1)
    base = make_model("gpt_neox", tokenizer, seed=2)
    save_model(policy, tokenizer, cell / "policy")
    torch.manual_seed(0)
    saes = {0: Standard(16, 6), LAYER: Standard(16, 9)}
    with torch.no_grad():
        row = policy.get_output_embeddings().weight[TOKEN]
        row.copy_(3 * row / row.norm())
        saes[LAYER].decoder[LATENT] = row
    policy.save_pretrained(cell / "policy")
    for layer, sae in saes.items():
        about = {"layer": layer, "site": "mlp"}
        store.save(sae, cell / f"sae/tied/layer{layer}/x1", about)
        store.save(Standard(16, 30), cell / f"sae/tied/layer{layer}/x2", about)
    _write_explanations(folder, policy, tokenizer, saes, reviews)
    words = pd.DataFrame({"prompt": reviews[:9], **{name: f" {name} film" for name in ELEMENTS}})
    for name, model in (("policy", policy), ("base", base)):
        arrays = element_features(model, tokenizer, saes, words, ["latents"], 64, 8, ELEMENTS)
        artefacts.write_tensors(cell / f"features/tied/{name}.safetensors", arrays, {})
    weight = np.random.default_rng(0).normal(size=15)
    artefacts.write_tensors(cell / "probes/tied/policy/probe.safetensors", {"weight": weight}, {})
    _write_ablation(cell / "ablation/tied")
    return folder


def _write_explanations(folder, policy, tokenizer, saes, reviews):
    """Write the explanations of a cell with two related latents, and scores of some."""
    matches = pd.concat(
        pd.DataFrame({"layer": n, "small": range(sae.d_sae), "large": 7,
                      "cosine": np.linspace(0.9, 0.5, sae.d_sae)})
        for n, sae in saes.items()
    )  # fmt: skip
    settings = Explanations(
        texts=16, top_features=5, permutations=99, scored_texts=10, excerpt_tokens=12
    )
    corpus, lexicon = pd.DataFrame({"text": reviews[:30]}), {"good": 2.0, "bad": -2.0}
    result = heuristic.explain_cell(
        policy, tokenizer, saes, matches, corpus, corpus,
        {"kind": "vader", "rewarded": lexicon}, "reward", settings, seed=0,
    )  # fmt: skip
    table = result.explanations
    table["related"] = (table["status"] == "ok") & table["feature"].isin([1, LATENT])
    scores = pd.DataFrame({
        "layer": 0, "feature": 1, "task": ["detection", "fuzzing"] * 2, "excerpts": 4,
        "balanced_accuracy": [0.9, 0.8, 0.5, 0.4], "unparsed": 0, "judge": "words-v1",
        "explanation": ["own", "own", "shuffled", "shuffled"],
    })  # fmt: skip
    here = folder / CELL / "explanations/tied"
    artefacts.write_table(here / "heuristic.parquet", table, {})
    artefacts.write_table(here / "scores/heuristic.parquet", scores, {})
    artefacts.write_table(here / "evidence.parquet", result.evidence, {})
    artefacts.write_table(here / "histograms.parquet", result.histograms, {})


def _write_ablation(folder):
    """Write completions under the arm of the four related latents, which costs 0.5 of reward."""
    rng, n = np.random.default_rng(0), 40
    rows, reward = [], rng.normal(size=n)
    for arm, of, cost, features in (
        ("none", "", 0, 0), ("explained", "", 0.5, 4), ("random", "explained", 0.1, 4)
    ):  # fmt: skip
        for draw in range(2 if of else 1):
            noise, kl = rng.normal(0, 0.01, n), abs(rng.normal(1, 0.01, n)) * bool(cost)
            rows.append(pd.DataFrame({
                "prompt": range(n), "reward": reward - cost + noise * bool(cost), "kl": kl,
                "arm": arm, "action": "zero", "matched_to": of, "draw": draw,
                "features": features, "matched": 1.0,
            }))  # fmt: skip
    artefacts.write_table(folder / "policy.parquet", pd.concat(rows), {})
    neutral = pd.concat(rows).rename(columns={"prompt": "text", "reward": "loss"})
    artefacts.write_table(folder / "policy.neutral.parquet", neutral, {})


def names() -> dict:
    """The files of the small cell by their names in the rule."""
    here = f"{CELL}/explanations/tied"
    return {
        "policy": f"{CELL}/policy",
        "autoencoders": [f"{CELL}/sae/tied/layer{n}" for n in (2, 0)],
        "explanations": [f"{here}/heuristic.parquet"],
        "scores": [f"{here}/scores/heuristic.parquet"],
        "evidence": f"{here}/evidence.parquet", "histograms": f"{here}/histograms.parquet",
        "features": [f"{CELL}/features/tied/{name}.safetensors" for name in ("policy", "base")],
        "ablation": [
            f"{CELL}/ablation/tied/policy.{end}" for end in ("parquet", "neutral.parquet")
        ],
        "probe": [f"{CELL}/probes/tied/policy/probe.safetensors"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def latents(folder):
    """The explained latents of the small cell."""

    def inside(value):
        return str(folder / value) if isinstance(value, str) else [inside(one) for one in value]

    files = CellFiles(**{name: inside(value) for name, value in names().items()})
    return read_latents(files, "heuristic", 0.95)


@pytest.fixture
def pages(latents, tmp_path) -> Path:
    """The folder of the pages of the small cell."""
    write_pages(tmp_path, latents, ABOUT)
    return tmp_path


def test_the_index_lists_every_explained_latent_once_with_its_numbers(pages, folder):
    page = Page((pages / INDEX).read_text(encoding="utf-8"))
    values = [attrs.get("data-value", text) for attrs, text in page.all("td")]
    rows = pd.DataFrame(
        np.array(values).reshape(-1, len(COLUMNS)), columns=[column.name for column in COLUMNS]
    )
    table = artefacts.read_table(folder / CELL / "explanations/tied/heuristic.parquet")
    explained = table[table["status"] == "ok"].reset_index(drop=True)
    assert 0 < len(explained) < len(table)
    assert rows["layer"].astype(int).tolist() == explained["layer"].tolist()
    assert rows["latent"].astype(int).tolist() == explained["feature"].tolist()
    for column, name in (
        ("match", "cosine"), ("frequency", "frequency"), ("largest", "max_activation")
    ):  # fmt: skip
        np.testing.assert_allclose(rows[column].astype(float), explained[name])
    assert rows["explanation"].tolist() == explained["explanation"].tolist()
    assert (rows["related"] == "yes").tolist() == explained["related"].tolist()
    scored = (explained["layer"] == 0) & (explained["feature"] == 1)
    assert rows["detection"].tolist() == ["0.9" if one else "" for one in scored]
    assert rows["fuzzing"].tolist() == ["0.8" if one else "" for one in scored]
    read = {
        name: artefacts.read_tensors(folder / CELL / f"features/tied/{name}.safetensors")
        for name in ("policy", "base")
    }
    both = {
        name: np.vstack([arrays["latents.positive"], arrays["latents.negative"]])
        for name, arrays in read.items()
    }
    kept = np.flatnonzero(table["status"] == "ok")
    change = both["policy"].mean(0) - both["base"].mean(0)
    assert abs(change[kept]).max() > 1e-3
    np.testing.assert_allclose(rows["policy \u2212 base"].astype(float), change[kept], atol=1e-6)
    share = (both["base"] > 0).mean(0)[kept]
    np.testing.assert_allclose(rows["base active"].astype(float), share, atol=1e-6)
    linked = [attrs["href"] for attrs, _ in page.all("a")]
    written = {path.name for path in pages.glob("layer*.html")}
    assert len(linked) == len(set(linked)) and set(linked) == written


def test_a_planted_latent_promotes_its_token(latents, tokenizer, pages):
    [planted] = [one for one in latents if (one.layer, one.number) == (LAYER, LATENT)]
    text, logit = planted.promoted.promoted[0]
    assert text == tokenizer.decode([TOKEN]) and logit > planted.promoted.promoted[1][1] > 0
    assert planted.promoted.suppressed[0][1] < planted.promoted.suppressed[1][1] < 0
    page = Page((pages / planted.page).read_text(encoding="utf-8"))
    shown = [listed.replace("\u2423", " ") for _, listed in page.all("code")]
    listed = [*planted.promoted.promoted, *planted.promoted.suppressed]
    assert shown == [plain(text) for text, _ in listed]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_logits_of_a_direction_are_those_of_the_model_itself(family, dtype, tmp_path):
    """In every family and precision, from a checkpoint in several files; biases fall away."""
    torch.manual_seed(0)
    config = CONFIGURATIONS[family](transformers)
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "norm" in name or "ln_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    head = promoted.output_head(tmp_path)
    directions = torch.nn.functional.normalize(torch.randn(5, 16), dim=1)
    model = model.float()
    norm = model.get_submodule(architecture(model).final_norm)
    with torch.no_grad():
        # A large input, beside which the constant under the norm's root is nothing.
        change = norm(1e4 * directions) - getattr(norm, "bias", torch.zeros(16))
        expected = change @ model.get_output_embeddings().weight.T
    logits = head.normed(directions.numpy()) @ head.unembedding.rows().T
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "llama"])
def test_the_norm_between_a_site_and_the_stream_has_its_gain(family, tmp_path):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGURATIONS[family](transformers))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    directions = torch.randn(3, 16)
    for site in ("mlp", "attn", "resid"):
        expected = residual.written(model, directions, 1, site)
        ours = directions.numpy() * promoted.stream_gain(tmp_path, 1, site)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


#: Entries of families that are not in the list, and what their models are made of: norms of another
#: name, and norms behind attention and MLP whose weights are whole.
ADDED = {
    "phi": (
        Architecture("model.layers", "model.final_layernorm", "self_attn.dense"),
        lambda t: t.PhiConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                              intermediate_size=24, vocab_size=60),
    ),
    "olmo2": (
        replace(ARCHITECTURES["gemma2"], gain_offset=0.0),
        lambda t: t.Olmo2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                intermediate_size=24, vocab_size=60),
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", ADDED)
def test_a_familys_entry_alone_says_where_its_norms_are_and_what_their_gain_is(
    family, tmp_path, monkeypatch
):
    entry, configuration = ADDED[family]
    monkeypatch.setitem(ARCHITECTURES, family, entry)
    monkeypatch.setitem(CONFIGURATIONS, family, configuration)
    test_logits_of_a_direction_are_those_of_the_model_itself(family, "float32", tmp_path / "head")
    test_the_norm_between_a_site_and_the_stream_has_its_gain(family, tmp_path / "between")


def test_a_checkpoint_of_another_family_or_without_its_norms_is_refused(tmp_path):
    tensors = {"model.norm.weight": torch.ones(4), "model.embed_tokens.weight": torch.ones(9, 4)}
    save_file(tensors, tmp_path / "model.safetensors")
    for family, message in (
        ("bloom", "model type 'bloom' is not supported; expected one of gpt_neox"),
        ("gemma2", r"no tensor's name ends with \.1\.post_feedforward_layernorm\.weight"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        with pytest.raises(ValueError, match=message):
            promoted.stream_gain(tmp_path, 1, "mlp")


def test_the_largest_of_parts_are_those_of_all(monkeypatch, tokenizer):
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, (len(tokenizer) + 30, 4)).astype(np.float32)
    head = promoted.OutputHead(np.ones(4, np.float32), False, promoted.Tensor(rows))
    directions = rng.normal(size=(3, 4)).astype(np.float32)
    vocabulary = tokenizer.backend_tokenizer
    whole = promoted.promoted_tokens(directions, head, vocabulary, 6)
    monkeypatch.setattr(promoted, "ROWS", 50)
    parts = promoted.promoted_tokens(directions, head, vocabulary, 6)
    logits = head.normed(directions) @ rows[: len(tokenizer)].T
    logits -= logits.mean(1, keepdims=True)
    for one, two, of_latent in zip(whole, parts, logits, strict=True):
        for listed, ordered in (
            (one.promoted, np.sort(of_latent)[::-1]), (one.suppressed, np.sort(of_latent)),
        ):  # fmt: skip
            np.testing.assert_allclose([v for _, v in listed], ordered[:6], rtol=1e-4)
        np.testing.assert_allclose(
            [v for _, v in two.promoted], [v for _, v in one.promoted], rtol=1e-4
        )


def test_the_right_token_is_highlighted_with_the_right_strength():
    tokens = ["A", " fine", " film", "", " of", " old", "."]
    activations = [0.0, 4.0, 0.3, 1.0, 0.0, 0.0, 8.0]
    pieces = drawing.highlighted(tokens, activations, largest=8.0)
    assert [(piece.text, piece.step) for piece in pieces] == [
        ("A", 0), (" fine", 5), (" film", 2), (" of old", 0), (".", 10),
    ]  # fmt: skip
    assert "".join(piece.text for piece in pieces) == "".join(tokens)


def test_a_page_marks_what_the_model_was_active_on(latents, pages):
    latent = next(one for one in latents if one.excerpts)
    first = latent.excerpts[0]
    largest = max(first.activations)
    assert largest == max(max(one.activations) for one in latent.excerpts if one.kind == "top")
    page = Page((pages / latent.page).read_text(encoding="utf-8"))
    active = [
        (plain(token), f"a{int(np.ceil(10 * activation / largest))}")
        for token, activation in zip(first.tokens, first.activations, strict=True)
        if activation > 0
    ]
    marks = [(text, attrs["class"]) for attrs, text in page.all("mark")][: len(active)]
    assert active and marks == active
    shown = next(text for attrs, text in page.all("p") if attrs.get("class") == "text")
    assert shown.startswith(plain("".join(first.tokens)))


def test_the_cost_of_a_set_is_said_to_be_the_sets(latents, pages):
    related = [one for one in latents if one.main.row["related"]]
    assert {len(one.sets[0].members) for one in related} == {len(related)}
    for latent in latents:
        text = " ".join((pages / latent.page).read_text(encoding="utf-8").split())
        assert bool(latent.sets) == latent.main.row["related"]
        assert ("It was never ablated alone." in text) == bool(latent.sets)
        assert ("No arm of ablation chose this latent" in text) == (not latent.sets)
    [cost] = related[0].sets
    assert cost.reward.estimate == pytest.approx(-0.5, abs=0.01)
    assert cost.reward.ci_low < cost.reward.estimate < cost.reward.ci_high
    assert cost.beside_random.estimate == pytest.approx(-0.4, abs=0.02)


def test_text_of_data_and_of_services_is_escaped(latents, tmp_path):
    """Also in attributes, and control characters steer nothing."""
    tokens = [*HOSTILE, "\n", "fine"]
    excerpt = Excerpt("top", tokens, [1.0, 0.0, 2.0, 3.0, 0.0, 1.0])
    hostile = "".join(HOSTILE)
    [first] = latents[0].explained
    explained = replace(
        first, name=hostile, scores={(hostile, hostile): {"own": 0.5}},
        row=dict(first.row) | {"explanation": hostile, "explainer": hostile, "status": "ok"},
    )  # fmt: skip
    written = promoted.Promoted([(text, 1.0) for text in HOSTILE], [(hostile, -1.0)])
    planted = replace(latents[0], explained=[explained], excerpts=[excerpt], promoted=written)
    write_pages(tmp_path, [planted, *latents[1:]], About(hostile, hostile, "reward"))
    for path in (tmp_path / planted.page, tmp_path / INDEX):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert {"h1", "p"} <= {tag for tag, _, _ in page.elements}
        assert not page.all("img") and len(page.all("h1")) == 1
        assert len(page.all("script")) == (path.name == INDEX)
        assert not [name for _, attrs, _ in page.elements for name in attrs if name[:2] == "on"]
        assert not re.search("[\x1b\u202e]", text)
    page = Page((tmp_path / planted.page).read_text(encoding="utf-8"))
    marks = [text for _, text in page.all("mark")]
    assert marks == [plain(text) for text in (HOSTILE[0], HOSTILE[2], HOSTILE[3], "fine")]
    assert plain(hostile) in page.all("p")[1][1]


def test_nothing_is_loaded_from_anywhere(pages):
    for path in pages.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not re.search(r"https?:|//[a-z]|url\(|@import", text.replace("\u202f", ""))
        for _, attrs, _ in page.elements:
            assert not {"src", "srcset", "style", "action"} & set(attrs)
            if "href" in attrs:
                assert (pages / attrs["href"]).is_file()
        [policy] = [a["content"] for a, _ in page.all("meta") if "http-equiv" in a]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        for tag in ("style", "script"):
            for _, content in page.all(tag):
                digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
                assert f"{tag}-src 'sha256-{digest}'" in policy


def test_pages_of_150_latents_take_seconds_and_megabytes(latents, tmp_path):
    excerpts = [Excerpt(kind, [" token", "s"] * 16, [1.0, 2.0] * 16) for kind in
                ["top"] * 10 + ["random"] * 5]  # fmt: skip
    many = [replace(latents[0], number=n, excerpts=excerpts) for n in range(150)]
    began = time.process_time()
    write_pages(tmp_path, many, ABOUT)
    assert time.process_time() - began < 10
    files = list(tmp_path.iterdir())
    assert len(files) == 151 and sum(path.stat().st_size for path in files) < 10e6


def test_a_histogram_counts_every_active_token(latents):
    values = np.array([0.0, 0.0, 0.1, 3.2, 3.2, 1.0])
    counted = histogram(values)
    assert (counted["tokens"], counted["active"], counted["largest"]) == (6, 4, 3.2)
    assert counted["mean"] == pytest.approx(7.5 / 6)
    expected = np.zeros(BINS, dtype=int)
    expected[[1, 10, BINS - 1]] = 1, 1, 2
    assert counted["counts"] == expected.tolist()
    assert histogram(np.zeros(3))["counts"] == [0] * BINS
    bars = drawing.bars(counted["counts"])
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", bars.outline)]
    assert heights[0] == heights[1] < heights[2] == drawing.HEIGHT
    assert bars.marks[0] == (pytest.approx(drawing.HEIGHT - heights[0], abs=0.1), 1)
    assert all(sum(one.histogram["counts"]) == one.histogram["active"] for one in latents)


def test_what_a_cell_lacks_is_left_out(folder, tmp_path):
    """No base, no ablation, a site that no token can be read off, and a second explainer."""
    paths = names()
    here = folder / f"{CELL}/explanations/tied"
    other = artefacts.read_table(here / "heuristic.parquet")
    explained = other["status"] == "ok"
    failed = explained & (explained.cumsum() == 1)
    other = other.assign(explanation=np.where(explained & ~failed, "about films", ""))
    other = other.assign(status=other["status"].mask(failed, "refused"), effect=np.nan)
    artefacts.write_table(here / "service.parquet", other.assign(explainer="service-1"), {})
    for layer in (0, LAYER):
        sae = Standard(16, 9 if layer else 6)
        sae.site, sae.layer = "heads", layer
        store.save(sae, tmp_path / f"layer{layer}" / "x1", {"layer": layer, "site": "heads"})
    changed = {
        "explanations": [*paths["explanations"], f"{CELL}/explanations/tied/service.parquet"],
        "features": paths["features"][:1], "ablation": [], "probe": [],
    }  # fmt: skip
    inside = {
        name: str(folder / value) if isinstance(value, str) else [str(folder / v) for v in value]
        for name, value in (paths | changed).items()
    }
    inside["autoencoders"] = [str(tmp_path / f"layer{n}") for n in (0, LAYER)]
    latents = read_latents(CellFiles(**inside), "heuristic", 0.95)
    write_pages(tmp_path, latents, ABOUT)
    texts = [" ".join((tmp_path / one.page).read_text(encoding="utf-8").split()) for one in latents]
    for text in texts:
        assert "This cell does not read its base." in text
        assert "None can be read off" in text and "No arm of ablation chose" in text
    assert ["No explanation: refused" in text for text in texts] == [True] + [False] * (
        len(texts) - 1
    )
    assert index_row(latents[1])[3].endswith(" | about films")


def test_a_cell_without_an_explained_latent_has_an_index_that_says_so(folder, tmp_path):
    """As where a corpus is empty: no text, no triple, no completion."""
    inside = {}
    for name, value in names().items():
        paths = [value] if isinstance(value, str) else value
        placed = []
        for path in paths:
            empty = tmp_path / path
            if path.endswith(".parquet"):
                rows = artefacts.read_table(folder / path)
                kept = rows.assign(status="dead", related=False, frequency=0.0)
                artefacts.write_table(empty, kept if name == "explanations" else rows.head(0), {})
            elif name == "features":
                arrays = artefacts.read_tensors(folder / path)
                artefacts.write_tensors(empty, {n: v[:0] for n, v in arrays.items()}, {})
            else:
                empty = folder / path
            placed.append(str(empty))
        inside[name] = placed[0] if isinstance(value, str) else placed
    latents = read_latents(CellFiles(**inside), "heuristic", 0.95)
    assert latents == []
    write_pages(tmp_path, latents, ABOUT)
    assert [path.name for path in tmp_path.glob("*.html")] == [INDEX]
    assert "No latent of this cell was explained." in (tmp_path / INDEX).read_text()


def test_the_job_writes_the_same_bytes_twice(folder):
    written = []
    for target in ("first", "second"):
        output = f"results/{target}/pages"
        about = {"cell": "m/t/seed0", "dictionary": "tied", "feedback": "reward"}
        settings = {"explainer": "heuristic", "confidence": 0.95, "about": about, "seed": 1}
        done = run_job("feature_pages", settings, names(), {"pages": output}, folder)
        assert done.returncode == 0, done.stderr
        files = sorted(path for path in (folder / output).iterdir() if path.suffix == ".html")
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1] and INDEX in written[0]
    code = "import sys, workflow_scripts.feature_pages; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def shown_by_chromium(page: Path, profile: Path) -> tuple[str, str]:
    """The page as headless Chromium has it once its scripts ran, and what its console says."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-quic", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={profile}",
        "--virtual-time-budget=8000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_the_index_sorts_and_filters_in_a_browser(pages, latents, tmp_path):
    profile = tmp_path / "profile"
    for name in (INDEX, latents[0].page):
        _, console = shown_by_chromium(pages / name, profile)
        assert console == ""
    text = (pages / INDEX).read_text(encoding="utf-8")
    acts = (
        "document.querySelectorAll('thead button')[6].click();"
        "const one = document.querySelector('[data-filter=choice]');"
        f"one.value = '{LAYER}'; one.dispatchEvent(new Event('input'));"
    )
    # The page's own policy would not run them.
    changed = re.sub("<meta http-equiv[^>]*>", "", text).replace(
        "</body>", f"<script>{acts}</script></body>"
    )
    (pages / "acts.html").write_text(changed, encoding="utf-8")
    document, console = shown_by_chromium(pages / "acts.html", profile)
    assert console == ""
    rows = re.findall(r"<tr( hidden=\"\")?><td[^>]*data-value=\"(\d+)\".*?</tr>", document, re.S)
    assert {(bool(hidden), int(layer) == LAYER) for hidden, layer in rows} == {
        (False, True), (True, False)
    }  # fmt: skip
    cosines = re.findall(r"data-label=\"match\" class=\"n\" data-value=\"([\d.]+)\"", document)
    expected = sorted((float(one.main.row["cosine"]) for one in latents), reverse=True)
    assert [float(value) for value in cosines] == expected
    count = sum(one.layer == LAYER for one in latents)
    assert f"{count} of {len(latents)} latents" in document


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_search_does_not_run_over_the_end_of_a_cell(pages, latents, tmp_path):
    """`no` of one column in front of `words: ...` of the next is no `now`."""
    text = (pages / INDEX).read_text(encoding="utf-8")
    acts = (
        "const one = document.querySelector('[data-filter=text]');"
        "const cells = document.querySelector('tbody tr').cells;"
        "one.value = cells[2].textContent + cells[3].textContent;"
        "one.dispatchEvent(new Event('input'));"
    )
    changed = re.sub("<meta http-equiv[^>]*>", "", text).replace(
        "</body>", f"<script>{acts}</script></body>"
    )
    (pages / "acts.html").write_text(changed, encoding="utf-8")
    document, console = shown_by_chromium(pages / "acts.html", tmp_path / "profile")
    assert console == "" and f"0 of {len(latents)} latents" in document
